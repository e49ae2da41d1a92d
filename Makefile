# make demo: everything from nothing to words read.  make test: everything from nothing to all tests run.  make help: the rest
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
# Python's side alone of TensorRT, JetPack 6's version to the newest, and of CUDA 12: tests check what we use against them
TENSORRT_BINDINGS := 10.3.0 10.13.3.9 11.4.0.106
# the oldest Triton that setup.py allows, which servers have as often as the newest: kernels must compile with both
TRITON_OLDEST := 3.6.0
# open_clip and what it imports: its torchvision is built for CUDA's torch, and beside a CPU's would break lightning
OPEN_CLIP := open_clip_torch torchvision timm huggingface_hub ftfy wcwidth regex
# what reads words alone: no torch
DEMO := .venv-demo
DEMO_STAMP := $(DEMO)/.ready
PACKAGED := model/bundled/clip4str-small

NETWORK := network-run network-status network-pause network-resume network-stop

.PHONY: help demo test test-all test-live test-examples test-pycuda test-serving fuzz lint bench kernels wheels ship setup clean $(NETWORK)

help:
	@echo "make demo       the runtime alone into $(DEMO), 0.2 GB; reads the sample crops, shows the latency"
	@echo "make setup      all of development into $(VENV), 3 GB: torch for CPUs and whatever tests need. Where the package"
	@echo "                index has torch for CUDA alone it is 8 GB: name another, PIP_INDEX_URL or PIP_EXTRA_INDEX_URL"
	@echo "make test       all tests but the slowest;  make test-all: those, too, 8 GB of memory;  make lint"
	@echo "make test-live  beside real servers and pipelines: installs Debian packages where it can, else skips"
	@echo "make test-examples  examples/: C++, Node, a browser, from npm, PyPI and Debian into build/examples, else skips"
	@echo "make test-pycuda  the CUDA layer over pycuda, built from its sources: needs nvcc, else skips"
	@echo "make test-serving  beside real inference servers: packages of 0.9 GB into build/serving"
	@echo "make fuzz MINUTES=10     damaged pictures, checkpoints, bundles and data sets by the thousand: what breaks is kept"
	@echo "make bench      the packaged network beside the published way of decoding"
	@echo "make ship CHECKPOINT=FILE     a newly trained network becomes the packaged one"
	@echo "make kernels    the GPU operators without Python, for all GPUs: a quarter of an hour, gcc, CMake"
	@echo "make wheels     what is published, of the last commit, into dist/: sources, and wheels with and without those"
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
	@$(BIN)/python -m pip install --quiet --no-deps --upgrade --target $(VENV)/triton/$(TRITON_OLDEST) \
	    triton==$(TRITON_OLDEST) || echo "no Triton $(TRITON_OLDEST) for this platform: kernels not compiled with it"
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

# Where a test takes its process down, the run ends and names it: with a process in its place it waited for ever.
test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile --max-worker-restart=0

# also base32, large and huge against the published outputs, and a minute of fuzzing for each target: ten minutes and
# more, and 8 GB of memory
test-all: $(STAMP)
	$(BIN)/python -m pytest -m 'slow or not slow'

# GStreamer, RTSP and MQTT servers, a browser: needs root and apt-get, or what it says that is missing
test-live: $(STAMP)
	$(BIN)/python tests/live/run.py

# one ONNX file in C++, Node, a browser and DeepStream's parser: 0.6 GB into build/examples, minutes the first time
test-examples: $(STAMP)
	$(BIN)/python tests/examples/examples_run.py

# the layer that TensorRT runs on where a board has pycuda: the real module, over the tests' libcuda; some minutes at first
test-pycuda: $(STAMP)
	$(BIN)/python tests/real_pycuda/pycuda_build.py

# servers and their clients out of wheels, beside our environment and not in it
test-serving: $(STAMP)
	$(BIN)/python tests/serving/serving_run.py

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

# libclip4str_kernels.so for all GPUs, tested, where the checkout finds it; needs gcc and CMake
kernels: $(STAMP)
	PYTHONPATH=$(CURDIR) $(BIN)/python -m clip4str.kernels

# the last commit's source package, a wheel for any platform, and wheels for Linux with the kernels' library inside;
# for one board's GPU: make wheels KERNELS='--arch sm_87'
MACHINES := x86_64 aarch64
KERNELS :=
SOURCE := build/source
wheels: $(STAMP)
	rm -rf $(SOURCE) dist && mkdir -p $(SOURCE)
	git archive HEAD | tar -x -C $(SOURCE)
	cd $(SOURCE) && PYTHONPATH= $(abspath $(BIN))/python -m clip4str.kernels --output $(CURDIR)/build/kernels \
	    --machine x86_64,aarch64 $(KERNELS)
	set -e; export SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct); \
	(cd $(SOURCE) && $(abspath $(BIN))/python setup.py -q sdist -d $(CURDIR)/dist); \
	for library in "" $(MACHINES:%=$(CURDIR)/build/kernels/%/libclip4str_kernels.so); do \
	    CLIP4STR_WHEEL_KERNELS=$$library $(BIN)/python -m pip wheel -q --no-deps --no-build-isolation -w dist dist/*.tar.gz; \
	done
	@ls -l dist

# the long training run of the bundled network, beside the project: starts or goes on, COMMIT=HEAD moves it; any time, twice
$(NETWORK):
	@test -x $(BIN)/python || { echo "there is no $(VENV) yet: make setup"; exit 2; }
	@PYTHONPATH=$(CURDIR) $(BIN)/python training/network_run.py $(@:network-%=%) $(if $(COMMIT),--commit $(COMMIT)) \
	    || test "$@,$$?" = network-status,1

clean:
	rm -rf $(VENV) $(DEMO) bundles runs build *.egg-info
