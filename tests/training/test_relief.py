"""Letters in relief."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from clip4str.training.drawing import compose
from clip4str.training.drawing import renderer as module
from clip4str.training.drawing.atlas import Atlas
from clip4str.training.drawing.order import SIDE, encode
from clip4str.training.drawing.renderer import Renderer


def test_embossed_letters_have_the_grounds_colour(atlas: Atlas, monkeypatch: pytest.MonkeyPatch):
    """Strokes differ far less from what surrounds them; their edges are as sharp as ever."""
    renderer = Renderer(atlas, ["hotel"])
    codes = torch.from_numpy(encode([("", "\0" * SIDE + "HOTEL", "")] * 200))
    faces = torch.zeros(200, dtype=torch.int64)
    kept: dict[str, Tensor] = {}
    field = renderer.glyphs.field
    monkeypatch.setattr(renderer.glyphs, "field", lambda *where: kept.setdefault("field", field(*where)))
    monkeypatch.setattr(module, "light", lambda _, scene: kept.setdefault("scene", scene))
    seen = []
    for share in (0.0, 1.0):
        monkeypatch.setattr(compose, "RELIEF", share)
        monkeypatch.setattr(compose, "EMBOSSED", share)
        renderer.generator.manual_seed(3)
        kept.clear()
        renderer.shot(codes, faces, 1)
        grey, distance = kept["scene"].mean(1), kept["field"]
        parts = [(distance > 1.5), (distance < -3) & (distance > -7), (distance > -0.5) & (distance < 1.5)]
        inside, around, edge = (
            [grey[row][part[row]] for row in range(200)] for part in parts
        )  # fmt: skip
        apart = torch.stack([(a.mean() - b.mean()).abs() for a, b in zip(inside, around)])
        seen.append((float(apart.median()), float(torch.stack([part.std() for part in edge]).median())))
    assert seen[1][0] < 0.5 * seen[0][0] and seen[1][1] > 0.8 * seen[0][1]
