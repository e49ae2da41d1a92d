"""The glyph atlas: distances, a table that is what Pillow measures, a checked file; the command that makes it."""

from __future__ import annotations

import json
import lzma
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import ImageFont
from safetensors.numpy import load_file, save_file

from clip4str.core import cli
from clip4str.core.errors import DataError
from clip4str.training import atlas_command, fonts
from clip4str.training.drawing import atlas_build
from clip4str.training.drawing.atlas import CAP, PAD, SPACE, SPREAD, STEP, Atlas, load_atlas
from clip4str.training.fonts import Font, Survey
from clip4str.training.vocabulary import CHARSET


def test_distances_are_euclidean():
    ink = np.zeros((96, 96), bool)
    ink[:, :40] = True  # up to 5 blocks
    field = atlas_build.distances(ink)
    np.testing.assert_allclose(field[6], np.clip(4.5 - np.arange(12), -SPREAD, SPREAD), atol=0.1)
    disc = np.hypot(*(np.mgrid[:160, :160] - 79.5)) < 40
    field = atlas_build.distances(disc)
    expected = 5 - np.hypot(*(np.mgrid[:20, :20] - 9.5))
    near = np.abs(expected) < SPREAD - 0.5
    np.testing.assert_allclose(field[near], expected[near], atol=0.13)


def test_glyph_table(atlas: Atlas, font: Font):
    assert atlas.drawable[0].all() and (~atlas.drawable[1]).sum() == 2
    size = 200 * CAP / -ImageFont.truetype(font.path, 200).getbbox("H", anchor="ls")[1]
    face = ImageFont.truetype(font.path, size)
    for char in "AgW.":
        width, height, left, top, advance = atlas.glyphs[0, CHARSET.index(char)]
        x0, y0, x1, y1 = face.getbbox(char, anchor="ls")
        assert advance / STEP == pytest.approx(face.getlength(char), abs=0.5)
        assert left + PAD == pytest.approx(x0, abs=1.6) and top + PAD == pytest.approx(y0, abs=1.6)
        assert width - 2 * PAD == pytest.approx(x1 - x0, abs=2.1)
        assert height - 2 * PAD == pytest.approx(y1 - y0, abs=2.1)
        tile = atlas.tile(0, CHARSET.index(char))
        assert tile[0].max() < 64 < tile.max() and tile[:, 0].max() < 64
    assert not atlas.glyphs[0, SPACE, :4].any() and atlas.glyphs[0, SPACE, 4] > 0


def test_file_round_trip(atlas: Atlas, atlas_file: Path):
    loaded = load_atlas(atlas_file)
    assert loaded.faces == atlas.faces
    for name in ("glyphs", "kerning", "texels", "offsets"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(atlas, name))


def _with(file: Path, target: Path, metadata: dict | None = None, **tensors: np.ndarray) -> Path:
    content = load_file(file) | tensors
    faces = json.dumps([vars(face) for face in load_atlas(file).faces])
    save_file(content, target, {"format": "clip4str-atlas-1", "faces": faces} | (metadata or {}))
    return target


def _packed(data: bytes) -> np.ndarray:
    return np.frombuffer(lzma.compress(data), np.uint8)


FACE = {"name": "a", "family": "a", "licence": "free", "unicase": False, "legibility": 1.0, "weight": 0.4}


def _shaped(target: Path, shape: list[int]) -> None:
    """No texel, in a shape of that many."""
    entry = {"dtype": "U8", "shape": shape, "data_offsets": [0, 0]}
    said = {"format": "clip4str-atlas-1", "faces": json.dumps([FACE])}
    head = json.dumps({"__metadata__": said, "glyphs": entry, "kerning": entry, "texels": entry}).encode()
    target.write_bytes(len(head).to_bytes(8, "little") + head)


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda f, t: t.write_bytes(f.read_bytes()[:-100]), "not a usable atlas"),
        (lambda f, t: t.write_bytes(b"no atlas"), "not a usable atlas"),
        (lambda f, t: _with(f, t, {"format": "other"}), "format is 'other'"),
        (lambda f, t: _with(f, t, {"faces": "["}), "not a usable atlas"),
        (lambda f, t: _with(f, t, {"faces": '[{"nom": 1}]'}), "not a usable atlas"),
        (lambda f, t: _with(f, t, {"faces": "[" * 100_000}), "not a usable atlas"),
        (lambda f, t: _with(f, t, {"faces": '{"a": 1}'}), "not a usable atlas"),
        (lambda f, t: _with(f, t, {"faces": json.dumps([FACE] * 9000)}), "9000 faces"),
        (lambda f, t: _with(f, t, {"faces": json.dumps([FACE | {"name": ["x"]}] * 2)}), "another type"),
        (lambda f, t: _with(f, t, {"faces": json.dumps([FACE | {"weight": float("nan")}] * 2)}), "another type"),
        (lambda f, t: _with(f, t, {"faces": json.dumps([FACE | {"weight": 10**400}] * 2)}), "another type"),
        (lambda f, t: _shaped(t, [0, 10**18, 8, 4]), "not a usable atlas"),
        (lambda f, t: _with(f, t, texels=np.zeros(50, np.uint8)), "not a usable atlas"),
        (lambda f, t: _with(f, t, texels=_packed(bytes(10))), "a table of 10 bytes"),
        (lambda f, t: _with(f, t, texels=_packed(bytes(10**7))), "a table of"),
        (lambda f, t: _with(f, t, glyphs=np.zeros((2, 95, 5), np.int16)), "tiles of 0 texels"),
        (lambda f, t: _with(f, t, glyphs=np.full((2, 95, 5), 30000, np.int16)), "tiles of"),
        (lambda f, t: _with(f, t, glyphs=np.full((2, 95, 5), -5, np.int16)), "one of -5"),
        (lambda f, t: None, "no such atlas"),
    ],
)
def test_damaged_atlas_is_one_line(atlas_file: Path, tmp_path: Path, damage, message):
    target = tmp_path / "bad.safetensors"
    damage(atlas_file, target)
    with pytest.raises(DataError, match=message) as caught:
        load_atlas(target)
    assert len(str(caught.value).splitlines()) == 1 and "clip4str atlas" in str(caught.value)


def test_faces_are_chosen_over_the_weights_of_a_family(font: Font):
    family = [replace(font, path=f"{i}.ttf", weight=0.1 + i / 20) for i in range(9)]
    others = [replace(font, path=f"x{i}.ttf", family=f"x{i}") for i in range(3)]
    chosen = atlas_build.choose_faces([*family, *others], 100, 3)
    assert [f.path for f in chosen] == ["0.ttf", "4.ttf", "8.ttf", "x0.ttf", "x1.ttf", "x2.ttf"]
    assert len(atlas_build.choose_faces([*family, *others], 2, 3)) == 2


def test_the_command_says_how_many_fonts_it_uses_and_why_not_all(
    few: list[Font], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    found = Survey(
        (*few[:3], replace(few[0], path=few[0].path)), (("lack letters or digits", 60), ("cannot be opened", 2))
    )
    monkeypatch.setattr(fonts, "survey", lambda *_: found)
    monkeypatch.setattr(atlas_command, "survey", lambda *_: found)
    monkeypatch.setattr(atlas_build, "SAID", 0.0)
    out = tmp_path / "atlas.safetensors"
    assert cli.main(["atlas", "--output", str(out), "--per-family", "4", "--faces", "3"]) == 0
    used = len(load_atlas(out))
    said, progress = capsys.readouterr()
    copies = said.count("are copies of another face")
    assert said.startswith(f"66 font files: {used} faces of 1 families used; left out: 60 lack letters or digits, ")
    assert "2 cannot be opened" in said and "1 are beyond the 3 most useful" in said and used + copies == 3
    assert "faces: 1 of 3" in progress.splitlines()
    assert cli.main(["atlas", "--output", str(out)]) == 2
    assert "--force" in capsys.readouterr().err
    assert cli.main(["atlas", "--output", str(tmp_path / "x.safetensors"), "--fonts", str(tmp_path / "none")]) == 2
    assert "none: not a folder" in capsys.readouterr().err
