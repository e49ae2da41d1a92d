# make demo: everything from nothing to words read.  make test: everything from nothing to all tests run.  make help: the rest
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
# Python's side alone of TensorRT, JetPack 6's version to the newest, and of CUDA 12: tests check what we use against them
TENSORRT_BINDINGS := 10.3.0 10.13.3.9 11.4.0.106
# open_clip and what it imports: its torchvision is built for CUDA's torch, and beside a CPU's would break lightning
OPEN_CLIP := open_clip_torch torchvision timm huggingface_hub ftfy wcwidth regex
# what reads words alone: no torch
DEMO := .venv-demo
DEMO_STAMP := $(DEMO)/.ready
PACKAGED := model/bundled/clip4str-small

NETWORK := network-run network-status network-pause network-resume network-stop

.PHONY: help demo test test-all test-live fuzz lint bench kernels ship setup clean $(NETWORK)

help:
	@echo "make demo       the runtime alone into $(DEMO), 0.2 GB; reads the sample crops, shows the latency"
	@echo "make setup      all of development into $(VENV), 3 GB: torch for CPUs and whatever tests need. Where the package"
	@echo "                index has torch for CUDA alone it is 8 GB: name another, PIP_INDEX_URL or PIP_EXTRA_INDEX_URL"
	@echo "make test       all tests but the slowest;  make test-all: those, too, 8 GB of memory;  make lint"
	@echo "make test-live  beside real servers and pipelines: installs Debian packages where it can, else skips"
	@echo "make fuzz MINUTES=10     damaged pictures, checkpoints, bundles and data sets by the thousand: what breaks is kept"
	@echo "make bench      the packaged network beside the published way of decoding"
	@echo "make ship CHECKPOINT=FILE     a newly trained network becomes the packaged one"
	@echo "make kernels    the GPU operators without Python, for all GPUs: ten minutes, gcc and CMake"
	@echo "make network-run, -status, -pause, -resume, -stop     the long training run;  make clean"

setup: $(STAMP)

# torch first and alone: whatever asks for torch before it is there drags in gigabytes of CUDA libraries.
$(STAMP): setup.py pyproject.toml constraints.txt
	@echo "setting up $(VENV): 3 GB on disk, more where torch comes with CUDA (make help)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip -c constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet -c constraints.txt -e '.[train,gpu,dev]'
	@for version in $(TENSORRT_BINDINGS); do $(BIN)/python -m pip install --quiet --no-deps --upgrade \
	    --target $(VENV)/tensorrt-bindings/$$version tensorrt-cu12-bindings==$$version \
	    || echo "no bindings of TensorRT $$version for this platform: their tests will be skipped"; done
	@$(BIN)/python -m pip install --quiet --no-deps --upgrade --target $(VENV)/cuda-bindings/12.9.10 \
	    cuda-bindings==12.9.10 cuda-pathfinder || echo "no CUDA 12 bindings for this platform: not tested with them"
	@$(BIN)/python -m pip install --quiet --no-deps --upgrade -c constraints.txt --target $(VENV)/open-clip $(OPEN_CLIP)
	@touch $@

demo: $(DEMO_STAMP)
	$(DEMO)/bin/clip4str read --bundle $(PACKAGED) export/sample_crops
	$(DEMO)/bin/clip4str bench --bundle $(PACKAGED) --no-published --batch 1 --threads 1 --seconds 10

$(DEMO_STAMP): setup.py pyproject.toml constraints.txt
	@echo "setting up $(DEMO): the runtime alone, 0.2 GB on disk"
	$(PYTHON) -m venv $(DEMO)
	$(DEMO)/bin/python -m pip install --quiet -c constraints.txt -e .
	@touch $@

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile

# also base32, large and huge against the published outputs, and a minute of fuzzing for each target: ten minutes and
# more, and 8 GB of memory
test-all: $(STAMP)
	$(BIN)/python -m pytest -m 'slow or not slow'

# GStreamer, RTSP and MQTT servers, a browser: needs root and apt-get, or what it says that is missing
test-live: $(STAMP)
	$(BIN)/python tests/live/run.py

# inputs by what has been read of them; by coverage of the code where atheris is installed
MINUTES ?= 10
fuzz: $(STAMP)
	$(BIN)/python tests/fuzz/run.py --minutes $(MINUTES)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(STAMP)
	$(BIN)/clip4str bench --bundle $(PACKAGED)

ship: $(STAMP)
	$(BIN)/python export/ship.py $(CHECKPOINT)

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
	rm -rf $(VENV) $(DEMO) bundles runs build *.egg-info
