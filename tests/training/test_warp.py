"""Words turned and squeezed: as often as they should be, and not beyond reading."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from clip4str.training.drawing.atlas import Atlas
from clip4str.training.drawing.dice import Dice
from clip4str.training.drawing.frames import choose, fill_arcs, frame
from clip4str.training.drawing.layout import Glyphs, Layout
from clip4str.training.drawing.order import SIDE, encode
from clip4str.training.drawing.warp import Warp, inverse, plain_warp, random_warp, text_points


def jacobian(warp: Warp) -> Tensor:
    """Change of (u, v) along the crop, in shares of its height, at the middle: [n, 2, 2]."""
    u, v = text_points(warp, 33, 33)
    across = torch.stack((u[:, 16, 17] - u[:, 16, 15], v[:, 16, 17] - v[:, 16, 15]), 1) * (16.5 / warp.aspect[:, None])
    down = torch.stack((u[:, 17, 16] - u[:, 15, 16], v[:, 17, 16] - v[:, 15, 16]), 1) * 16.5
    return torch.stack((across, down), dim=2)


def warps(aspect: float, count: int = 4000, calm: bool = False) -> Warp:
    dice = Dice(count, torch.Generator().manual_seed(4))
    height = torch.full((count,), 30.0)
    return random_warp(aspect * height, height, dice, torch.full((count,), calm))


def angles(warp: Warp) -> Tensor:
    """Of the lines of text against the crop's x, in degrees, 0 to 180."""
    line = torch.linalg.inv(jacobian(warp))[:, :, 0]
    return torch.rad2deg(torch.atan2(line[:, 1], line[:, 0])).abs()


def test_words_are_turned_as_often_as_they_should_be():
    angle = angles(warps(3.5))
    share = lambda low, high: ((angle >= low) & (angle < high)).float().mean().item()  # noqa: E731
    assert 0.7 < share(0, 12) < 0.9 and 0.03 < share(28, 55) < 0.09
    assert 0.015 < share(70, 110) < 0.035 and 0.006 < share(160, 181) < 0.02
    assert (angles(warps(3.5, calm=True)) < 12).float().mean() > 0.98


def test_long_words_keep_the_pixels_that_their_letters_need():
    for aspect in (4.0, 8.0, 12.0, 16.0):
        warp = warps(aspect)
        shown = jacobian(warp).det().abs() * warp.aspect  # of the plane, in the whole crop
        letter = 4096 * 0.65 * 30.0**2 / shown
        assert letter.quantile(0.03) > 35, aspect


def test_inverse_of_projective_maps():
    maps = torch.randn(50, 3, 3, generator=torch.Generator().manual_seed(0)) + 3 * torch.eye(3)
    torch.testing.assert_close(inverse(maps) @ maps, torch.eye(3).expand(50, 3, 3), atol=1e-3, rtol=1e-3)


def test_characters_by_themselves_are_not_turned_into_others():
    assert angles(warps(0.8)).max() < 35 and (angles(warps(0.8)) > 22).float().mean() < 0.01


def laid_out(atlas: Atlas, lines: Sequence[str], count: int) -> tuple[Glyphs, Layout]:
    """`count` times the same lines: above, the word, below."""
    glyphs = Glyphs(atlas, torch.device("cpu"))
    above, text, below = lines
    codes = torch.from_numpy(encode([(above, "\0" * SIDE + text, below)] * count)).long()
    return glyphs, glyphs.lay_out(codes, torch.zeros(count, dtype=torch.int64))


def ink(atlas: Atlas, text: str) -> Tensor:
    """Points of the text plane inside of the letters, [points, 2]."""
    glyphs, layout = laid_out(atlas, ("", text, ""), 1)
    u, v = text_points(plain_warp(*layout.size), 96, 96 * len(text))
    inside = glyphs.field(layout, u, v) > 0
    return torch.stack((u[inside], v[inside]), dim=1)


def seen(warp: Warp, row: int, points: Tensor) -> Tensor:
    """Which points of the text plane a crop shows, by bending and projecting them: bool [points]."""
    u, v = points.unbind(1)
    bend, r = float(warp.bend[row]), float(warp.radius[row])
    if bend:
        sign = math.copysign(1, bend)
        u, v = (r - sign * v) * (u / r).sin(), sign * (r - (r - sign * v) * (u / r).cos())
    crop = torch.linalg.inv(warp.to_plane[row].double()) @ torch.stack((u, v, torch.ones_like(u))).double()
    x, y = crop[:2] / crop[2]
    return (x > 0) & (x < 1) & (y > 0) & (y < 1)


def test_narrow_crops_leave_out_so_much_of_the_outer_letters_and_no_more(atlas: Atlas):
    """H as the first and last letter: how much of its width is outside at the middle of its height, in its crossbar;
    and of the height of the whole word, at its worst end."""
    points = ink(atlas, "HOUSEH")
    low, high = points.amin(0), points.amax(0)
    gaps = points[:, 0].unique()
    gaps = gaps[:-1][gaps.diff() > 1.0]
    first, last = points[points[:, 0] <= gaps[0]], points[points[:, 0] > gaps[-1]]
    width = first[:, 0].max() - first[:, 0].min()
    bars = [part[part[:, 1].abs() < 1] for part in (first, last)]
    _, layout = laid_out(atlas, ("", "HOUSEH", ""), 3000)
    shares = []
    for spare in (None, layout.spare):
        dice = Dice(3000, torch.Generator().manual_seed(4))
        warp = random_warp(*layout.size, dice, arched=torch.zeros(3000, dtype=torch.bool), spare=spare)
        rows = torch.nonzero((warp.sag == 0) & (warp.wave == 0) & (angles(warp) < 20))[:, 0].tolist()
        hidden = torch.zeros(len(rows), 4)
        for at, row in enumerate(rows):
            near, far = (bar[seen(warp, row, bar)][:, 0] for bar in bars)
            hidden[at, 0], hidden[at, 1] = (near.min() - low[0]) / width, (high[0] - far.max()) / width
            for part in (first, last):  # its ends are upright strokes
                v = part[seen(warp, row, part)][:, 1]
                sides = torch.stack((v.min() - low[1], high[1] - v.max())) / (high[1] - low[1])
                hidden[at, 2:] = hidden[at, 2:].maximum(sides)
        shares.append(hidden)
    before, after = shares
    assert before.max() < 0.05 and 0.1 < after[:, :2].max() < 0.15 and after[:, 2:].max() < 0.22
    often = (after > 0.06).float().mean(0) - (before > 0.06).float().mean(0)
    assert (often > torch.tensor([0.012, 0.01, 0.002, 0.01])).all() and (often < 0.05).all()


def test_what_can_be_spared_depends_on_the_word(atlas: Atlas):
    """Nothing of a character by itself, little of the height where letters could be others."""
    spare = {text: laid_out(atlas, ("", text, ""), 1)[1] for text in ("E", "MI", "HOTEL", "H0T3L")}
    shares = {text: layout.spare[0, 2] / layout.size[1][0] for text, layout in spare.items()}
    assert spare["E"].spare.max() == 0 and shares["MI"] == 0 and 0.15 < shares["HOTEL"] < 0.2 and shares["H0T3L"] < 0.1
    assert spare["MI"].spare[0, 0] > 1.3 * spare["MI"].spare[0, 1] > 0


def test_words_on_arcs_keep_their_letters(atlas: Atlas):
    points = ink(atlas, "MUSEUM")
    letter = torch.bucketize(points[:, 0].contiguous(), torch.linspace(points[:, 0].min(), points[:, 0].max(), 7)[1:-1])
    _, layout = laid_out(atlas, ("", "MUSEUM", ""), 500)
    every = torch.ones(500, dtype=torch.bool)
    dice = Dice(500, torch.Generator().manual_seed(4))
    warp = random_warp(*layout.size, dice, arched=every, spare=layout.spare)
    assert (warp.bend != 0).all() and 2.5 < warp.bend.abs().max() <= 3.2
    assert 0.25 < (warp.bend < 0).float().mean() < 0.42
    for row in range(500):
        shown = seen(warp, row, points)
        assert min(shown[letter == k].float().mean() for k in range(6)) > 0.85


def test_a_line_on_the_hollow_side_is_small_and_touches_no_letter(atlas: Atlas):
    glyphs, layout = laid_out(atlas, ("EST", "MUSEUM", "OF ART"), 64)
    dice = Dice(64, torch.Generator().manual_seed(2))
    warp = random_warp(*layout.size, dice, arched=torch.ones(64, dtype=torch.bool))
    u, v = text_points(warp, 64, 256)
    filled_layout, across, down, filled = fill_arcs(dice, layout, warp, u, v)
    assert filled.sum() == 3  # of those bent far enough, the stated share
    width, height = (side[:, None, None] for side in layout.size)
    towards = v * warp.bend.sign()[:, None, None]
    moved = (across != u) | (down != v)
    assert moved[filled].any() and not moved[~filled].any() and (towards > height / 2)[moved].all()
    field = glyphs.field(filled_layout, across, down) > 0
    alone = glyphs.field(layout._replace(splits=torch.tensor([[-1e6, 1e6]]).expand(64, 2)), u, v) > 0
    word = (v.abs() < height / 2) & (u.abs() < width / 2)
    assert (field == alone)[word].all()
    strong = warp.bend.abs() > 0.8
    assert not (field & ~word & ~moved)[strong].any()
    for row in filled.nonzero()[:, 0]:
        line = field[row] & ~word[row]
        y, x = (torch.nonzero(line).T + 0.5) / torch.tensor([[64], [256]])
        points = warp.to_plane[row] @ torch.stack((x, y, torch.ones_like(x)))
        y = points[1] / points[2]
        assert line.sum() > 20 and (y.max() - y.min()) / height[row] < 0.7


def test_frames_leave_the_place_of_the_letters_as_it_is(atlas: Atlas):
    for text in ("MUSEUM", "R"):
        _, layout = laid_out(atlas, ("", text, ""), 400)
        dice = Dice(400, torch.Generator().manual_seed(2))
        warp = random_warp(*layout.size, dice, arched=torch.arange(400) % 2 == 0)
        frames = choose(dice, layout, warp, *text_points(warp, 32, 128), torch.zeros(400, dtype=torch.bool))
        count = len(frames.rows)
        assert count == 40
        ground = torch.full((count, 3, 32, 128), 100.0)
        painted = (frame(Dice(count, dice.generator), ground, torch.zeros(count, 3), frames) - ground).abs().amax(1) > 3
        inner = (frames.v.abs() < 0.4 * frames.height[:, None, None]) & (
            frames.u.abs() < 0.4 * frames.width[:, None, None]
        )
        assert (painted & inner).float().sum() < 0.01 * inner.sum()
        assert painted.flatten(1).any(1).float().mean() > 0.5
