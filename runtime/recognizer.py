"""The public face: images in, words out."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from clip4str.core.bpe import BytePairTokenizer
from clip4str.core.calibration import calibrated
from clip4str.core.caption_cache import CaptionCache
from clip4str.core.driver import PredictAndRefine
from clip4str.core.errors import UsageError
from clip4str.core.packaged import PACKAGED
from clip4str.core.reading import Decoding, Reading, Stats
from clip4str.core.text import Charset, first_end

from .backends import open_backend, open_checkpoint
from .backends.contract import Backend, Options
from .bundle import Bundle
from .images import ImageLike, prepare

T = TypeVar("T")

BUNDLE_VARIABLE = "CLIP4STR_BUNDLE"


@dataclass(frozen=True)
class Word:
    """One image's answer.

    confidence: product of the probabilities of its characters and of its end, calibrated by the bundle's temperature
    (see core.calibration; 1: the product itself), also of an empty word. char_confidences: one per character, the
    network's own, never calibrated.
    """

    text: str
    confidence: float
    char_confidences: tuple[float, ...]


class Recognizer:
    """Reads words over a bundle. Safe to share between threads.

    >>> recognizer = Recognizer.load()
    >>> [word.text for word in recognizer.read(["photo.jpg"])]
    """

    def __init__(self, bundle: Bundle, backend: Backend, driver: PredictAndRefine) -> None:
        self.bundle, self.manifest = bundle, bundle.manifest
        self.backend, self.driver, self.batch_size = backend, driver, backend.batch_size
        self.stats, self._lock = Stats(), threading.Lock()

    @classmethod
    def load(
        cls,
        bundle: str | os.PathLike[str] | None = None,
        backend: str = "auto",
        *,
        threads: int | None = None,
        providers: Sequence[str] | None = None,
        decoding: Decoding | None = None,
        charset_test: str | None = None,
        batch_size: int | None = None,
        cache_size: int = 512,
        verify: bool = True,
        device: Any = None,
        dtype: Any = None,
        graphs: bool = True,
        passes: Sequence[int] | None = None,
    ) -> Recognizer:
        """Open a bundle, or with the torch backend a checkpoint file; None for default_bundle's.

        backend: "tensorrt" (for bundles with engines), "torch" (for bundles built with --torch, and checkpoints),
        "onnxruntime", or "auto": the first of these that can run what is opened here, with a RuntimeWarning where
        engines or a GPU are there but do not work. threads: CPU threads, None for all this process may use. decoding:
        see core.driver.Decoding. charset_test: what captions are reduced to, None for the bundle's own. batch_size:
        most images per batch, None for 16 (64 for torch on a GPU, where it is at most 256; for tensorrt what its
        engines were built for). cache_size: captions whose text features are kept. verify: check the sha256 of every
        file.

        Of onnxruntime: providers, its execution providers. Of tensorrt and torch: device, "cuda" or "cuda:N", for
        torch also "cpu"; graphs=False: no CUDA graphs. Of torch: dtype, "float16", "bfloat16" or "float32", by default
        half on a GPU and float32 on a CPU; passes, decoder passes (visual, cross) before refinement, by default (3, 2),
        or (2, 2) for a network with a draft head: the words that need more get more, only later.

        Raises BundleError, CheckpointError, BackendError, CharsetError, UsageError.
        """
        options = Options(threads, batch_size, providers, device, dtype, graphs, passes)
        path, source = default_bundle() if bundle is None else Path(bundle), None
        if path.is_file():
            opened, source = open_checkpoint(path, backend, options, verify)
        else:
            opened = Bundle.open(path, verify)
        manifest, decoding = opened.manifest, decoding or Decoding()
        if threads is not None and not (isinstance(threads, Integral) and 1 <= threads <= 1024):
            raise UsageError(f"threads must be 1 to 1024, not {threads!r}")
        if batch_size is not None and not (isinstance(batch_size, Integral) and batch_size >= 1):
            raise UsageError(f"batch size must be 1 or more, not {batch_size!r}")
        driver = PredictAndRefine(
            Charset(manifest.charset, manifest.charset_test if charset_test is None else charset_test),
            BytePairTokenizer(manifest.config["vocabulary"], manifest.config["context"]),
            manifest.config["steps"],
            decoding,
            CaptionCache(cache_size),
        )
        return cls(opened, open_backend(opened, backend, driver, options, source), driver)

    def read(self, images: Iterable[ImageLike]) -> list[Word]:
        """Words of HxWx3 uint8 RGB arrays, PIL images, paths or encoded bytes, in order.

        Every image's answer is the same in any batch. Raises ImageError at the first that is no image.
        """
        if isinstance(images, (str, bytes, os.PathLike)) or (isinstance(images, np.ndarray) and images.ndim < 4):
            raise UsageError("read takes a list of images; for one image: read([image])")
        return [word for batch in batches(images, self.batch_size) for word in self.read_pixels(self.prepare(batch))]

    def prepare(self, images: Sequence[ImageLike]) -> np.ndarray:
        """Normalised pixels (N, 3, H, W) float32 of the network's input size."""
        return prepare(images, self.manifest.image_size, self.manifest.normalization)

    def read_pixels(self, pixels: Any) -> list[Word]:
        """Words of already normalised pixels (N, 3, H, W) float32, any N.

        The GPU backends also take whatever has DLPack or `__cuda_array_interface__`, without copying what is on their
        GPU; torch takes float16 too. Raises ImageError for another kind or shape.
        """
        pixels = self.backend.accept(pixels)
        words: list[Word] = []
        for start in range(0, len(pixels), self.batch_size):
            reading = self.reading(pixels[start : start + self.batch_size])
            with self._lock:
                self.stats.add(reading.stats)
            lengths = first_end(reading.ids).tolist()
            confidences = _rounded(calibrated(reading.confidence, self.manifest.temperature))
            for ids, chars, length, confidence in zip(reading.ids, _rounded(reading.probs), lengths, confidences):
                words.append(Word(self.driver.charset.decode(ids), confidence, tuple(chars[:length])))
        return words

    def read_boxes(self, frame: Any, quads: Any, layout: str = "rgb", **how: Any) -> list[Word]:
        """Words of quadrilaterals in a frame, cut out and rectified on the device: the torch backend's.

        frame: uint8 (H, W, 3), or an NV12 plane with layout="nv12"; layout may also be "bgr". quads (N, 4, 2): corners
        in pixels from the word's top left on, clockwise. how: see kernels.crop_resize. Raises BackendError on another
        backend, and that operator's errors.
        """
        how = {"layout": layout, "normalization": self.manifest.normalization, **how}
        return self.read_pixels(self.backend.crop(frame, quads, **how))

    def reading(self, pixels: Any) -> Reading:
        """What words are made of, not calibrated: of `prepare`'s pixels, 1 to batch_size of them."""
        return self.backend.read(self.driver, pixels)

    def close(self) -> None:
        """Give back what a GPU backend holds at once, instead of when the last reference goes. Twice is allowed."""
        self.backend.close()

    def __enter__(self) -> Recognizer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def reset_stats(self) -> None:
        self.stats = Stats()


def _rounded(probs: np.ndarray) -> list[Any]:
    """Probabilities as plain floats of six decimals, in nested lists."""
    return np.round(probs.astype(np.float64), 6).tolist()


def default_bundle() -> Path:
    """$CLIP4STR_BUNDLE, else the bundle built last under ./bundles, else the packaged one."""
    named = os.environ.get(BUNDLE_VARIABLE)
    if named:
        return Path(named)
    built = sorted(
        # a hidden folder is a build in progress
        (p for p in Path("bundles").glob("*/manifest.json") if not p.parent.name.startswith(".")),
        key=lambda p: p.stat().st_mtime,
    )
    return built[-1].parent if built else PACKAGED


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of at most `size`, in order."""
    batch: list[T] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
