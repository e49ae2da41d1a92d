# docker build -f docs/serving/triton.Dockerfile --build-arg TRITON=IMAGE -t clip4str-triton:1 .
# IMAGE: NVIDIA's tritonserver, a tag that ends in -py3. dist/ is what `make wheels` makes, repo/ what
# `clip4str serve triton` writes. Not built where this was written.
ARG TRITON
FROM ${TRITON}
COPY dist/clip4str-*.whl /opt/clip4str/
# servers up to 24.10 at least, and so some later ones, need numpy 1: a model says so when it is loaded
RUN python3 -m pip install --no-cache-dir /opt/clip4str/clip4str-*-none-any.whl 'numpy<2'
COPY repo /models
