"""Feeds training with words drawn where it runs, mixed with stored ones that worker processes prepare."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor

from ..data import Batch, Stream, Words
from .atlas import load_atlas
from .order import Orders
from .renderer import Renderer

PLACES = 2000


def blurred_places(words: Words, count: int = PLACES, size: tuple[int, int] = (32, 96)) -> Tensor:
    """Grounds out of real crops: blurred so far that nothing is legible, uint8 [m, 3, height, width]."""
    rng = np.random.default_rng(0)
    places = []
    for index in rng.permutation(len(words))[:count]:
        picture = words.picture(int(index))
        if picture is None:
            continue
        small = picture.resize((size[1], size[0]), Image.Resampling.BOX)
        small = small.filter(ImageFilter.GaussianBlur(float(rng.uniform(5, 9))))
        places.append(np.asarray(small).transpose(2, 0, 1))
    words.close()
    return torch.from_numpy(np.stack(places)) if places else torch.empty(0, 3, *size, dtype=torch.uint8)


class Drawn:
    """A loader whose batches come with all their words drawn: what is drawn depends on the order, the seed and the
    batch's number alone, on one kind of device."""

    def __init__(self, loader: Iterable[Batch], renderer: Renderer, seed: int) -> None:
        self.loader, self.renderer, self.seed = loader, renderer, seed

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.loader:
            yield self.complete(batch)

    def complete(self, batch: Batch) -> Batch:
        if batch.order is None:  # so small a share of so small a batch that it rounds to no word
            return batch
        pixels = self.renderer.draw(*batch.order, f"{self.seed}/{batch.number}")
        if len(batch.pixels):
            pixels = torch.cat((batch.pixels.to(pixels.device, non_blocking=True), pixels))
        tokens = batch.tokens.to(pixels.device, non_blocking=True)
        return Batch(pixels, tokens, batch.number, undecodable=batch.undecodable)


def drawn_beside(loader: Iterable[Batch], stream: Stream, atlas: str, device: torch.device) -> Drawn:
    """The loader of `stream`, completed on `device`; real words lend their grounds, and their texts to be drawn anew.

    Raises DataError if the atlas is missing or damaged.
    """
    real = stream.sources[0][0] if stream.sources else None
    glyphs = load_atlas(atlas)
    stream.orders = Orders(glyphs, stream.vocabulary, labels=real.labels if real is not None else ())
    places = blurred_places(real) if real is not None else None
    return Drawn(loader, Renderer(glyphs, stream.orders, stream.size, device, places=places), stream.seed)
