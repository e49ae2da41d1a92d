"""What a backend is to a Recognizer: the stages of core/driver.py and what surrounds them, with what most would do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np

from clip4str.core.driver import PredictAndRefine
from clip4str.core.errors import ImageError, UsageError
from clip4str.core.masks import Rule
from clip4str.core.planes import host_planes
from clip4str.core.reading import Pass, Reading, Stages
from clip4str.core.rectify import rectified
from clip4str.core.thumbnail import thumbnail, thumbnail_size

from ..images import ImageLike, load_fitted, normalized
from ..loading import HostLoading, Loading

MOST_PIXEL = 100.0  # of normalised pixels; they are within -2.2 to 2.7, and 0 to 255 where that was forgotten


@dataclass(frozen=True)
class Options:
    """What Recognizer.load was asked for: threads and batch_size of any backend, providers of onnxruntime, device and
    graphs of those on a GPU, dtype and passes of torch, dtype also of openvino."""

    threads: int | None = None
    batch_size: int | None = None
    providers: Sequence[str] | None = None
    device: Any = None
    dtype: Any = None
    graphs: bool = True
    passes: Sequence[int] | None = None

    def __post_init__(self) -> None:
        """Raises UsageError for what no backend takes."""
        for name, value, most in (("threads", self.threads, 1024), ("batch size", self.batch_size, None)):
            whole = isinstance(value, Integral) and not isinstance(value, bool)
            if value is not None and not (whole and value >= 1 and (most is None or value <= most)):
                raise UsageError(f"{name} must be 1 {f'to {most}' if most else 'or more'}, not {value!r}")
        if isinstance(self.providers, (str, bytes)):
            raise UsageError(f"providers are a list of names, not {self.providers!r}")

    @property
    def of_gpu(self) -> bool:
        """Is anything asked for that onnxruntime does not have?"""
        return self.device is not None or not self.graphs or self.of_torch

    @property
    def of_torch(self) -> bool:
        """Is anything asked for that only torch has?"""
        return self.dtype is not None or self.passes is not None


def checked(pixels: np.ndarray) -> np.ndarray:
    """Pixels (N, ...) on the host as they are. Raises ImageError naming the first row that is not normalised: with NaN,
    infinity, or values out of all bounds. Its cost is two passes over memory that is about to be read anyway."""
    for row, picture in enumerate(pixels):
        low, high = picture.min(), picture.max()  # NaN if one pixel is
        if not (low >= -MOST_PIXEL and high <= MOST_PIXEL):
            if np.isfinite(picture).all():
                what = f"reach {max(-low, high):g}; normalised ones are about -1 to 1, uint8 images go to read"
            else:
                what = "are not finite: NaN or infinity"
            raise ImageError(f"pixels[{row}] {what}", index=row)
    return pixels


class Backend(Stages):
    """A network ready to read. The four stages and `stack` are each backend's own; the rest has defaults, those of a
    backend on the host. Every call may raise BackendError.

    name: --backend's. image_size: (height, width) of the pixels taken. batch_size: most images at a time. threads: of
    the CPU, None where none compute. survives_fork: does it read in a process forked after it was loaded? parallel: do
    threads read beside each other, or wait for one another? flexible_steps: see Stages.
    on_gpu: does a GPU compute? compiled_kernels: do the compiled kernels decode in the engines' place? resizes: does
    the GPU, where it can, resize the pictures of `load`? May be set to False.
    """

    name: str = ""
    flexible_steps: bool = True
    on_gpu: bool = False
    compiled_kernels: bool = False
    resizes: bool = False
    threads: int | None = None
    survives_fork: bool = False
    parallel: bool = True

    def __init__(self, image_size: tuple[int, int], batch_size: int) -> None:
        self.image_size, self.batch_size = image_size, batch_size

    @property
    def largest(self) -> int:
        """Images that are read at a time: the batch size, or less once memory has run out."""
        return self.batch_size

    @property
    def driven(self) -> bool:
        """Does `read` call the stages one by one? Otherwise a single program reads, and nobody sees them called."""
        return True

    def accept(self, pixels: Any) -> Any:
        """Normalised pixels as `read` takes them: what can be counted and cut by rows. Raises ImageError for another
        kind or shape than float32 (N, 3, H, W), here a numpy array, and what `checked` does."""
        height, width = self.image_size
        wanted = f"expected float32 (N, 3, {height}, {width})"
        if not isinstance(pixels, np.ndarray):
            raise ImageError(f"pixels are a {type(pixels).__name__}, {wanted} as a numpy array")
        if pixels.ndim != 4 or pixels.shape[1:] != (3, height, width) or pixels.dtype != np.float32:
            raise ImageError(f"pixels are {pixels.dtype} {pixels.shape}, {wanted}")
        return checked(pixels)

    def load(self, images: Sequence[ImageLike], normalization: str = "half") -> Loading:
        """Pictures of any kind, decoded, resized and normalised: to what `prepare` makes of them, to the bit. Returns
        before they are, so that another batch is read meanwhile. Here on the host, by who waits for them."""
        return HostLoading(images, self.image_size, normalization, self.accept)

    def finite_rows(self, pixels: Any) -> np.ndarray:
        """Which rows of accepted pixels hold no NaN and no infinity: (N,) bool. Asked where a network's output is not
        finite: `accept` does not look at what lies on a GPU, since that would have to be waited for."""
        return np.isfinite(pixels).all(axis=(1, 2, 3))

    def read(self, driver: PredictAndRefine, pixels: Any, stages: Stages | None = None) -> Reading:
        """What driver(self, pixels) reads, of accepted pixels, 1 to batch_size of them.

        stages: what the driver calls in the place of this backend, a Wrapper of it. Where a program reads, it is not
        called at all: the way that is timed is the way that is taken.
        """
        return driver(stages or self, pixels)

    def blank(self, images: int) -> Any:
        """Accepted pixels of that many grey images."""
        return np.zeros((images, 3, *self.image_size), np.float32)

    def warm_up(self, driver: PredictAndRefine, sizes: Sequence[int]) -> None:
        """Make whatever reading batches of these sizes makes when it is first needed. sizes: 1 to batch_size each, the
        largest first. Here by reading grey images."""
        for images in sizes:
            self.read(driver, self.blank(images))

    def crop(self, frame: Any, quads: Any, *, normalization: str = "half", **how: Any) -> Any:
        """Words cut out of a frame, normalised: (N, 3, H, W) float32, as kernels.crop_resize computes it, to the bit.
        Here on the host, in numpy and Pillow. how: see core.rectify.rectified, whose errors it raises."""
        pictures = [load_fitted(crop, self.image_size)[0] for crop in rectified(frame, quads, **how)]
        return normalized(pictures, self.image_size, normalization)

    def join(self, parts: Sequence[Any]) -> Any:
        """What `crop` gave for several frames, as what it gives for one. parts: one or more."""
        return np.concatenate(parts)

    def thumbnail(self, frame: Any, long_side: int, *, colour: bool = False, **how: Any) -> np.ndarray:
        """A frame shrunk to `long_side` pixels, on the host: uint8 (1, h, w) grey or (3, h, w) RGB, as core.thumbnail
        computes it, whose errors it raises. how: layout, matrix, full_range."""
        size = host_planes(frame, how.get("layout", "rgb"))[0].shape[:2]
        return thumbnail(frame, thumbnail_size(size, long_side), colour=colour, **how)

    def rows(self, frame: Any, first: int, last: int, layout: str = "rgb") -> tuple[np.ndarray, ...]:
        """The planes of a frame's rows from `first` to before `last`, on the host; of NV12 both are even. Raises what
        core.planes.host_planes does."""
        planes = host_planes(frame, layout)
        return tuple(plane[first:last] if i == 0 else plane[first // 2 : last // 2] for i, plane in enumerate(planes))

    def close(self) -> None:
        """Give back at once what is held. Twice is allowed."""


class Wrapper(Backend):
    """A backend that passes everything on to another: for who times, records or replaces what stages return. It sees
    the calls of the way that the other reads, and cannot choose another way."""

    def __init__(self, inner: Backend) -> None:
        super().__init__(inner.image_size, inner.batch_size)
        self.inner, self.flexible_steps, self.threads = inner, inner.flexible_steps, inner.threads
        self.name = inner.name
        self.on_gpu, self.compiled_kernels, self.resizes = inner.on_gpu, inner.compiled_kernels, inner.resizes
        self.survives_fork, self.parallel = inner.survives_fork, inner.parallel

    @property
    def largest(self) -> int:
        return self.inner.largest

    @property
    def driven(self) -> bool:
        return self.inner.driven

    def image(self, pixels: Any) -> tuple[Any, ...]:
        return self.inner.image(pixels)

    def visual(self, tokens: np.ndarray, rule: Rule, visual_kv: Any) -> Pass:
        return self.inner.visual(tokens, rule, visual_kv)

    def text(self, bpe: np.ndarray) -> Any:
        return self.inner.text(bpe)

    def cross(self, tokens: np.ndarray, rule: Rule, cross_kv: Any, text_kv: Any) -> Pass:
        return self.inner.cross(tokens, rule, cross_kv, text_kv)

    def stack(self, rows: Sequence[Any]) -> Any:
        return self.inner.stack(rows)

    def accept(self, pixels: Any) -> Any:
        return self.inner.accept(pixels)

    def load(self, images: Sequence[ImageLike], normalization: str = "half") -> Loading:
        return self.inner.load(images, normalization)

    def finite_rows(self, pixels: Any) -> np.ndarray:
        return self.inner.finite_rows(pixels)

    def read(self, driver: PredictAndRefine, pixels: Any, stages: Stages | None = None) -> Reading:
        return self.inner.read(driver, pixels, stages or self)

    def blank(self, images: int) -> Any:
        return self.inner.blank(images)

    def warm_up(self, driver: PredictAndRefine, sizes: Sequence[int]) -> None:
        self.inner.warm_up(driver, sizes)

    def crop(self, frame: Any, quads: Any, **how: Any) -> Any:
        return self.inner.crop(frame, quads, **how)

    def join(self, parts: Sequence[Any]) -> Any:
        return self.inner.join(parts)

    def thumbnail(self, frame: Any, long_side: int, **how: Any) -> np.ndarray:
        return self.inner.thumbnail(frame, long_side, **how)

    def rows(self, frame: Any, first: int, last: int, layout: str = "rgb") -> tuple[np.ndarray, ...]:
        return self.inner.rows(frame, first, last, layout)

    def close(self) -> None:
        self.inner.close()
