"""Packaging. The import package is the folder clip4str/, whose sub-packages are links to the top-level rooms."""

import os
import re
import shutil
from pathlib import Path

from setuptools import Distribution, find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

PACKAGES = find_packages(include=["clip4str", "clip4str.*"])
VERSION = re.search(r'__version__ = "([^"]+)"', Path("clip4str/__init__.py").read_text()).group(1)


LINKS = sorted(path.name for path in Path("clip4str").iterdir() if path.is_symlink())
FOR_THE_REPOSITORY = {".md", ".png"}  # notes and charts, and the next two; sample crops are .jpg
NOT_SHIPPED = {"results", "rendered-words.jpg"}


def data_files(package: str) -> list[str]:
    """What lies beside a package's modules and is no package itself, relative to it."""
    folder = Path(*package.split("."))
    return sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file()
        and path.suffix not in {".py", ".pyc", *FOR_THE_REPOSITORY}
        and _package_of(path) == folder
        and not NOT_SHIPPED & set(path.relative_to(folder).parts)
    )


def _package_of(path: Path) -> Path:
    return next(folder for folder in path.parents if (folder / "__init__.py").is_file())


def long_description() -> str:
    """README for an index page, which has none of our files: no pictures and links but those with an address."""
    text = Path("README.md").read_text(encoding="utf-8")
    text = re.sub(r"!\[[^\]]*\]\((?!https://)[^)]*\)", "", text)
    return re.sub(r"\[([^\]]+)\]\((?!https?://|#)[^)]*\)", r"\1", text)


class Sdist(sdist):
    """The project as it is: rooms are top-level folders, whole, and clip4str/ has links to them."""

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        linked = tuple(f"clip4str{os.sep}{room}{os.sep}" for room in LINKS)
        whole = [str(path) for room in LINKS for path in Path(room).rglob("*") if path.is_file()]
        kept = [name for name in files if not name.startswith(linked)]
        super().make_release_tree(base_dir, kept + [name for name in whole if "__pycache__" not in name])
        for room in LINKS:
            (Path(base_dir) / "clip4str" / room).symlink_to(f"../{room}", target_is_directory=True)


# libclip4str_kernels.so, for a wheel of its processor alone; without it the wheel is for all (make wheels makes each)
KERNELS = os.environ.get("CLIP4STR_WHEEL_KERNELS")
MACHINES = {62: "x86_64", 183: "aarch64"}  # e_machine of an ELF file
GLIBC = "manylinux_2_17"  # tests/kernels/test_library_build.py holds the library to it


class BuildPy(build_py):
    """With the kernels' library beside its loader."""

    def run(self) -> None:
        super().run()
        if KERNELS and not self.editable_mode:
            shutil.copyfile(KERNELS, Path(self.build_lib) / "clip4str" / "kernels" / "libclip4str_kernels.so")


class WithKernels(Distribution):
    def has_ext_modules(self) -> bool:
        return bool(KERNELS)


class BdistWheel(bdist_wheel):
    """Any Python 3; any platform, or the library's."""

    def get_tag(self) -> tuple[str, str, str]:
        if not KERNELS:
            return super().get_tag()
        head = Path(KERNELS).read_bytes()[:20]
        machine = MACHINES.get(int.from_bytes(head[18:20], "little"))
        if head[:4] != b"\x7fELF" or machine is None:
            raise SystemExit(f"CLIP4STR_WHEEL_KERNELS: {KERNELS} is no library for {' or '.join(MACHINES.values())}")
        return "py3", "none", f"{GLIBC}_{machine}"


RUNTIME = [
    "numpy>=1.23",  # arrays in, arrays out; the driver is written over small integer arrays
    "pillow>=10.1",  # decodes image files and defines the bicubic resize that answers depend on
    "onnxruntime>=1.17",  # the one backend that runs everywhere, no compiler and no GPU needed; oldest one tried
    "tqdm>=4.60",  # progress bars
]
EXPORT = [
    "torch>=2.6",  # the network; 2.6 is the first release whose weights_only loading is safe
    "safetensors>=0.4",  # checkpoints without pickle
    "onnx>=1.19",  # writes and checks the four stage graphs; the first that takes E4M3 from numpy
    "ml_dtypes>=0.5",  # E4M3 in numpy, for fp8 bundles; onnx has it too
    "pyyaml>=6.0",  # charsets in published configurations
]
TRAIN = [
    *EXPORT,
    "lightning>=2.2",  # mixed precision, DDP and resuming, and the published .ckpt layout
    "lmdb>=1.4",  # writes the data format of every scene-text-recognition data set
    "matplotlib>=3.7",  # loss and latency charts
]
GPU = [
    *EXPORT,
    "triton>=3.6; platform_system == 'Linux'",  # custom kernels; before it tl.mul is not there, before 3.3 tl.gather
]
OPENVINO = [
    "openvino>=2025.0",  # towers in bfloat16 on CPUs that have it, which onnxruntime does not compute in
]
TENSORRT = [
    "cuda-bindings>=12.8",  # the CUDA driver from Python: memory, streams, graphs; TensorRT itself comes with JetPack
]
RTX = [
    *TENSORRT,
    "tensorrt-rtx>=1.4; platform_machine == 'x86_64'",  # TensorRT for desktop GPUs; builds engines without one
]
VIDEO = [
    "opencv-python-headless>=4.8",  # decodes video, optical flow, contours; 4.8 turns phones' videos and has time-outs
    "rapidocr>=3.10",  # its wheel holds the detector's ONNX file, PP-OCRv6 small; its code is not run
]
AV = [
    "av>=14",  # exact times, damaged frames marked; opt-in, as its wheel carries x264 and x265, which are GPL
]
NVCODEC = [
    "PyNvVideoCodec>=2.2; platform_system == 'Linux'",  # decodes files on NVIDIA GPUs; checked against 2.2
]
MQTT = [
    "paho-mqtt>=2.0",  # the MQTT client of Eclipse: reconnects, sends again, TLS; 2.0 has the callbacks that are used
]
METRICS = [
    "prometheus_client>=0.20",  # Prometheus' own client: the format of metrics and their server
]
BATCH = [
    "pyarrow>=17",  # reads and writes Parquet; 17 is the first for numpy 2
    "fsspec>=2024.2",  # object stores by address; each store's own client is the user's to add (s3fs, gcsfs)
]
RAY = [
    *BATCH,
    "ray[serve,data]>=2.60",  # servers and batch jobs on many machines; 2.60 starts new replicas before old ones go
    "python-multipart>=0.0.18",  # files in forms, which FastAPI asks for; before it one form could take minutes
]
CLIP = [
    *TRAIN,
    "open_clip_torch>=2.20",  # CLIP's pretrained towers by name, to train from; local files need none of it
]
PEERS = [
    "rapidocr>=3.10",  # PP-OCRv6 small in its wheel: what people install today, to be measured beside
    "rapidocr-onnxruntime>=1.4.4",  # PP-OCRv4 mobile, likewise
    "matplotlib>=3.7",  # the chart
]
DEV = [
    *VIDEO,  # tests of video
    *AV,  # the same with its decoder
    *MQTT,  # tests of the output, beside a broker in tests/live
    *BATCH,  # tests of batch jobs
    *METRICS,  # metrics are scraped and parsed by it
    *OPENVINO,  # tests of the backend
    "pytest>=8",  # tests
    "pytest-xdist>=3.6",  # tests in two processes of one thread each: half the time
    "ruff>=0.8",  # lint and format
    "mypy>=1.13",  # types
    "selenium>=4.20",  # drives Chromium: tests of the page to watch
    "omegaconf>=2.3",  # published checkpoints hold its objects: tests write real ones
    *RTX,  # a real compiler of engines, and the real CUDA bindings: no GPU needed to test with them
]

setup(
    name="clip4str",
    version=VERSION,
    description="Run trained CLIP4STR scene text recognisers fast, small and with the same answers",
    long_description=long_description(),
    long_description_content_type="text/markdown",
    author="clip4str developers",
    license="Apache-2.0",
    license_files=["LICENSE", "core/data/NOTICE"],
    keywords="OCR, scene text recognition, CLIP, ONNX, TensorRT, Triton",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3 :: Only",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
    distclass=WithKernels,
    cmdclass={"sdist": Sdist, "build_py": BuildPy, "bdist_wheel": BdistWheel},
    python_requires=">=3.10",
    packages=PACKAGES,
    package_data={package: data_files(package) for package in PACKAGES},
    install_requires=RUNTIME,
    extras_require={
        "export": EXPORT,
        "train": TRAIN,
        "clip": CLIP,
        "bench": [*EXPORT, "matplotlib>=3.7"],
        "gpu": GPU,
        "openvino": OPENVINO,
        "tensorrt": TENSORRT,
        "rtx": RTX,
        "video": VIDEO,
        "av": AV,
        "nvcodec": NVCODEC,
        "mqtt": MQTT,
        "metrics": METRICS,
        "batch": BATCH,
        "ray": RAY,
        "peers": PEERS,
        "dev": DEV,
        "all": sorted({*TRAIN, *GPU}),
    },
    entry_points={"console_scripts": ["clip4str = clip4str.core.cli:main"]},
)
