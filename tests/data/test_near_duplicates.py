"""near_duplicates.py on words drawn here: every altered copy is found, and no other word is taken for one."""

from __future__ import annotations

import hashlib
import io
import json
import tracemalloc
from functools import partial

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from clip4str.core.console import run_script
from clip4str.data import duplicate_search, likeness
from clip4str.data.duplicate_search import Side
from clip4str.data.near_duplicates import PROGRAM, contact_sheet, main

run = partial(run_script, PROGRAM, main)

TEST_WORDS = ("Bridge", "MARKET", "coffee", "Station", "OFFICE", "garden", "Police", "CINEMA", "street", "Hotel")
TRAIN_WORDS = (
    "Bright",
    "MUSEUM",
    "custom",
    "Nations",
    "NOTICE",
    "harbor",
    "School",
    "CANADA",
    "sheets",
    "House",
    "70%",
)


def draw(word: str, seed: int = 0) -> Image.Image:
    """The word on a shaded, slightly noisy ground; one font and size for all."""
    font = ImageFont.load_default(40)
    left, top, right, bottom = (int(v) for v in font.getbbox(word))
    image = Image.new("RGB", (right - left + 24, bottom - top + 24), (205, 190, 160))
    ImageDraw.Draw(image).text((12 - left, 12 - top), word, fill=(40, 30, 110), font=font)
    pixels = np.asarray(image, np.float32) + np.random.default_rng(seed).normal(0, 4, (image.height, image.width, 1))
    return Image.fromarray(np.clip(pixels - np.linspace(0, 30, image.width)[:, None], 0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str = "JPEG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def trimmed(image: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    """Without these shares of its sides."""
    width, height = image.size
    return image.crop(
        (round(left * width), round(top * height), round((1 - right) * width), round((1 - bottom) * height))
    )


def toned(image: Image.Image, gain: float, offset: float) -> Image.Image:
    return Image.fromarray(np.clip(np.asarray(image) * gain + offset, 0, 255).astype(np.uint8))


ALTERED = {
    "png of the same pixels": lambda image: encoded(image, "PNG"),
    "jpeg": lambda image: encoded(image, quality=35),
    "half the size": lambda image: encoded(image.resize((image.width // 2, image.height // 2)), quality=90),
    "darker": lambda image: encoded(toned(image, 0.5, 0)),
    "brighter": lambda image: encoded(toned(image, 1, 40)),
    "less contrast": lambda image: encoded(toned(image, 0.4, 90)),
    "grey": lambda image: encoded(image.convert("L")),
    "cropped by 3 %": lambda image: encoded(trimmed(image, 0.03, 0.03, 0.03, 0.03)),
    "cropped on one side": lambda image: encoded(trimmed(image, 0.02, 0, 0.09, 0.17)),
    "shifted": lambda image: encoded(Image.fromarray(np.roll(np.asarray(image), (2, -4), (0, 1)))),
    "all at once": lambda image: encoded(
        toned(trimmed(image, 0.04, 0.05, 0.01, 0).resize((90, 30)), 0.6, 10), quality=60
    ),
}


@pytest.fixture
def search(tmp_path, write_lmdb):
    """search(train, test, *options) -> exit code, report; both lists of (encoded picture, label)."""
    made = iter(range(100))

    def compare(train, test, *options):
        folder = tmp_path / f"case{next(made)}"
        write_lmdb(folder / "training" / "words", train)
        write_lmdb(folder / "held", test)
        report = folder / "report.json"
        sides = ["--train", str(folder / "training"), "--test", str(folder / "held")]
        code = run([*sides, "--quiet", "--copies", "0", "--output", str(report), *options])
        return code, json.loads(report.read_text())

    return compare


@pytest.fixture(scope="module")
def tests():
    """One picture for every way of altering one."""
    words = (*TEST_WORDS, "Theatre")
    assert len(words) == len(ALTERED)
    return [(encoded(draw(word), quality=92), word) for word in words]


def test_altered_copies_are_found_and_nothing_else(search, tests, capsys):
    train = [(encoded(draw(word, 1)), word) for word in TRAIN_WORDS]
    for (data, word), alter in zip(tests, ALTERED.values()):
        train.append((alter(Image.open(io.BytesIO(data)).convert("RGB")), word.upper()))
    code, report = search([*train, tests[0]], tests)
    assert code == 1
    found = {(pair["train"]["row"], pair["test"]["row"]): pair for pair in report["found"]["pairs"]}
    expected = {(len(TRAIN_WORDS) + row, row): kind for row, kind in enumerate(ALTERED, 1)}
    missed = {kind for rows, kind in expected.items() if rows not in found}
    assert not missed
    assert found.keys() == expected.keys() | {(len(train) + 1, 1)}
    assert found[len(train) + 1, 1]["kind"] == "bytes"
    assert found[len(TRAIN_WORDS) + 1, 1]["kind"] == "pixels"
    assert (report["found"]["bytes"], report["found"]["pixels"], report["found"]["near"]) == (1, 1, len(ALTERED) - 1)
    assert report["found"]["with_other_label"] == 0 and found[len(TRAIN_WORDS) + 1, 1]["same_label"]
    last = capsys.readouterr().out.splitlines()[-1]
    assert (
        last
        == f"found: {len(tests)} test pictures have {len(tests) + 1} copies or near-duplicates in the training data"
    )


def test_other_words_are_not_found(search, tests, capsys):
    code, report = search([(encoded(draw(word)), word) for word in TRAIN_WORDS], tests, "--threshold", "0.9")
    assert code == 0 and report["found"]["pairs"] == [] and report["stretched"] == []
    assert report["other_labels"]["pairs"] == len(TRAIN_WORDS) * len(tests)
    assert report["other_labels"]["at_threshold"] == 0 and report["other_labels"]["highest"] < 0.9
    assert capsys.readouterr().out.splitlines()[-1].startswith("nothing found: no test picture has a copy")


def test_a_copy_under_another_label_is_shown_as_that(search, tests):
    copy = ALTERED["darker"](draw("garden"))
    code, report = search([(copy, "wrong")], [(encoded(draw("garden")), "garden")])
    (pair,) = report["found"]["pairs"]
    assert (
        code == 1 and not pair["same_label"] and (pair["train"]["label"], pair["test"]["label"]) == ("wrong", "garden")
    )
    assert report["found"]["with_other_label"] == report["other_labels"]["at_threshold"] == 1
    assert report["other_labels"]["highest"] >= 0.95


def test_another_shape_is_listed_not_counted(search):
    image = draw("garden")
    squeezed = encoded(image.resize((image.width // 2, image.height)))
    code, report = search([(squeezed, "garden")], [(encoded(image), "garden")])
    assert code == 0 and [pair["kind"] for pair in report["stretched"]] == ["stretched"]
    assert search([(squeezed, "garden")], [(encoded(image), "garden")], "--stretch", "2.5")[0] == 1


def test_unreadable_and_blank_pictures(search, tmp_path, capsys):
    blank = [encoded(Image.new("RGB", (60, 20), colour), "PNG") for colour in ("white", "navy")]
    train = [(b"no picture", "a"), (blank[0], "b"), (encoded(draw("Hotel"))[:300], "c")]
    code, report = search(train, [(blank[1], "b"), (b"not one either", "d")])
    assert code == 0 and report["train"] == {"words": {"pictures": 3, "unreadable": 2}}
    assert report["test"] == {"held": {"pictures": 2, "unreadable": 1}} and report["same_labels"]["pairs"] == 1
    assert "2 unreadable" in capsys.readouterr().out
    picture = tmp_path / "pairs.png"
    code, report = search(train, train[:1], "--picture", str(picture))
    (pair,) = report["found"]["pairs"]
    assert code == 1 and pair["kind"] == "bytes" and pair["likeness"] is None
    assert Image.open(picture).format == "PNG"


def test_picture_and_exclusions(search, tests, tmp_path):
    picture, exclusions = tmp_path / "pairs.png", tmp_path / "leave-out.tsv"
    copy = ALTERED["brighter"](draw("garden"))
    train = [(encoded(draw("School")), "School"), (copy, "garden"), (copy, "garden")]
    test = [(encoded(draw("garden")), "garden")] * 2
    code, report = search(train, test, "--picture", str(picture), "--write-exclusions", str(exclusions))
    digest = hashlib.sha256(copy).hexdigest()
    assert exclusions.read_text() == f"set\trow\tsha256\nwords\t2\t{digest}\nwords\t3\t{digest}\n"
    assert code == 1 and report["found"]["near"] == 4
    pixels = np.asarray(Image.open(picture).convert("RGB"))
    left, right = pixels[4:106, 4:300], pixels[4:106, 304:600]
    assert left.std() > 20 and right.std() > 20 and left.mean() > right.mean()  # the copy is the brighter one


def test_the_report_holds_no_path(search, tests, tmp_path, write_lmdb):
    train = [write_lmdb(tmp_path / root / "words", tests[:1]) for root in ("one", "two")]
    report = tmp_path / "report.json"
    options = ["--train", *(str(folder.parent) for folder in train), str(train[0]), "--test", str(train[1]), "--quiet"]
    assert run([*options, "--output", str(report), "--copies", "1"]) == 1
    values = json.loads(report.read_text())
    assert list(values["train"]) == ["words", "words (2)"] and list(values["test"]) == ["words"]
    assert str(tmp_path) not in report.read_text() and "one" not in values["train"]
    assert values["altered_copies"]["pictures"] == 1
    assert values["altered_copies"]["copies"] == len(likeness.ALTERATIONS) == len(values["altered_copies"]["by_kind"])


def test_altered_copies_are_counted_at_the_threshold(search, tests):
    default, strict = (
        search(tests, tests, "--copies", "5", *more)[1]["altered_copies"] for more in ((), ("--threshold", "1"))
    )
    assert default["copies"] == strict["copies"] == 5 * len(likeness.ALTERATIONS)
    assert default["missed"] <= 1 and strict["missed"] > 0.9 * strict["copies"]
    assert sum(default["copies_by_likeness"].values()) == default["copies"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--threshold", "0.5"), "--threshold lies within"),
        (("--threshold", "nan"), "--threshold lies within"),
        (("--stretch", "0.9"), "--stretch is a factor"),
        (("--pairs", "0"), "--pairs is 1 to"),
        (("--copies", "-1"), "--copies is 0 or more"),
        (("--picture", "pairs.jpg"), "must end in"),
        (("--output", "nowhere/at/all.json"), "its folder does not exist"),
        (("--frobnicate",), "unrecognized"),
    ],
)
def test_bad_options(tmp_path, write_lmdb, tests, capsys, options, says):
    folder = str(write_lmdb(tmp_path / "words", tests[:1]))
    assert run(["--train", folder, "--test", folder, *options]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1


def test_bad_folders(tmp_path, write_lmdb, tests, capsys):
    good = str(write_lmdb(tmp_path / "good", tests[:1]))
    cut = str(write_lmdb(tmp_path / "cut", tests[:3], without=("image-000000002",)))
    (tmp_path / "empty").mkdir()
    for train, says in ((tmp_path / "none", "does not exist"), (tmp_path / "empty", "no LMDB"), (cut, "has no image-")):
        assert run(["--train", str(train), "--test", good, "--quiet"]) == 2
        error = capsys.readouterr().err
        assert says in error and error.count("\n") == 1


def test_blocks_change_nothing(search, tests, monkeypatch):
    train = [*tests[3:], *((encoded(draw(word)), word) for word in TRAIN_WORDS[:6])]
    train.append((ALTERED["darker"](draw("Bridge")), "Bridge"))
    whole = search(train, tests, "--threshold", "0.8")
    monkeypatch.setattr(duplicate_search, "BLOCK", 3)
    for name in ("_TESTS", "_TRAINS", "_PAIRS"):
        monkeypatch.setattr(likeness, name, 2)
    assert search(train, tests, "--threshold", "0.8") == whole


def test_a_block_is_all_that_is_in_memory(tmp_path, write_lmdb, tests, monkeypatch):
    side = Side([write_lmdb(tmp_path / "words", tests)])
    assert [len(block.places) for block in side.blocks(4)] == [4, 4, 3]
    for name in ("_TESTS", "_TRAINS", "_PAIRS"):
        monkeypatch.setattr(likeness, name, 16)
    noise = np.random.default_rng(0).integers(0, 256, (256, *likeness.THUMBNAIL), np.uint8)

    def peak(count: int) -> int:
        tracemalloc.start()
        list(likeness.similar(noise[:16], noise[16 : 16 + count]))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    assert peak(240) < 1.5 * peak(32)


def test_a_fit_says_what_was_trimmed():
    image = draw("Theatre")
    whole, part = likeness.thumbnail(image)[None], likeness.thumbnail(trimmed(image, 0.1, 0, 0, 0.15))[None]
    for one, other, sign in ((whole, part, 1), (part, whole, -1)):
        values, fits = likeness.likeness(one, other)
        assert values[0] > 0.95
        assert np.abs(sign * fits[0] - (10, 0, 0, 15)).max() <= 2
    shapes = image.width / image.height, image.width * 0.9 / (image.height * 0.85)
    assert likeness.fitted_stretch((10, 0, 0, 15), *shapes) == pytest.approx(1)
    assert likeness.fitted_stretch((-10, 0, 0, -15), *reversed(shapes)) == pytest.approx(1)
    assert likeness.fitted_stretch((0, 0, 0, 0), 2, 1) == likeness.fitted_stretch((0, 0, 0, 0), 1, 2) == 2


def test_an_empty_sheet_is_a_picture(tmp_path, write_lmdb):
    side = Side([write_lmdb(tmp_path / "words", [])])
    assert min(contact_sheet([], side, side).size) > 0
    assert run(["--train", str(tmp_path), "--test", str(tmp_path), "--quiet"]) == 0


def test_with_same_label_only_copies_under_their_own_word_are_found(search):
    pictures = {word: draw(word, number) for number, word in enumerate(TEST_WORDS)}
    test = [(encoded(image), word) for word, image in pictures.items()]
    altered = [encoded(toned(pictures[word], 0.6, 20)) for word in ("Bridge", "MARKET")]
    train = [(altered[0], "BRIDGE"), (altered[1], "other"), (encoded(pictures["garden"]), "x")]
    found = {}
    for option in ((), ("--same-label",)):
        code, report = search(train, test, *option)
        assert code == 1
        found[option] = {(pair["train"]["row"], pair["kind"]) for pair in report["found"]["pairs"]}
    assert found[()] == {(1, "near"), (2, "near"), (3, "bytes")}
    assert found[("--same-label",)] == {(1, "near"), (3, "bytes")}
    assert report["other_labels"]["pairs"] == 0 and report["same_labels"]["pairs"] == 1
