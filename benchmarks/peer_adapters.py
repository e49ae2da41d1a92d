"""Recognisers to compare with, behind one small interface. All are optional installs; none is downloaded here.

Each is called in its documented way of recognising a crop without detection, with as many threads as the others.
Pictures are converted to the format a peer takes before its time starts.

A PP-OCR network takes a picture 48 pixels high, padded to a width, by default 320. Padded to 160 it was as accurate on
1657 words of training splits (IIIT5K, IC15, SVT) in less than half the time; unpadded (48) faster still, but less
accurate. So each setting has a line of its own: beside the default alone the others would look better than they are.
"""

from __future__ import annotations

import importlib
import logging
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from clip4str.core.reading import Decoding
from clip4str.runtime import Recognizer
from clip4str.runtime.bundle import MANIFEST, WEIGHTS
from clip4str.runtime.onnx_files import external_tensors

_BLANK = np.full((32, 100, 3), 255, np.uint8)
PINNED = {  # as measured; others may do as well
    "rapidocr": "3.10.0", "rapidocr-onnxruntime": "1.4.4", "azcrawlerpy-recaptcha-text": "1.0.1",
}  # fmt: skip
REFERENCE = "PP-OCRv6 small"  # all times are divided by its time
_V6, _V4 = "PP-OCRv6_rec_small.onnx", "ch_PP-OCRv4_rec_infer.onnx"
_WIDTHS = {320: ("", "filled up to 320 pixels, its default"), 160: (", 160", "filled up to 160 pixels"),
           48: (", unpadded", "not filled up")}  # fmt: skip


class NotInstalledError(Exception):
    """A peer is not installed: one line that says what to install."""


@dataclass
class Contender:
    """One recogniser.

    files: that recognition loads. convert: RGB pixels -> the argument of `read`, not timed. read: -> text, timed.
    forget: drops everything kept of earlier words, not timed.
    """

    name: str
    package: str
    files: Sequence[Path]
    read: Callable[[Any], str]
    convert: Callable[[np.ndarray], Any] = lambda pixels: pixels
    forget: Callable[[], object] = lambda: None
    note: str = ""

    @property
    def bytes(self) -> int:
        """Size of the files."""
        return sum(file.stat().st_size for file in self.files)


def ours(bundle: Path, threads: int, decoding: Decoding | None = None) -> Contender:
    """A bundle in Recognizer on the CPU, one image at a time, no text features cached between words."""
    recognizer = Recognizer.load(
        bundle, "onnxruntime", threads=threads, providers=["CPU"], batch_size=1, decoding=decoding
    )
    manifest = recognizer.manifest
    graphs = [bundle / name for name in manifest.files if name.endswith(".onnx")]
    read = {tensor.location for graph in graphs for tensor in external_tensors(graph.read_bytes(), graph)}
    # the weights are for torch alone, unless the graphs take theirs from there
    files = [bundle / name for name in manifest.files if name != manifest.stages.get(WEIGHTS) or name in read]
    name = manifest.name if manifest.name.endswith(manifest.precision) else f"{manifest.name} {manifest.precision}"
    return Contender(
        name, _versioned("clip4str"), [*files, bundle / MANIFEST],
        lambda pixels: recognizer.read([pixels])[0].text, forget=recognizer.driver.cache.clear,
    )  # fmt: skip


def rapidocr(threads: int) -> list[Contender]:
    """PP-OCRv6 small, whose recogniser lies in the rapidocr wheel."""
    module = _imported("rapidocr")
    model = _bundled(module, "rapidocr", f"models/{_V6}")
    found = []
    for width, (suffix, note) in _WIDTHS.items():
        engine = module.RapidOCR(params={
            "Global.log_level": "error",
            "EngineConfig.onnxruntime.intra_op_num_threads": threads,
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
            "Rec.model_path": str(model),
            "Rec.rec_img_shape": [3, 48, width],
        })  # fmt: skip

        def read(pixels: np.ndarray, engine: Any = engine) -> str:
            return "".join(engine(pixels, use_det=False, use_cls=False, use_rec=True).txts or ())

        read(_BLANK)  # loads the model
        found.append(Contender(f"{REFERENCE}{suffix}", _versioned("rapidocr"), [model], read, bgr, note=note))
    _opencv_threads(threads)
    return found


def rapidocr_onnxruntime(threads: int) -> list[Contender]:
    """PP-OCRv4 mobile. The wheel loads its detector and classifier too; only the recogniser is used and counted."""
    package = "rapidocr-onnxruntime"
    module = _imported("rapidocr_onnxruntime", package)
    model = _bundled(module, package, f"models/{_V4}")
    found = []
    for width, (suffix, note) in _WIDTHS.items():
        engine = module.RapidOCR(
            rec_model_path=str(model), rec_img_shape=[3, 48, width],
            intra_op_num_threads=threads, inter_op_num_threads=1,
        )  # fmt: skip

        def read(pixels: np.ndarray, engine: Any = engine) -> str:
            lines, _ = engine(pixels, use_det=False, use_cls=False, use_rec=True)
            return "".join(line[0] for line in lines or ())

        read(_BLANK)
        found.append(Contender(f"PP-OCRv4 mobile{suffix}", _versioned(package), [model], read, bgr, note=note))
    _opencv_threads(threads)
    return found


def svtrv2(threads: int) -> list[Contender]:
    """SVTRv2-base with the weights in a crawler's wheel, read as the crawler (azcrawlerpy 1.4.8) does.

    A small network (selector.onnx) picks one of four sizes from a thumbnail and the picture's proportions; the
    recogniser reads at that size. Pixels from -1 to 1; the answer by greedy CTC, class 0 the blank.
    """
    package = "azcrawlerpy-recaptcha-text"
    module = _imported("azcrawlerpy_recaptcha_text", package)
    files = [_bundled(module, package, name) for name in ("svtrv2.onnx", "selector.onnx")]
    onnxruntime = importlib.import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    model, selector = (onnxruntime.InferenceSession(f, options, providers=["CPUExecutionProvider"]) for f in files)
    sizes = ((64, 64), (48, 96), (40, 112), (32, 128))  # height, width
    characters = np.array(list(string.digits + string.ascii_letters + string.punctuation))

    def resized(picture: Image.Image, height: int, width: int) -> np.ndarray:
        pixels = np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC), np.float32)
        return (pixels / 127.5 - 1).transpose(2, 0, 1)[None]

    def read(picture: Image.Image) -> str:
        ratio = picture.width / picture.height
        shape = np.array([[min(ratio, 8) / 4, np.log(ratio)]], np.float32)
        scores = selector.run(None, {"thumb": resized(picture, 16, 64), "shape": shape})[0]
        best = model.run(None, {"image": resized(picture, *sizes[scores.argmax()])})[0][0].argmax(axis=1)
        changed = np.diff(best, prepend=0) != 0
        return "".join(characters[best[changed & (best > 0)] - 1])

    read(Image.fromarray(_BLANK))
    note = "weights as its wheel's author trained them (card: distilled), not the ones published with SVTRv2"
    return [Contender("SVTRv2-base", _versioned(package), files, read, Image.fromarray, note=note)]


PEERS: Mapping[str, Callable[[int], list[Contender]]] = {
    "rapidocr": rapidocr,
    "rapidocr-onnxruntime": rapidocr_onnxruntime,
    "azcrawlerpy-recaptcha-text": svtrv2,
}


def open_peers(threads: int, wanted: Sequence[str] | None = None) -> tuple[list[Contender], dict[str, str]]:
    """(the contenders that are installed, why others are missing: package -> one line)."""
    found: list[Contender] = []
    missing: dict[str, str] = {}
    for package, opened in PEERS.items():
        if wanted is not None and package not in wanted:
            continue
        try:
            found += opened(threads)
        except NotInstalledError as error:
            missing[package] = str(error)
        except Exception as error:  # third-party code of any version: its failure is a line of the report
            missing[package] = f"does not start ({explained(error)})"
    return found, missing


def explained(error: Exception) -> str:
    """A third-party error, shortened to part of a line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}".rstrip(": ")


def bgr(pixels: np.ndarray) -> np.ndarray:
    """RGB -> BGR, contiguous, as OpenCV has it."""
    return np.ascontiguousarray(pixels[:, :, ::-1])


def _imported(module: str, package: str | None = None) -> Any:
    package = package or module
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        raise NotInstalledError(f"not installed: {_install(package)}") from None
    logging.getLogger(module).setLevel(logging.ERROR)
    return importlib.import_module(module)


def _install(package: str) -> str:
    return f"pip install {package}=={PINNED[package]}"


def _bundled(module: Any, package: str, name: str) -> Path:
    file = Path(module.__file__).parent / name
    if not file.is_file():
        raise NotInstalledError(f"the wheel installed holds no {file.name}; this one does: {_install(package)}")
    return file


def _versioned(package: str) -> str:
    try:
        return f"{package} {metadata.version(package)}"
    except metadata.PackageNotFoundError:  # run from a source tree
        return package


def _opencv_threads(threads: int) -> None:
    importlib.import_module("cv2").setNumThreads(threads)
