"""Textless crops by number: which kind each is, how large, and what a camera makes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sized
from typing import NamedTuple

import numpy as np
from PIL import Image

from clip4str.core.errors import DataError

from . import letters, plain, scripts, shapes, textures
from .paint import Size, photograph
from .photos import SAME, Photos

Maker = Callable[[np.random.Generator, Size], np.ndarray]

# What a detector hands over without text is mostly pieces of the scene; pages are blank and letters cut in half.
SHARES = {
    "photo": 0.39, "beyond reading": 0.11, "half-cut": 0.11, "other script": 0.12,
    "blank": 0.06, "gradient": 0.04, "noise": 0.05, "strong JPEG": 0.02, "texture": 0.06, "shapes": 0.04,
}  # fmt: skip
MADE: dict[str, Maker] = {
    "blank": plain.blank, "gradient": plain.gradient, "noise": plain.noise, "strong JPEG": plain.strong_jpeg,
    "texture": textures.texture, "shapes": shapes.shapes, "half-cut": letters.half_cut,
    "beyond reading": letters.beyond_reading, "other script": scripts.other_script,
}  # fmt: skip
MEASURING = 2**40  # a seed beyond any that a run is given
TRIES = 200  # where a photo has nothing of the kind, another kind or the next photo is tried
_AS_THEY_ARE = ("blank", "strong JPEG", "photo")  # the camera was there before, or would spoil the kind


class Crop(NamedTuple):
    kind: str
    picture: Image.Image


class Textless:
    """An endless series of textless crops; crop `number` depends on the seed, the number, the photos and the fonts.

    photos: without them, no pieces of any. made: makers by kind (default: those above). notes: what this machine lacks.
    """

    def __init__(self, seed: int = 0, photos: Photos | None = None, made: Mapping[str, Maker] | None = None,
                 shares: Mapping[str, float] = SHARES) -> None:  # fmt: skip
        self.seed, self.photos, self.made = seed, photos, dict(MADE if made is None else made)
        self.notes: list[str] = []
        self._lack(letters.latin_faces, "Latin fonts", "half-cut", "beyond reading")
        self._lack(scripts.script_faces, "fonts of other scripts", "other script")
        known = [*self.made, *(["photo"] if photos is not None else [])]
        self.kinds = [kind for kind in known if shares.get(kind, 0) > 0]
        weights = np.array([shares[kind] for kind in self.kinds])
        self._below = np.cumsum(weights / weights.sum())

    def _lack(self, faces: Callable[[], Sized], what: str, *kinds: str) -> None:
        wanted = [kind for kind in kinds if kind in self.made]
        if wanted and not faces():
            self.notes.append(f"no {what} on this machine: no {' and no '.join(wanted)} crops")
            self.made = {kind: maker for kind, maker in self.made.items() if kind not in wanted}

    def crop(self, number: int) -> Crop:
        """Crop `number`, RGB: 8 to 64 pixels high, of the aspects that word crops have."""
        rng = np.random.default_rng((self.seed, 5, number))
        for attempt in range(TRIES):
            kind = self.kinds[min(int(np.searchsorted(self._below, rng.random(), "right")), len(self.kinds) - 1)]
            pixels = self._make(kind, rng, number + attempt * SAME)
            if pixels is not None:
                return Crop(kind, Image.fromarray(pixels if kind in _AS_THEY_ARE else photograph(rng, pixels)))
        raise DataError("no piece without a word in any of the photos; give others")

    def _make(self, kind: str, rng: np.random.Generator, number: int) -> np.ndarray | None:
        if kind == "photo" and self.photos is not None:
            return self.photos.piece(rng, number)
        high = float(np.clip(np.exp(rng.normal(3.4, 0.5)), 8, 64))
        wide = float(np.clip(high * np.exp(rng.normal(0.95, 0.55)), 6, min(320, 9 * high)))
        return self.made[kind](rng, (round(high), round(wide)))


def measuring_crops(photos: Photos | None, count: int, makers: Mapping[str, Maker]) -> Iterator[Crop]:
    """Crops to measure with, always the same: half are pieces of photos, of each as many; of each maker as many."""
    if photos is not None:
        pieces = Textless(MEASURING, photos, {}, {"photo": 1.0})
        for number in range(count // 2):
            shot = number * len(photos) // (count // 2)
            yield pieces.crop(shot * SAME + number % SAME)
    made = count - (count // 2 if photos is not None else 0)
    for k, (kind, maker) in enumerate(makers.items()):
        series = Textless(MEASURING + k, None, {kind: maker}, {kind: 1.0})
        for number in range(made * k // len(makers), made * (k + 1) // len(makers)):
            yield series.crop(number)
