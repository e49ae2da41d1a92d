"""The public face: images in, words out."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from io import BytesIO
from itertools import chain
from numbers import Integral
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
from PIL import Image

from clip4str.core.batches import batches
from clip4str.core.bpe import BytePairTokenizer
from clip4str.core.calibration import calibrated
from clip4str.core.caption_cache import CaptionCache
from clip4str.core.driver import PredictAndRefine
from clip4str.core.errors import BackendError, ImageError, NonFiniteError, UsageError
from clip4str.core.reading import Decoding, Reading, Stats, check_finite
from clip4str.core.text import chosen_charset, first_end

from .backends import open_backend, open_checkpoint
from .backends.contract import Backend, Options
from .bundle import Bundle
from .default_bundle import default_bundle
from .frames import FrameReader
from .images import TAKEN, ImageLike, is_file_like, prepare
from .loading import Loading
from .what_is import is_checkpoint_file
from .word import Word, hint_of


class Recognizer(FrameReader):
    """Reads words over a bundle. Safe to share between threads.

    >>> recognizer = Recognizer.load()
    >>> [word.text for word in recognizer.read(["photo.jpg"])]
    """

    def __init__(self, bundle: Bundle, backend: Backend, driver: PredictAndRefine) -> None:
        self.bundle, self.manifest = bundle, bundle.manifest
        self.backend, self.driver, self.batch_size = backend, driver, backend.batch_size
        self.stats, self._lock, self._process = Stats(), threading.Lock(), os.getpid()

    @classmethod
    def load(
        cls,
        bundle: str | os.PathLike[str] | None = None,
        backend: str = "auto",
        *,
        threads: int | None = None,
        providers: Sequence[str] | None = None,
        decoding: Decoding | None = None,
        charset: str | None = None,
        charset_test: str | None = None,
        image_size: tuple[int, int] | None = None,
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
        engines or a GPU are there but do not work, or a GPU is there and nothing for it in the bundle; or "openvino",
        see docs/openvino.md. threads: CPU threads, None for all this process may use. decoding: see
        core.reading.Decoding. charset_test: what captions are reduced to, None for the bundle's own. charset,
        image_size: of a checkpoint that does not tell its own, its characters and (height, width). batch_size: most
        images per batch, None for 16 (64 for torch on a GPU, where it is at most 256; for tensorrt what its engines
        were built for); where it is too many, with a RuntimeWarning as many as can be. cache_size: captions whose text
        features are kept. verify: check the sha256 of every file.

        Of onnxruntime: providers, its execution providers. Of tensorrt and torch: device, "cuda" or "cuda:N", for torch
        also "cpu"; graphs=False: no CUDA graphs. Of torch: dtype, "float16", "bfloat16" or "float32", by default half
        on a GPU and float32 on a CPU; passes, decoder passes (visual, cross) before refinement, by default (3, 2), or
        (2, 2) for a network with a draft head: the words that need more get more, only later. Of openvino: dtype,
        "float32" or, what moves some words, "bfloat16".

        Raises BundleError, CheckpointError, BackendError, CharsetError, UsageError.
        """
        if not isinstance(bundle, (str, os.PathLike, type(None))):
            raise UsageError(f"load takes a bundle's folder or a checkpoint's path, not {type(bundle).__name__}")
        if not isinstance(decoding, (Decoding, type(None))):
            raise UsageError(f"decoding is a Decoding, for instance Decoding(decode='nar'), not {decoding!r}")
        for name, value in (("charset", charset), ("charset_test", charset_test)):
            if not isinstance(value, (str, type(None))):
                raise UsageError(f"{name} is a string of characters, not {value!r}")
        options = Options(threads, batch_size, providers, device, dtype, graphs, passes)
        path, source = default_bundle() if bundle is None else Path(bundle), None
        if is_checkpoint_file(path):
            opened, source = open_checkpoint(path, backend, options, verify, image_size, charset)
        else:
            for name, given in (("image size", image_size), ("charset", charset)):
                if given is not None:
                    raise UsageError(f"{path}: a bundle has its {name}; another one is for checkpoints")
            opened = Bundle.open(path, verify, later=True)
        manifest, decoding = opened.manifest, decoding or Decoding()
        driver = PredictAndRefine(
            chosen_charset(manifest.charset, manifest.charset_test, charset_test),
            BytePairTokenizer(manifest.config["vocabulary"], manifest.config["context"]),
            manifest.config["steps"],
            decoding,
            CaptionCache(cache_size),
        )
        opened_backend = open_backend(opened, backend, driver, options, source)
        try:
            opened.check_rest()
        except BaseException:
            opened_backend.close()
            raise
        ready = cls(opened, opened_backend, driver)
        if batch_size is not None and ready.batch_size < batch_size:
            warnings.warn(
                f"batches of {ready.batch_size} images, not {batch_size}: the most that this bundle and backend take",
                RuntimeWarning,
                stacklevel=2,
            )
        return ready

    @overload
    def read(self, images: Iterable[ImageLike], on_error: Literal["raise"] = "raise") -> list[Word]: ...

    @overload
    def read(self, images: Iterable[ImageLike], on_error: Literal["skip"]) -> list[Word | None]: ...

    @overload
    def read(self, images: Iterable[ImageLike], on_error: str) -> list[Word] | list[Word | None]: ...

    def read(self, images: Iterable[ImageLike], on_error: str = "raise") -> list[Word] | list[Word | None]:
        """Words of uint8 RGB arrays, PIL images, paths, encoded bytes or open files (see images.load_image), in order.

        on_error: "raise" ImageError at the first that is no image, with its place as `index`, or "skip": None in its
        place. NonFiniteError, for an image that the network's arithmetic cannot cope with, is dealt with likewise.
        Every image's answer is the same in any batch. Raises UsageError if it was not given a list of images.
        """
        if on_error not in ("raise", "skip"):
            raise UsageError(f"on_error is 'raise' or 'skip', not {on_error!r}")
        if isinstance(images, (str, bytes, bytearray, memoryview, os.PathLike, Image.Image)) or is_file_like(images):
            raise UsageError("read takes a list of images; for one image: read([image])")
        if isinstance(images, np.ndarray) and images.ndim < 4:
            raise UsageError("read takes a list of images; for one image: read([image])")
        if not isinstance(images, Iterable):
            raise UsageError(f"read takes a list of images, not {type(images).__name__}; images are {TAKEN}")
        words: list[Any] = []
        with closing(self.read_batches(batches(images, self.batch_size))) as found:
            for word in chain.from_iterable(found):
                if isinstance(word, Word):
                    words.append(word)
                elif on_error == "skip":
                    words.append(None)
                else:
                    raise type(word)(f"images[{len(words)}]: {word}", index=len(words))
        return words

    def read_each(self, images: Sequence[ImageLike]) -> list[Word | ImageError | NonFiniteError]:
        """As read, of at most a batch; in the place of an image that cannot be read its error, not raised."""
        self._check_process()
        return self._read_loaded(self.backend.load(images, self.manifest.normalization))

    def read_batches(
        self, many: Iterable[Sequence[ImageLike]]
    ) -> Generator[list[Word | ImageError | NonFiniteError], None, None]:
        """read_each of each batch. Where a GPU reads, a batch is decoded while the one before it is read: it is asked
        for before that one's words are given."""
        self._check_process()
        before: Loading | None = None
        try:
            for images in many:
                loading = self.backend.load(images, self.manifest.normalization)
                if before is None:
                    before = loading
                else:
                    before, ready = loading, before
                    yield self._read_loaded(ready)
                before.wait()  # who gives the next batch may do so in the arrays and files of this one
            if before is not None:
                yield self._read_loaded(before)
        finally:
            if before is not None:
                before.close()

    def _read_loaded(self, loading: Loading) -> list[Any]:
        """Closes it."""
        try:
            pixels, found = loading.result()
            words = iter(self._words(pixels, each=True))
            return [shape if isinstance(shape, ImageError) else _hinted(next(words), shape) for shape in found]
        finally:
            loading.close()

    def warm_up(self, batch_sizes: Iterable[int] | None = None) -> None:
        """Does now what the first batch of a size would wait for: kernels are compiled, CUDA graphs captured, memory is
        taken, decoders are loaded. On a GPU that may be minutes, and batches of other sizes are read meanwhile.

        batch_sizes: of the batches to come, None for one image and batch_size of them. On a GPU batches are padded to
        powers of two, so 5 also serves 6, 7 and 8. Raises UsageError for sizes that are none, BackendError.
        """
        sizes = {1, self.batch_size} if batch_sizes is None else _sizes(batch_sizes, self.batch_size)
        self._check_process()
        self.backend.warm_up(self.driver, sorted(sizes, reverse=True))
        encoded = BytesIO()  # not an array: for those Pillow loads no formats
        Image.new("RGB", (2, 2)).save(encoded, "JPEG")
        with closing(self.backend.load([encoded.getvalue()], self.manifest.normalization)) as loading:
            loading.result()  # where a GPU resizes: that kernel, its library, and room for a batch

    def prepare(self, images: Sequence[ImageLike]) -> np.ndarray:
        """Normalised pixels (N, 3, H, W) float32 of the network's input size."""
        return prepare(images, self.manifest.image_size, self.manifest.normalization)

    def read_pixels(self, pixels: Any) -> list[Word]:
        """Words of already normalised pixels (N, 3, H, W) float32, any N.

        The GPU backends also take whatever has DLPack or `__cuda_array_interface__`, without copying what is on their
        GPU; torch takes float16 too. Raises ImageError for another kind or shape, and for pixels that are not finite
        or not normalised, naming their row; NonFiniteError where the network's output is not finite.
        """
        self._check_process()
        return self._words(self.backend.accept(pixels))

    def _words(self, pixels: Any, each: bool = False, first: int = 0) -> list[Any]:
        """Of accepted pixels. each: an error in the place of what cannot be read. first: the first row's number."""
        words: list[Any] = []
        for start in range(0, len(pixels), self.batch_size):
            part = pixels[start : start + self.batch_size]
            try:
                reading = self.reading(part)
            except NonFiniteError as error:
                if len(part) > 1:  # which of them is it?
                    for row in range(len(part)):
                        words += self._words(part[row : row + 1], each, first + start + row)
                    continue
                named = self._blamed(part, error, first + start)
                if not each:
                    raise named from None
                words.append(named)
                continue
            with self._lock:
                self.stats.add(reading.stats)
            lengths = first_end(reading.ids).tolist()
            confidences = _rounded(calibrated(reading.confidence, self.manifest.temperature))
            for ids, chars, length, confidence in zip(reading.ids, _rounded(reading.probs), lengths, confidences):
                text = self.driver.charset.decode(ids)
                words.append(Word(text, confidence, tuple(chars[:length]), hint_of(text, confidence)))
        return words

    def _blamed(self, pixels: Any, error: NonFiniteError, row: int) -> ImageError | NonFiniteError:
        """Of one row: was it the pixels?"""
        if not self.backend.finite_rows(pixels).all():
            return ImageError(f"pixels[{row}] are not finite: NaN or infinity", index=row)
        return NonFiniteError(f"{self.manifest.name}: {error}", index=row)

    def reading(self, pixels: Any) -> Reading:
        """What words are made of, not calibrated: of `prepare`'s pixels, 1 to batch_size of them. Raises
        NonFiniteError, whatever the backend."""
        self._check_process()
        reading = self.backend.read(self.driver, pixels)
        check_finite(reading.probs, "deciding")
        return reading

    def _check_process(self) -> None:
        """Raises BackendError where a read would wait for ever: a fork leaves threads and GPUs behind."""
        if os.getpid() != self._process and not self.backend.survives_fork:
            raise BackendError(
                "this process was forked after Recognizer.load, whose threads it does not have: load after the fork, "
                'or start workers with multiprocessing\'s "spawn"'
            )

    def close(self) -> None:
        """Give back at once what ONNX Runtime and TensorRT hold, instead of when the last reference goes; reading is a
        BackendError then. Twice is allowed."""
        self.backend.close()

    def __enter__(self) -> Recognizer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def reset_stats(self) -> None:
        self.stats = Stats()


def _hinted(word: Any, shape: tuple[int, int]) -> Any:
    """A word, or its error, with what there is to say of a picture of that shape."""
    return replace(word, hint=hint_of(word.text, word.confidence, shape)) if isinstance(word, Word) else word


def _rounded(probs: np.ndarray) -> list[Any]:
    """Probabilities as plain floats of six decimals, in nested lists."""
    return np.round(probs.astype(np.float64), 6).tolist()


def _sizes(batch_sizes: Any, most: int) -> set[int]:
    """Raises UsageError."""
    sizes = (
        set(batch_sizes) if isinstance(batch_sizes, Iterable) and not isinstance(batch_sizes, str) else {batch_sizes}
    )
    for size in sizes:
        if not isinstance(size, Integral) or isinstance(size, bool) or not 1 <= int(size) <= most:
            raise UsageError(f"batches to warm up for are of 1 to {most} images, not {size!r}")
    return {int(size) for size in sizes}
