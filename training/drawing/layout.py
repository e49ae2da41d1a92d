"""Where letters stand, and how far each point of the text plane lies from their outlines.

Lengths are in texels of the atlas (capitals are 24 high), y points down, (0, 0) is the middle of the word's ink.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .atlas import CAP, PAD, SPACE, STEP, ZERO, Atlas, bearings
from .dice import Dice, plane
from .order import BLANK, MAIN, SIDE

EM = CAP / 0.7
FAR = 8192.0  # between the lines' ranges in the sorted list of boundaries; longer than any line
# Distance where there is no glyph at all: farther than any outline or shadow reaches, but so near that where two parts
# of the text plane meet, no step of the distance looks like an edge.
NOTHING = -10.0
# Most that a crop cuts off: of the width of the outer letters, by which an O is no C yet; of the height, by
# which E keeps its lower bar; and where five letters and more tell what the others are.
ENDS, BARS, TOLD, TELLING = 0.13, 0.05, 0.18, 5


class Layout(NamedTuple):
    """Slots of the three lines one after another, S of them. place [5, n * S]: shrink, then x and y of the tile's first
    texel in shrunk texels, then the tile's width and height less a little; a point (u, v) is texel (shrink * u - x,
    shrink * v - y). tiles int32 [2, n * S]: where each tile begins, and its width. middle [n * S]: of the ink, along u.
    bounds [n, S]: right ends of the slots' ranges, line after line. before, after int32 [n * S]: the nearest
    drawn slots. splits [n, 2]: between the lines. size: width and height of the word's ink, [n] each. others [n, 2, 4]:
    of the lines above and below the middle of the ink, u and v, and its width and height; a width of 0 where there is
    none. spare [n, 3]: how far inside of the word's width a crop may begin or end, and how much of its height it may
    leave out, so that one still reads the word; 0 for none."""

    place: Tensor
    tiles: Tensor
    middle: Tensor
    bounds: Tensor
    before: Tensor
    after: Tensor
    splits: Tensor
    size: tuple[Tensor, Tensor]
    others: Tensor
    spare: Tensor


class Glyphs:
    """The atlas on a device."""

    def __init__(self, atlas: Atlas, device: torch.device) -> None:
        count, blank = len(atlas), SPACE + 1
        table = torch.zeros(count, blank + 1, 5)
        table[:, :blank] = torch.from_numpy(atlas.glyphs.astype("float32"))
        table[..., 4] /= STEP
        tiles = torch.zeros(count, blank + 1, dtype=torch.int32)
        tiles[:, :blank] = torch.from_numpy(atlas.offsets)  # below atlas.MOST_TEXELS
        self.table, self.tiles = table.view(-1, 5).to(device), tiles.view(-1).to(device)
        empty = torch.zeros(count, blank + 1, 2)
        empty[:, :blank] = torch.from_numpy(bearings(atlas)) - PAD
        self.bearings = empty.view(-1, 2).to(device)
        self.texels = torch.from_numpy(atlas.texels.copy()).to(device)
        kerning = torch.zeros(count, blank + 1, blank + 1, dtype=torch.int8)
        kerning[:, :SPACE, :SPACE] = torch.from_numpy(atlas.kerning.copy())
        self.kerning = kerning.view(-1).to(device)
        self.weight = torch.tensor([face.weight for face in atlas.faces], device=device)

    def lay_out(self, codes: Tensor, faces: Tensor, dice: Dice | None = None, arched: Tensor | None = None) -> Layout:
        """codes int64 [n, 3, SLOTS], faces int64 [n]; without dice the letters stand as the face's maker set them.
        arched, bool [n]: to be bent, with more room between letters and lines."""
        glyph = plane(faces) * (BLANK + 1) + codes
        wide, high, left, top, advance = self.table[glyph].unbind(-1)
        pair = glyph[..., :-1] * (BLANK + 1) + codes[..., 1:]
        advance[..., :-1] += self.kerning[pair].float() / STEP
        drawn, filled = wide > 0, codes != BLANK
        letters = filled[:, 1, SIDE : SIDE + MAIN].sum(-1)
        jitter = torch.zeros_like(wide)
        scale = torch.ones_like(wide[:, :, :1])
        if dice is not None:
            extra = dice.mixture(((0.66, 0.0, 0.0), (0.1, -0.05, 0.0), (0.19, 0.0, 0.2), (0.05, 0.2, 0.6))) * EM
            if arched is not None:  # round badges, letters are spread until they fill the arc
                spread = dice.uniform(0.05, 0.5) * EM
                extra = torch.where(arched & dice.chance(0.4), spread, extra)
            extra = extra * (12 / letters).clamp_max(1) ** 2  # in long words gaps would take the letters' pixels
            advance = advance + plane(extra)
            jumpy = dice.uniform(0.02, 0.09) * EM * dice.chance(0.05)
            jitter = dice.field(*wide.shape[1:]).clamp(-1.5, 1.5) * plane(jumpy)
            other = torch.where(dice.chance(0.5), 1.0, dice.uniform(0.5, 1.3))
            scale = torch.stack((other, torch.ones_like(other), other), dim=1)[..., None]
        advance = advance * filled * scale
        pen = advance.cumsum(-1) - advance
        ink = torch.stack((left + PAD, top + PAD, left + wide - PAD, top + high - PAD)) * scale
        x0, x1 = pen + ink[0], pen + ink[2]
        y0, y1 = jitter + ink[1], jitter + ink[3]

        def extreme(values: Tensor, mask: Tensor, largest: bool) -> Tensor:
            """[n, lines, SLOTS] -> [n, lines, 1], over the drawn slots."""
            away = -1e6 if largest else 1e6
            values = torch.where(mask, values, away)
            return values.amax(-1, keepdim=True) if largest else values.amin(-1, keepdim=True)

        word = drawn.clone()
        word[:, 1, :SIDE].fill_(False)
        word[:, 1, SIDE + MAIN :].fill_(False)
        begin, end = extreme(x0, word, False), extreme(x1, word, True)
        above, below = extreme(y0, word, False), extreme(y1, word, True)
        width, height = (end - begin)[:, 1, 0], (below - above)[:, 1, 0]
        gap = height * (dice.uniform(0.06, 0.4) if dice is not None else 0.3)
        if arched is not None:
            gap = torch.where(arched, gap + 0.4 * height, gap)
        shift = -(begin + end) / 2
        lower = torch.stack((-height / 2 - gap - below[:, 0, 0], -(above + below)[:, 1, 0] / 2,
                             height / 2 + gap - above[:, 2, 0]), dim=1)[..., None]  # fmt: skip
        if dice is not None:
            aside = torch.stack((dice.normal(0, 1), torch.zeros_like(gap), dice.normal(0, 1)), dim=1)
            shift = shift + (aside * 0.2 * width[:, None])[..., None]
        some = word.any(-1)
        splits = torch.stack((torch.where(some[:, 0], -height / 2 - gap / 2, -1e6),
                              torch.where(some[:, 2], height / 2 + gap / 2, 1e6)), dim=1)  # fmt: skip
        others = torch.cat(((begin + end) / 2 + shift, (above + below) / 2 + lower, end - begin, below - above), dim=-1)
        others = torch.where(some[..., None], others, 0.0)[:, ::2]
        x0, x1 = (x0 + shift).clamp(-3900, 3900), (x1 + shift).clamp(-3900, 3900)
        shrink = (1 / scale).expand_as(pen)
        # What is not drawn is a tile of 2 x 2 texels, very far away.
        place = torch.stack((
            shrink, torch.where(drawn, (pen + shift) * shrink + left + 0.5, 1e6),
            torch.where(drawn, (jitter + lower) * shrink + top + 0.5, 1e6),
            wide.clamp_min(2) - 1.001, high.clamp_min(2) - 1.001,
        )).flatten(1)  # fmt: skip
        tiles = torch.stack((self.tiles[glyph], wide.int())).flatten(1)
        bounds, before, after = _ranges(x0, x1, drawn)
        return Layout(place, tiles, ((x0 + x1) / 2).flatten(), bounds, before, after, splits, (width, height),
                      others, self._spare(codes, glyph, letters, height))  # fmt: skip

    def _spare(self, codes: Tensor, glyph: Tensor, letters: Tensor, height: Tensor) -> Tensor:
        """See Layout. codes, glyph (rows of the table) [n, lines, SLOTS]; letters, height [n]."""
        word = codes[:, 1, SIDE : SIDE + MAIN]
        ends = torch.stack((torch.zeros_like(letters), (letters - 1).clamp_min(0)), dim=1)
        outer = glyph[:, 1, SIDE : SIDE + MAIN].gather(1, ends)
        empty = self.bearings[outer]
        ink = (self.table[outer][..., 0] - 2 * PAD - empty.sum(-1)).clamp_min(0)
        cut = ENDS * ink + torch.stack((empty[:, 0, 0], empty[:, 1, 1]), dim=1)
        told = (letters >= TELLING) & (((word >= 10) & (word < 62)) | (word == BLANK)).all(1)
        share = torch.where(told, TOLD, BARS) * (letters > 2)
        return torch.cat((cut, (share * height)[:, None]), dim=1) * (letters > 1)[:, None]

    def field(self, layout: Layout, u: Tensor, v: Tensor) -> Tensor:
        """Distance to the outlines at the points (u, v), [n, H, W]: positive inside, -4 and less far off.

        Two letters are asked at each point: the one whose range it is in and the neighbour on the nearer side.
        """
        n, slots = layout.bounds.shape
        along, down = u.reshape(n, -1), v.reshape(n, -1)
        rows = torch.arange(n, device=u.device, dtype=torch.int32)[:, None] * slots
        line = (down > layout.splits[:, :1]).float() + (down > layout.splits[:, 1:])
        slot = torch.searchsorted(layout.bounds, along.clamp(-4000, 4000).add_(line, alpha=FAR), out_int32=True)
        slot = slot.clamp_max_(slots - 1).add_(rows).flatten()
        along, down = along.flatten(), down.flatten()
        right = along > layout.middle.index_select(0, slot)
        other = torch.where(right, layout.after.index_select(0, slot), layout.before.index_select(0, slot))
        near, other = self._distance(layout, slot, along, down), self._distance(layout, other, along, down)
        return torch.maximum(near, other).clamp_min_(NOTHING).view_as(u)

    def _distance(self, layout: Layout, slot: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """Bilinear within the tile; beyond it, what its edge says less the way there."""
        shrink, left, top, right, bottom = (row.index_select(0, slot) for row in layout.place)
        x, y = u * shrink - left, v * shrink - top
        inside_x, inside_y = x.clamp_min(0).minimum(right), y.clamp_min(0).minimum(bottom)
        away = torch.hypot(x - inside_x, y - inside_y)
        column, row = inside_x.floor(), inside_y.floor()
        step = layout.tiles[1].index_select(0, slot)
        start = layout.tiles[0].index_select(0, slot).addcmul_(row.int(), step).add_(column.int())
        below, beside = start + step, self.texels[1:]
        a, b = self.texels.index_select(0, start).float(), beside.index_select(0, start).float()
        c, d = self.texels.index_select(0, below).float(), beside.index_select(0, below).float()
        fx = inside_x.sub_(column)
        upper, lower = a.lerp_(b, fx), c.lerp_(d, fx)
        value = upper.lerp_(lower, inside_y.sub_(row))
        return value.sub_(ZERO).div_(STEP).sub_(away).div_(shrink)


def _ranges(x0: Tensor, x1: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Cuts every line into one range per drawn slot, half-way between inks; see Layout. [n, lines, SLOTS] each."""
    n, lines, slots = drawn.shape
    index = torch.arange(slots, device=drawn.device).expand_as(drawn)
    last = torch.where(drawn, index, -1).cummax(-1).values
    first = torch.where(drawn, index, slots).flip(-1).cummin(-1).values.flip(-1)
    edge = torch.full_like(last[..., :1], -1)
    before = torch.cat((edge, last[..., :-1]), dim=-1)
    after = torch.cat((first[..., 1:], edge + slots + 1), dim=-1)
    here = last.clamp_min(0)
    follower = after.gather(-1, here).clamp_max(slots - 1)
    middle = (x1.gather(-1, here) + x0.gather(-1, follower)) / 2
    bounds = torch.where(after.gather(-1, here) < slots, middle, FAR / 2 - 1)
    bounds = torch.where(last < 0, -FAR / 2 + 1, bounds)
    bounds = bounds.cummax(-1).values
    bounds[..., -1].fill_(FAR / 2 - 1)
    offset = torch.arange(lines, device=drawn.device)[:, None]
    rows = torch.arange(n * lines, device=drawn.device).view(n, lines, 1) * slots
    before = torch.where(before < 0, index, before) + rows
    after = torch.where(after >= slots, index, after) + rows
    return (bounds + offset * FAR).flatten(1).contiguous(), before.flatten().int(), after.flatten().int()
