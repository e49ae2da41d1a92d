"""Draws words in batches, in torch, on a GPU or CPU, from a glyph atlas: fast enough to feed training there.

Every step works on a whole batch: letters are laid out (layout.py), each pixel is traced back through a warp to the
text plane (warp.py) where distance fields tell what is ink, the scene is painted (compose.py, paint.py) and
photographed (camera.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .atlas import Atlas
from .camera import light, photograph
from .compose import compose
from .dice import Dice
from .frames import choose, fill_arcs
from .layout import Glyphs, Layout
from .order import BLANK, MAIN, PAPER, SIDE, Order, Orders
from .paint import Grounds, coverage, slopes
from .prints import printed
from .warp import BENT, Warp, plain_warp, random_warp, text_points

FINE, SQUEEZED = 2, 10  # samples of the letters per pixel, across, for words of more letters: long ones are squeezed
PART = 64  # words drawn at once by a CPU: what belongs to more would not stay in its caches


class Shot(NamedTuple):
    """pictures uint8 [n, H, W, 3]; u float32 [n, H, fine * W]: where their pixels lie along the line of text."""

    pictures: Tensor
    layout: Layout
    warp: Warp
    u: Tensor


class Renderer:
    """Batches of words; the same atlas, words, seed and device give the same pictures.

    orders: what to draw, or a word list for it. size: height and width of the pictures. places: uint8 [m, 3, h, w]
    pictures of real places for grounds, without legible text, see data.blurred_places.
    """

    def __init__(self, atlas: Atlas, orders: Orders | Sequence[str] = (), size: tuple[int, int] = (32, 128),
                 device: str | torch.device = "cpu", seed: int | str = 0, places: Tensor | None = None,
                 ) -> None:  # fmt: skip
        self.device, self.size, self.seed = torch.device(device), size, seed
        self.orders = orders if isinstance(orders, Orders) else Orders(atlas, orders)
        self.glyphs = Glyphs(atlas, self.device)
        self.grounds = Grounds(self.device, places)
        self.generator = torch.Generator(self.device)
        self.number = 0

    def batch(self, count: int) -> tuple[Tensor, list[str]]:
        """The next `count` words: uint8 [count, H, W, 3] on the device, and their labels."""
        self.number += 1
        order = self.orders.take(count, f"{self.seed}/{self.number}")
        codes, faces = torch.from_numpy(order.codes), torch.from_numpy(order.faces)
        return self.draw(codes, faces, f"{self.seed}/{self.number}"), order.labels

    @torch.no_grad()
    def draw(self, codes: Tensor, faces: Tensor, seed: int | str) -> Tensor:
        """uint8 [n, H, W, 3] on the device: a function of the order (codes uint8, faces int64) and the seed."""
        self.generator.manual_seed(int.from_bytes(hashlib.sha256(str(seed).encode()).digest()[:7], "big"))
        if self.device.type != "cpu":
            return self._draw(codes, faces, FINE)
        letters = (codes[:, 1, SIDE : SIDE + MAIN] != BLANK).sum(1)
        pictures = torch.empty(len(faces), *self.size, 3, dtype=torch.uint8)
        # The shortest first, so that most need only one sample a pixel.
        for rows in letters.argsort(stable=True).tensor_split(-(-len(faces) // PART) or 1):
            fine = FINE if letters[rows[-1:]].sum() > SQUEEZED else 1
            pictures[rows] = self._draw(codes[rows], faces[rows], fine)
        return pictures

    def _draw(self, codes: Tensor, faces: Tensor, fine: int) -> Tensor:
        return self.shot(codes, faces, fine).pictures

    def shot(self, codes: Tensor, faces: Tensor, fine: int) -> Shot:
        """As draw, of the generator's present state, and where everything lies."""
        dice = Dice(len(faces), self.generator)
        small = faces >= PAPER  # asked before the transfer, which no GPU waits for
        rows = small.nonzero()[:, 0].to(self.device, non_blocking=True)
        small, faces = small.to(self.device, non_blocking=True), faces % PAPER
        codes, faces = codes.to(self.device, non_blocking=True).long(), faces.to(self.device, non_blocking=True)
        arched = dice.chance(BENT) & ~small
        layout = self.glyphs.lay_out(codes, faces, dice, arched)
        warp = random_warp(*layout.size, dice, small, arched, layout.spare)
        high, wide = self.size
        u, v = along, across = text_points(warp, high, fine * wide)
        layout, u, v, filled = fill_arcs(dice, layout, warp, u, v)
        frames = choose(dice, layout, warp, along[..., ::fine], across[..., ::fine], filled)
        field = self.glyphs.field(layout, u, v)
        scale = high * warp.share / layout.size[1]
        unit = (scale * wide / (high * warp.aspect), scale)
        scene = light(dice, compose(dice, field, fine, unit, warp.aspect, self.glyphs.weight[faces], self.grounds,
                                    frames))  # fmt: skip
        part = printed(Dice(len(rows), dice.generator), field[rows], u[rows], v[rows], fine)
        scene.index_copy_(0, rows, part)
        taken = photograph(dice, scene, warp.aspect, warp.share.clamp(0.15, 1), self.size)
        return Shot(taken.round().to(torch.uint8).permute(0, 2, 3, 1).contiguous(), layout, warp, u)

    @torch.no_grad()
    def clean(self, order: Order, margin: float = 0.1) -> Tensor:
        """The letters alone, straight and undistorted: coverage float32 [n, H, W], 0..1."""
        codes, faces = torch.from_numpy(order.codes).long(), torch.from_numpy(order.faces) % PAPER
        layout = self.glyphs.lay_out(codes.to(self.device), faces.to(self.device))
        field = self.glyphs.field(layout, *text_points(plain_warp(*layout.size, margin), *self.size))
        return coverage(field, slopes(field))
