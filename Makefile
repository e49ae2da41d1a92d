# make demo: everything from nothing to words read.  make test: everything from nothing to all tests run.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
# Python's side alone of TensorRT, JetPack 6's version to the newest, and of CUDA 12: tests check what we use against them
TENSORRT_BINDINGS := 10.3.0 10.13.3.9 11.4.0.106
DEMO_BUNDLE := bundles/clip4str-small-fp32

NETWORK := network-run network-status network-pause network-resume network-stop

.PHONY: demo test test-all lint bench kernels setup clean $(NETWORK)

setup: $(STAMP)

# torch first and alone: whatever asks for torch before it is there drags in gigabytes of CUDA libraries.
$(STAMP): setup.py pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip -c constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet -c constraints.txt -e '.[train,gpu,dev]'
	@for version in $(TENSORRT_BINDINGS); do $(BIN)/python -m pip install --quiet --no-deps --upgrade \
	    --target $(VENV)/tensorrt-bindings/$$version tensorrt-cu12-bindings==$$version \
	    || echo "no bindings of TensorRT $$version for this platform: their tests will be skipped"; done
	@$(BIN)/python -m pip install --quiet --no-deps --upgrade --target $(VENV)/cuda-bindings/12.9.10 \
	    cuda-bindings==12.9.10 cuda-pathfinder || echo "no CUDA 12 bindings for this platform: not tested with them"
	@touch $@

demo: $(STAMP) $(DEMO_BUNDLE)/manifest.json
	$(BIN)/clip4str read --bundle $(DEMO_BUNDLE) export/sample_crops
	$(BIN)/clip4str bench --bundle $(DEMO_BUNDLE) --words export/sample_crops --batch 1 --threads 1 --seconds 20

$(DEMO_BUNDLE)/manifest.json: $(STAMP) model/bundled/clip4str-small.safetensors
	$(BIN)/python export/build_engine.py --fp32 --output $(DEMO_BUNDLE) --force

test: $(STAMP)
	$(BIN)/python -m pytest

# also base32, large and huge against the published outputs: minutes, and 8 GB of memory
test-all: $(STAMP)
	$(BIN)/python -m pytest -m 'slow or not slow'

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(STAMP) $(DEMO_BUNDLE)/manifest.json
	$(BIN)/clip4str bench --bundle $(DEMO_BUNDLE)

# libclip4str_kernels.so for all GPUs, tested; ten minutes on two cores the first time, needs gcc and CMake
kernels: $(STAMP)
	cmake -B build/kernels -DPython3_EXECUTABLE=$(abspath $(BIN)/python)
	cmake --build build/kernels
	ctest --test-dir build/kernels --output-on-failure

# the long training run of the bundled network, beside the project: starts or goes on, COMMIT=HEAD moves it; any time, twice
$(NETWORK):
	@test -x $(BIN)/python || { echo "there is no $(VENV) yet: make setup"; exit 2; }
	@PYTHONPATH=$(CURDIR) $(BIN)/python training/network_run.py $(@:network-%=%) $(if $(COMMIT),--commit $(COMMIT)) \
	    || test "$@,$$?" = network-status,1

clean:
	rm -rf $(VENV) bundles runs build *.egg-info
