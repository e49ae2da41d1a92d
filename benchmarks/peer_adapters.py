"""Recognisers to compare with, each behind the same small face. All are optional installs; none is downloaded here.

Every one is asked through its own documented way of recognising a crop without looking for text in it first, and
with as many threads as the rest. What a peer wants its picture converted to is converted before its time starts.
"""

from __future__ import annotations

import importlib
import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from clip4str.runtime import Recognizer
from clip4str.runtime.bundle import MANIFEST, WEIGHTS

PINNED = {"rapidocr": "3.10.0", "rapidocr-onnxruntime": "1.4.4", "easyocr": "1.7.2"}


class NotInstalledError(Exception):
    """A peer that cannot take part: one line, saying what would let it."""


@dataclass
class Contender:
    """One recogniser: what it is, and how it reads.

    files: what its recognition loads, for the size on disk. convert: RGB pixels -> what `read` takes, not timed.
    read: -> text, timed. forget: drops what it remembers of earlier words, not timed.
    """

    name: str
    package: str
    files: Sequence[Path]
    read: Callable[[Any], str]
    convert: Callable[[np.ndarray], Any] = lambda pixels: pixels
    forget: Callable[[], object] = lambda: None
    note: str = ""
    bytes: int = field(init=False)

    def __post_init__(self) -> None:
        self.bytes = sum(file.stat().st_size for file in self.files)


def ours(bundle: Path, threads: int) -> Contender:
    """A bundle through Recognizer on the CPU, one image at a time, no text features kept from word to word."""
    recognizer = Recognizer.load(bundle, "onnxruntime", threads=threads, providers=["CPU"], batch_size=1)
    manifest = recognizer.manifest
    files = [bundle / name for name in manifest.files if name != manifest.stages.get(WEIGHTS)]
    name = manifest.name if manifest.name.endswith(manifest.precision) else f"{manifest.name} {manifest.precision}"
    return Contender(
        name, f"clip4str {_version('clip4str')}", [*files, bundle / MANIFEST],
        lambda pixels: recognizer.read([pixels])[0].text, forget=recognizer.driver.cache.clear,
    )  # fmt: skip


def rapidocr(threads: int) -> list[Contender]:
    """Every recogniser whose model lies in the rapidocr wheel (or was put beside it since).

    Its default fills every picture up to 320 pixels of width, as it was trained. A second line each takes a picture
    as wide as it is (rec_img_shape 48 x 48 in its configuration): faster and less accurate.
    """
    module = _imported("rapidocr")
    models = sorted((Path(module.__file__).parent / "models").glob("*_rec_*.onnx"))
    if not models:
        raise NotInstalledError("its wheel holds no recogniser: " + _install("rapidocr"))
    common = {
        "Global.log_level": "error",
        "EngineConfig.onnxruntime.intra_op_num_threads": threads,
        "EngineConfig.onnxruntime.inter_op_num_threads": 1,
    }
    found = []
    for model in models:
        for shape, note in (([3, 48, 320], "filled up to 320 pixels, its default"), ([3, 48, 48], "not filled up")):
            settings = {**common, "Rec.model_path": str(model), "Rec.rec_img_shape": shape}
            engine = module.RapidOCR(params=settings)
            name = model_name(model.stem) + ("" if shape[2] == 320 else ", unpadded")
            read = _first_wheel(engine)
            found.append(Contender(name, f"rapidocr {_version('rapidocr')}", [model], read, bgr, note=note))
    _opencv_threads(threads)
    return found


def _first_wheel(engine: Any) -> Callable[[np.ndarray], str]:
    return lambda pixels: "".join(engine(pixels, use_det=False, use_cls=False, use_rec=True).txts or ())


def rapidocr_onnxruntime(threads: int) -> list[Contender]:
    """PP-OCRv4 mobile. The wheel loads its detector and classifier too; only the recogniser is used and counted."""
    module = _imported("rapidocr_onnxruntime", "rapidocr-onnxruntime")
    models = sorted((Path(module.__file__).parent / "models").glob("*_rec_*.onnx"))
    found = []
    for model in models:
        engine = module.RapidOCR(rec_model_path=str(model), intra_op_num_threads=threads, inter_op_num_threads=1)
        name, package = model_name(model.stem), f"rapidocr-onnxruntime {_version('rapidocr-onnxruntime')}"
        found.append(Contender(name, package, [model], _second_wheel(engine), bgr))
    if not found:
        raise NotInstalledError("its wheel holds no recogniser: " + _install("rapidocr-onnxruntime"))
    _opencv_threads(threads)
    return found


def _second_wheel(engine: Any) -> Callable[[np.ndarray], str]:
    def read(pixels: np.ndarray) -> str:
        lines, _ = engine(pixels, use_det=False, use_cls=False, use_rec=True)
        return "".join(line[0] for line in lines or ())

    return read


def easyocr(threads: int) -> list[Contender]:
    """EasyOCR's English recogniser, if its model is on this machine already: nothing is downloaded here."""
    module = _imported("easyocr")
    home = Path(
        os.environ.get("EASYOCR_MODULE_PATH") or os.environ.get("MODULE_PATH") or Path("~/.EasyOCR").expanduser()
    )
    model = home / "model" / "english_g2.pth"
    if not model.is_file():
        raise NotInstalledError(
            "its model english_g2.pth is not here; where there is a network, this fetches it: "
            "python -c \"import easyocr; easyocr.Reader(['en'], detector=False)\""
        )
    importlib.import_module("torch").set_num_threads(threads)
    reader = module.Reader(["en"], gpu=False, detector=False, download_enabled=False, verbose=False)
    _opencv_threads(threads)

    def read(pixels: np.ndarray) -> str:
        return "".join(reader.recognize(pixels, detail=0))

    return [Contender("EasyOCR english_g2", f"easyocr {_version('easyocr')}", [model], read, bgr)]


PEERS: Mapping[str, Callable[[int], list[Contender]]] = {
    "rapidocr": rapidocr,
    "rapidocr-onnxruntime": rapidocr_onnxruntime,
    "easyocr": easyocr,
}


def open_peers(threads: int, wanted: Sequence[str] | None = None) -> tuple[list[Contender], dict[str, str]]:
    """(the contenders there are, why the others are not there: package -> one line)."""
    found: list[Contender] = []
    missing: dict[str, str] = {}
    for package, opened in PEERS.items():
        if wanted is not None and package not in wanted:
            continue
        try:
            found += opened(threads)
        except NotInstalledError as error:
            missing[package] = str(error)
        except Exception as error:  # other people's code, of any version: its failure is a line of the report
            missing[package] = f"does not start ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
    return found, missing


def model_name(stem: str) -> str:
    """PP-OCRv6_rec_small -> PP-OCRv6 small; ch_PP-OCRv4_rec_infer -> PP-OCRv4 mobile; others as they are."""
    parts = re.fullmatch(r"(?:([a-z_]+)_)?(PP-OCRv\d+)_rec_(.+)", stem)
    if not parts:
        return stem
    language, version, kind = parts.groups()
    kind = kind.removesuffix("infer").strip("_") or "mobile"
    return f"{version} {kind}" + (f" ({language})" if language and language != "ch" else "")


def bgr(pixels: np.ndarray) -> np.ndarray:
    """What OpenCV programs call a picture."""
    return np.ascontiguousarray(pixels[:, :, ::-1])


def _imported(module: str, package: str | None = None) -> Any:
    package = package or module
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        raise NotInstalledError(_install(package)) from None
    logging.getLogger(module).setLevel(logging.ERROR)
    return importlib.import_module(module)


def _install(package: str) -> str:
    return f"not installed: pip install {package}=={PINNED[package]}"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # run from a source tree
        return "(not installed)"


def _opencv_threads(threads: int) -> None:
    importlib.import_module("cv2").setNumThreads(threads)
