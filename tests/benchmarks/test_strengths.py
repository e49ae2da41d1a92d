"""strengths.py: every kind of text and every change is what its name says; the report over a recogniser's answers."""

import json
import random
import re
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from clip4str.benchmarks.strengths import main, measure, picture
from clip4str.core.errors import UsageError
from clip4str.training.drawing import difficult_words as difficult
from clip4str.training.words import WordSampler

RULES = {
    "small letters": "[a-z]+", "CAPITALS": "[A-Z]+", "digits": r"\d{2,7}", "random letters": "[a-z]{3,10}",
    "one character": "[0-9a-zA-Z]", "11 to 15 letters": "[a-z]{11,15}", "16 to 25 letters": "[a-z]{16,25}",
    "any of 94 characters": "[!-~]{3,8}", "Capitalised": "[A-Z][a-z]+",
}  # fmt: skip


def bar(wide=200, high=64):
    """A dark line along the middle of light paper."""
    pixels = np.full((high, wide, 3), 220, np.uint8)
    pixels[high // 2 - 2 : high // 2 + 2] = 20
    return pixels


def rng(seed=0):
    return np.random.default_rng(seed)


def test_kinds_of_text():
    kinds = difficult.texts(WordSampler(["stop", "exit", "garden", "coffee", "at"], random.Random(0)))
    for name, rule in RULES.items():
        for _ in range(200):
            assert re.fullmatch(rule, kinds[name]()), name
    assert any(c in "!?'.,-&\"()*:;/@#" for _ in range(20) for c in kinds["punctuation"]())


@pytest.mark.parametrize("seed", range(4))
def test_a_curve_is_an_arc_of_as_many_degrees(seed):
    """The middle line lies on a circle, whose arc is as long as the line was and of 100 to 160 degrees."""
    pixels = difficult.curved(100, 160)(bar(400), rng(seed))
    y, x = np.nonzero(pixels[:, :, 0] < 100)
    # x^2 + y^2 + ax + by + c = 0, least squares
    a, b, c = np.linalg.lstsq(np.stack([x, y, np.ones_like(x)], 1).astype(float), -(x**2.0 + y**2.0), rcond=None)[0]
    centre, radius = np.array([-a / 2, -b / 2]), np.sqrt(a * a / 4 + b * b / 4 - c)
    away = np.hypot(x - centre[0], y - centre[1])
    assert np.abs(away - radius).max() < 4
    angles = np.unwrap(np.sort(np.arctan2(np.abs(y - centre[1]), x - centre[0])))
    assert 100 <= np.degrees(angles[-1] - angles[0]) <= 162
    assert (angles[-1] - angles[0]) * radius == pytest.approx(400, rel=0.04)


def test_other_changes():
    line = bar()
    assert difficult.turned(90, 90)(line, rng()).shape[:2] == (200, 64)
    np.testing.assert_array_equal(difficult.turned(180, 180)(line, rng()), line)
    assert difficult.smaller(10)(line, rng()).shape == (10, 31, 3)
    faint = difficult.faint(0.1)(line, rng()).astype(int)
    assert np.ptp(faint) == 20 and faint.max() == 220
    assert 15 < difficult.noisy(20)(np.full((64, 200, 3), 128, np.uint8), rng()).std() < 25
    soft = difficult.blurred(4)(line, rng())
    assert soft.min() > 60 and abs(soft.mean() - line.mean()) < 3
    thick = line.copy()
    thick[16:48] = 20
    dark = (difficult.slanted(0.5)(thick, rng())[:, :, 0] < 120).sum(0)
    assert 0.45 < min(dark[0], dark[-1]) / max(dark[0], dark[-1]) < 0.6 and max(dark[0], dark[-1]) >= 31
    np.testing.assert_array_equal(difficult.CHANGES["light on dark"](line, rng()), 255 - line)
    for name, change in difficult.CHANGES.items():
        changed = change(line, rng(1))
        assert changed.dtype == np.uint8 and changed.ndim == 3 and np.ptp(changed) > 0, name


def test_figures_and_sheet():
    """One of four exact, one right but for its case, one wrong, one empty."""
    rows = {"kind": [(bar(), text) for text in ("Stop", "exit", "7", "bar")]}
    answers = ["Stop", "EXIT", "1", ""]
    reader = SimpleNamespace(read=lambda pictures: [SimpleNamespace(text=a, confidence=0.5) for a in answers])
    (row,) = report = measure(reader, rows)
    assert (row["exact"]["percent"], row["plain"]["percent"]) == (25.0, 50.0)
    sheet = np.asarray(picture(report, rows))
    for colour in ((0x1A, 0x7F, 0x37), (0x9A, 0x67, 0x00), (0xC0, 0x26, 0x2D)):
        assert (np.abs(sheet.astype(int) - colour).sum(2) < 60).sum() > 10


def test_the_command(atlas_file, tiny_bundle, tmp_path, capsys):
    (tmp_path / "words.txt").write_text("stop\nexit\ngarden\ncoffee\n")
    command = ["--atlas", str(atlas_file), "--bundle", str(tiny_bundle), "--words", str(tmp_path / "words.txt"),
               "--count", "2", "--json", str(tmp_path / "s.json"), "--picture", str(tmp_path / "s.png")]  # fmt: skip
    assert main(command) == 0
    first = json.loads((tmp_path / "s.json").read_text())
    assert [kind["name"] for kind in first["kinds"]][-1] == "light on dark"
    assert all(kind["plain"]["words"] == 2 for kind in first["kinds"])
    assert "| digits  " in capsys.readouterr().out
    assert Image.open(tmp_path / "s.png").size[1] > 80 * len(first["kinds"])
    assert not list(tmp_path.glob(".*"))
    with pytest.raises(UsageError, match="--count is 1 or more"):
        main([*command, "--count", "0"])


def test_what_is_drawn_says_what_it_should(atlas_file):
    """The same seed draws the same; a longer text is wider; the ink is there, and paper around it."""
    pen = difficult.Pen(atlas_file)
    short, long, again = (pen(text, rng(3)) for text in ("in", "inside", "in"))
    np.testing.assert_array_equal(short, again)
    assert long.shape[1] > 2 * short.shape[1] and short.shape[0] == long.shape[0] == difficult.HIGH
    for pixels in (short, long):
        assert pixels[0].min() > 200 and pixels[:, 0].min() > 200 and pixels.min() < 80
    assert pen("x" * 40, rng()) is None
