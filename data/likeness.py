"""How alike two word pictures are, whatever was done to one: scaled, recompressed, made darker, cropped otherwise.

A picture becomes a grey thumbnail. The likeness of two is the normalised cross correlation of the parts where they fit
best, 1 for copies, after contrast was levelled out locally: or light falling across a sign would count for more than
its letters. A fit says which parts: hundredths trimmed off left, top, right and bottom of the first picture or, where
negative, off the second; two crops of one photograph differ by just that.

Two passes. A coarse one compares all pairs by 8x32 values over a grid of fits; the few that it holds for alike climb
from their best place on that grid to the nearest summit, by 16x64 values. Shapes: N or M pictures, V ways to trim.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from itertools import product

import numpy as np
from PIL import Image, ImageFilter

THUMBNAIL = (32, 128)
FLOOR = 0.78  # of the coarse pass; one pair of photographs in 1500 is above, and of altered copies all but the odd one
MOST = 25  # hundredths trimmed off a side at most
_ACROSS, _DOWN = (0, 3, 6, 9, 12), (0, 10)  # hundredths on the coarse grid; letters are narrow and stand in one line
_TESTS, _TRAINS, _PAIRS = 128, 512, 128  # at a time, for some 200 MB


def _weights(size: int, source: int, first: int, last: int) -> np.ndarray:
    """(size, source): resamples `source` values to `size`, without so many hundredths at the ends."""
    step = (1 - (first + last) / 100) * source / size
    centre = first / 100 * source + (np.arange(size) + 0.5) * step
    near = np.maximum(1 - np.abs(np.arange(source) + 0.5 - centre[:, None]) / max(step, 1), 0)
    return (near / near.sum(1, keepdims=True)).astype(np.float32)


def _blur(size: int, deviation: float) -> np.ndarray:
    """Gaussian weights (size, size), each row adding up to one, at the ends too."""
    distance = np.arange(size)[:, None] - np.arange(size)
    weights = np.exp(-(distance**2) / (2 * deviation**2))
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def _unit(x: np.ndarray) -> np.ndarray:
    """Mean 0 and length 1 along the last axis; next to nothing where a picture is of one colour."""
    x = x - x.mean(-1, keepdims=True)
    # less than a grey level is noise
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), np.sqrt(x.shape[-1], dtype=np.float32))


class _Coarse:
    """Thumbnails -> (N, V, 256), for every trim of the grid."""

    def __init__(self) -> None:
        across, down = list(product(_ACROSS, repeat=2)), list(product(_DOWN, repeat=2))
        self._across = np.concatenate([_weights(32, THUMBNAIL[1], *ends) for ends in across]).T.copy()
        self._down = np.concatenate([_weights(8, THUMBNAIL[0], *ends) for ends in down])
        self.trims = np.array([(left, top, right, bottom) for top, bottom in down for left, right in across])
        # A side is trimmed of one picture or of the other. By sides trimmed of the second: which trims of each go.
        trimmed = self.trims > 0
        self.groups = [
            (np.flatnonzero(~(trimmed & sides).any(1)), np.flatnonzero((trimmed == sides).all(1)))
            for sides in np.array(list(product((False, True), repeat=4)))
        ]

    def __call__(self, thumbnails: np.ndarray) -> np.ndarray:
        x = self._down @ (thumbnails.astype(np.float32) @ self._across)
        x = x.reshape(len(x), len(self._down) // 8, 8, -1, 32).transpose(0, 1, 3, 2, 4)
        return _unit(x.reshape(len(x), len(self.trims), -1))

    def best(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """(N, V, D) and (M, V, D) -> (N, M), the largest correlation on the grid."""
        best = np.full((len(a), len(b)), -1, np.float32)
        for ours, theirs in self.groups:
            products = a[:, ours].reshape(-1, a.shape[2]) @ b[:, theirs].reshape(-1, b.shape[2]).T
            np.maximum(best, products.reshape(len(a), len(ours), len(b), -1).max((1, 3)), out=best)
        return best

    def fits(self, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(N, V, D) twice, pair by pair -> (N,) the largest correlation, and (N, 4) the fit that has it."""
        best, fits = np.full(len(a), -1, np.float32), np.zeros((len(a), 4), np.int64)
        for ours, theirs in self.groups:
            products = (a[:, ours] @ b[:, theirs].transpose(0, 2, 1)).reshape(len(a), -1)
            place = products.argmax(1)
            value = products[np.arange(len(a)), place]
            fit = self.trims[ours[place // len(theirs)]] - self.trims[theirs[place % len(theirs)]]
            fits[value > best] = fit[value > best]
            best = np.maximum(best, value)
        return best, fits


class _Fine:
    """Correlation of pairs at any fit, with local contrast levelled."""

    def __init__(self) -> None:
        ends = range(MOST + 1)
        self._across = np.array([[_weights(64, THUMBNAIL[1], a, b).T for b in ends] for a in ends])
        self._down = np.array([[_weights(16, THUMBNAIL[0], a, b) for b in ends] for a in ends])
        self._blurs = _blur(16, 4), _blur(64, 4).T.copy()

    def __call__(self, a: np.ndarray, b: np.ndarray, fits: np.ndarray) -> np.ndarray:
        """Thumbnails (N, 32, 128) twice, fits (N, 4) -> (N,)."""
        return (self._trimmed(a, np.maximum(fits, 0)) * self._trimmed(b, np.maximum(-fits, 0))).sum(1)

    def _trimmed(self, thumbnails: np.ndarray, trims: np.ndarray) -> np.ndarray:
        left, top, right, bottom = trims.T
        x = self._down[top, bottom] @ (thumbnails.astype(np.float32) @ self._across[left, right])
        x -= x.mean((1, 2), keepdims=True)
        x /= np.maximum(x.std((1, 2), keepdims=True), 1)
        mean = self._smooth(x)
        deviation = np.sqrt(np.maximum(self._smooth(x * x) - mean * mean, 0) + 0.09)  # plain ground stays plain
        x = ((x - mean) / deviation).reshape(len(x), -1)
        x -= x.mean(1, keepdims=True)
        return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1)

    def _smooth(self, x: np.ndarray) -> np.ndarray:
        return self._blurs[0] @ (x @ self._blurs[1])

    def climb(self, a: np.ndarray, b: np.ndarray, fits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """From fits (N, 4) uphill, one side at a time -> (N,) correlations, (N, 4) fits."""
        fits, best = fits.copy(), self(a, b, fits)
        for step in (3, 1):
            live = np.arange(len(fits))
            while len(live):
                ours, theirs, from_here = a[live], b[live], fits[live]
                top, there = best[live] + 1e-4, from_here.copy()
                for side, move in product(range(4), (-step, step)):
                    tried = from_here.copy()
                    tried[:, side] = np.clip(tried[:, side] + move, -MOST, MOST)
                    value = self(ours, theirs, tried)
                    higher = value > top
                    top[higher], there[higher] = value[higher], tried[higher]
                moved = (there != from_here).any(1)
                live = live[moved]
                best[live], fits[live] = top[moved], there[moved]
        return best, fits


_coarse, _fine = _Coarse(), _Fine()


def thumbnail(image: Image.Image) -> np.ndarray:
    """uint8 (32, 128), grey, of any picture."""
    height, width = THUMBNAIL
    return np.asarray(image.convert("L").resize((width, height), Image.Resampling.BICUBIC))


def similar(tests: np.ndarray, trains: np.ndarray) -> Iterator[tuple[int, int, float, np.ndarray]]:
    """Of thumbnails (N, 32, 128) and (M, 32, 128): (one of N, one of M, likeness, fit) of the pairs that the coarse
    pass holds for alike. Memory does not grow with N * M."""
    for m in range(0, len(trains), _TRAINS):
        theirs = _coarse(trains[m : m + _TRAINS])
        for n in range(0, len(tests), _TESTS):
            ours, others = np.nonzero(_coarse.best(_coarse(tests[n : n + _TESTS]), theirs) >= FLOOR)
            values, fits = likeness(tests[n + ours], trains[m + others], -1)
            yield from zip((n + ours).tolist(), (m + others).tolist(), values.tolist(), fits)


def likeness(ones: np.ndarray, others: np.ndarray, floor: float = FLOOR) -> tuple[np.ndarray, np.ndarray]:
    """Of pairs of thumbnails, (N, 32, 128) twice: (N,), 0 where the coarse pass is below the floor, and fits (N, 4)."""
    values, fits = np.zeros(len(ones), np.float32), np.zeros((len(ones), 4), np.int64)
    for first in range(0, len(ones), _PAIRS):
        part = slice(first, first + _PAIRS)
        a, b = ones[part], others[part]
        coarse, start = _coarse.fits(_coarse(a), _coarse(b))
        found, fits[part] = _fine.climb(a, b, start)
        values[part] = np.where(coarse >= floor, found, 0)
    return values, fits


def fitted_stretch(fit: Sequence[int] | np.ndarray, one: float, other: float) -> float:
    """Factor, 1 or more, between width:height of the parts that fit. one, other: width:height of the whole pictures."""
    shapes = []
    for shape, trims in ((one, np.maximum(fit, 0)), (other, np.maximum(np.negative(fit), 0))):
        left, top, right, bottom = (trims / 100).tolist()
        shapes.append(shape * (1 - left - right) / (1 - top - bottom))
    return max(shapes) / min(shapes)


def _jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def _scaled(image: Image.Image, height: float) -> Image.Image:
    """Down to `height`, at least 12 pixels, and never up."""
    height = min(image.height, max(12, round(height)))
    return image.resize((max(4, round(image.width * height / image.height)), height), Image.Resampling.BICUBIC)


def _cropped(image: Image.Image, shares: np.ndarray) -> Image.Image:
    """shares: of left, top, right, bottom."""
    left, top, right, bottom = np.round(shares * np.array(image.size * 2)).astype(int).tolist()
    return image.crop((left, top, image.width - right, image.height - bottom))


def _shifted(image: Image.Image, shares: np.ndarray) -> Image.Image:
    """Moved across and down, what is uncovered filled with the pixels beside it."""
    pixels = np.asarray(image)
    for axis, share in zip((1, 0), shares):
        size = pixels.shape[axis]
        pixels = pixels.take(np.clip(np.arange(size) + round(share * size), 0, size - 1), axis)
    return Image.fromarray(pixels)


def _toned(image: Image.Image, gain: float, offset: float) -> Image.Image:
    return Image.fromarray(np.clip(np.asarray(image) * np.float32(gain) + offset, 0, 255).astype(np.uint8))


def _everything(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    image = _scaled(_cropped(image, rng.uniform(0, 0.05, 4)), 48)
    return _jpeg(_toned(image, 0.7, 20), 50)


ALTERATIONS: dict[str, Callable[[Image.Image, np.random.Generator], Image.Image]] = {
    "scaled": lambda image, rng: _scaled(image, min(64, image.height) * rng.uniform(0.5, 1)),
    "jpeg": lambda image, rng: _jpeg(image, int(rng.integers(30, 61))),
    "darker": lambda image, rng: _toned(image, rng.uniform(0.4, 0.8), 0),
    "brighter": lambda image, rng: _toned(image, 1, rng.uniform(20, 60)),
    "flatter": lambda image, rng: _toned(image, 0.5, rng.uniform(20, 100)),
    "cropped": lambda image, rng: _cropped(image, rng.uniform(0, 0.04, 4)),
    "cropped much": lambda image, rng: _cropped(image, rng.uniform(0, 0.12, 4)),
    "shifted": lambda image, rng: _shifted(image, rng.uniform(-0.03, 0.03, 2)),
    "blurred": lambda image, rng: image.filter(ImageFilter.GaussianBlur(image.height / 40)),
    "everything": _everything,
}
