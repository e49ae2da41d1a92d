"""textless.py: what counts as read, the figures, the sheet, the kinds that training does not have."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from clip4str.benchmarks.textless import FalseReading, main, measure, report, sheet
from clip4str.core.errors import UsageError
from clip4str.training.textless import unseen
from clip4str.training.textless.crops import MADE, SHARES, Crop, measuring_crops
from clip4str.training.textless.photos import SAME, Photos
from clip4str.training.textless.unlabelled_text import news


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Fifteen photos, each of a shade of its own, without a word."""
    folder = tmp_path_factory.mktemp("photos")
    for k in range(15):
        Image.new("RGB", (200, 120), (10 * k, 0, 90)).save(folder / f"img_{k}.png")
        (folder / f"img_{k}.txt").write_text("")
    return folder


def test_read_and_surely_read_are_counted_by_kind():
    answers = {0: ("", 0.9), 1: ("a", 0.4), 2: ("SALE", 0.8), 3: ("", 0.1)}
    crops = [Crop("blank" if k < 3 else "photo", Image.new("RGB", (8, 8), (k, 0, 0))) for k in range(4)]

    def read(pictures):
        said = [answers[picture.getpixel((0, 0))[0]] for picture in pictures]
        return [SimpleNamespace(text=text, confidence=confidence) for text, confidence in said]

    seen, false = measure(SimpleNamespace(batch_size=3, read=read), iter(crops), 4)
    assert [(f.text, f.kind) for f in false] == [("SALE", "blank"), ("a", "blank")]
    rows = {row["kind"]: row for row in report(seen)}
    assert (rows["blank"]["read"]["count"], rows["blank"]["surely_read"]["count"], rows["blank"]["crops"]) == (2, 1, 3)
    assert rows["photo"]["read"]["percent"] == 0 and rows["photo"]["read"]["high"] > 70  # of one crop little is known
    assert rows["all"]["read"]["percent"] == 50 and rows["all"]["surely_read"]["percent"] == 25


def test_half_of_the_crops_are_pieces_of_all_photos_alike(photos):
    shots = Photos(photos, measured=True)
    crops = list(measuring_crops(shots, 200, {"blank": MADE["blank"], "noise": MADE["noise"]}))
    kinds = [crop.kind for crop in crops]
    assert (kinds.count("photo"), kinds.count("blank"), kinds.count("noise")) == (100, 50, 50)
    shades = [crop.picture.getpixel((0, 0))[0] for crop in crops[:100]]
    counts = [shades.count(shade) for shade in set(shades)]
    assert len(counts) == len(shots) and max(counts) - min(counts) <= 1 and max(counts) <= SAME
    assert [c.kind for c in measuring_crops(None, 10, {"blank": MADE["blank"]})] == ["blank"] * 10


@pytest.mark.parametrize("maker", [
    unseen.halftone, unseen.zigzag, unseen.weave, unseen.maze,
    unseen.rings, unseen.moire, unseen.chart, unseen.bubbles,
    unseen.branches, unseen.lights, unseen.confetti,
])  # fmt: skip
def test_unseen_kinds_are_pictures_that_vary(maker):
    drawn = [maker(np.random.default_rng(k), (30, 80)) for k in range(25)]
    assert all(p.shape == (30, 80, 3) and p.dtype == np.uint8 for p in drawn)
    assert len({p.tobytes() for p in drawn}) == 25
    assert np.median([np.ptp(p.astype(int).mean(2)) for p in drawn]) > 25


def test_the_sheet_shows_what_was_read():
    false = [FalseReading("blank", "SALE", 0.9, Image.new("RGB", (300, 20), (0, 200, 0)))] * 9
    pixels = np.asarray(sheet(false, across=8)).astype(int)
    assert pixels.shape == (168, 1200, 3)
    assert ((pixels == (0, 200, 0)).all(2).sum(1) > 100).any()
    assert (np.abs(pixels - (0xC0, 0x26, 0x2D)).sum(2) < 60).sum() > 50
    assert sheet([]).size[1] == 84


def test_news_is_text_that_no_labelled_word_covers():
    words = np.array([[0, 0, 100, 20], [200, 0, 300, 20]], float)
    inside, beside, half, across = (5, 2, 90, 18), (110, 0, 190, 20), (60, 0, 140, 20), (0, 0, 300, 20)
    assert news([inside, beside, half, across], words) == [beside, across]  # a line over both is more than either
    assert news([beside], np.empty((0, 4))) == [beside]


def test_the_command(tiny_bundle, photos, tmp_path, capsys):
    command = ["--photos", str(photos), "--bundle", str(tiny_bundle), "--count", "120", "--threads", "1",
               "--json", str(tmp_path / "t.json"), "--picture", str(tmp_path / "t.png")]  # fmt: skip
    assert main(command) == 0
    written = json.loads((tmp_path / "t.json").read_text())
    kinds = {row["kind"]: row for row in written["kinds"]}
    assert kinds["all"]["crops"] == 120 and kinds["photo"]["crops"] == 60
    assert {"blank", "pattern, unseen", "figure, unseen"} <= set(kinds) and "photo" in SHARES
    for row in kinds.values():
        assert row["surely_read"]["count"] <= row["read"]["count"] <= row["crops"]
    assert "| all " in capsys.readouterr().out and Image.open(tmp_path / "t.png").size[0] == 1200
    with pytest.raises(UsageError, match="--count is 100 or more"):
        main([*command, "--count", "9"])
