"""Packaging. The import package is the folder clip4str/, whose sub-packages are links to the top-level rooms."""

import re
from pathlib import Path

from setuptools import find_packages, setup

PACKAGES = find_packages(include=["clip4str", "clip4str.*"])
VERSION = re.search(r'__version__ = "([^"]+)"', Path("clip4str/__init__.py").read_text()).group(1)


NOT_SHIPPED = {
    "results",
    "NOTES.md",
    "rendered-words.jpg",
    "strengths.png",
    "training.png",
}  # for who reads the repository


def data_files(package: str) -> list[str]:
    """What lies beside a package's modules and is no package itself, relative to it."""
    folder = Path(*package.split("."))
    return sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file()
        and path.suffix not in (".py", ".pyc")
        and _package_of(path) == folder
        and not NOT_SHIPPED & set(path.relative_to(folder).parts)
    )


def _package_of(path: Path) -> Path:
    return next(folder for folder in path.parents if (folder / "__init__.py").is_file())


RUNTIME = [
    "numpy>=1.23",  # arrays in, arrays out; the driver is written over small integer arrays
    "pillow>=10.1",  # decodes image files and defines the bicubic resize that answers depend on
    "onnxruntime>=1.17",  # the one backend that runs everywhere, no compiler and no GPU needed
    "tqdm>=4.60",  # progress bars
]
EXPORT = [
    "torch>=2.6",  # the network; 2.6 is the first release whose weights_only loading is safe
    "safetensors>=0.4",  # checkpoints without pickle
    "onnx>=1.16",  # writes and checks the four stage graphs
]
TRAIN = [
    *EXPORT,
    "lightning>=2.2",  # mixed precision, DDP and resuming, and the published .ckpt layout
    "lmdb>=1.4",  # the data format of every scene-text-recognition data set
    "matplotlib>=3.7",  # loss and latency charts
]
GPU = [
    *EXPORT,
    "triton>=3.6; platform_system == 'Linux'",  # custom kernels; before it tl.mul is not there, before 3.3 tl.gather
]
TENSORRT = [
    "cuda-bindings>=12.8",  # the CUDA driver from Python: memory, streams, graphs; TensorRT itself comes with JetPack
]
RTX = [
    *TENSORRT,
    "tensorrt-rtx>=1.4; platform_machine == 'x86_64'",  # TensorRT for desktop GPUs; builds engines without one
]
PEERS = [
    "rapidocr>=3.10",  # PP-OCRv6 small in its wheel: what people install today, to be measured beside
    "rapidocr-onnxruntime>=1.4.4",  # PP-OCRv4 mobile, likewise
    "lmdb>=1.4",  # the data format of every scene-text-recognition data set
    "matplotlib>=3.7",  # the chart
]
DEV = [
    "pytest>=8",  # tests
    "ruff>=0.8",  # lint and format
    "mypy>=1.13",  # types
    *RTX,  # a real compiler of engines, and the real CUDA bindings: no GPU needed to test with them
]

setup(
    name="clip4str",
    version=VERSION,
    description="Run trained CLIP4STR scene text recognisers fast, small and with the same answers",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=PACKAGES,
    package_data={package: data_files(package) for package in PACKAGES},
    install_requires=RUNTIME,
    extras_require={
        "export": EXPORT,
        "train": TRAIN,
        "bench": [*EXPORT, "lmdb>=1.4", "matplotlib>=3.7"],
        "gpu": GPU,
        "tensorrt": TENSORRT,
        "rtx": RTX,
        "peers": PEERS,
        "dev": DEV,
        "all": sorted({*TRAIN, *GPU}),
    },
    entry_points={"console_scripts": ["clip4str = clip4str.core.cli:main"]},
)
