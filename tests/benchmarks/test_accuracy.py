"""`clip4str eval` end to end on data sets written here, whose answers the golden file knows."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from PIL import Image, ImageDraw

from clip4str.benchmarks import error_sheet
from clip4str.benchmarks.accuracy import SetResult, combined, main
from clip4str.benchmarks.error_sheet import ACROSS, CELL, GAP, ErrorSheet
from clip4str.core.cli import main as run_command
from clip4str.data.protocol import Protocol, closeness


@pytest.fixture
def data(tmp_path, write_lmdb, golden):
    """SVT: golden images under their golden words; two wrong labels, one unreadable image."""
    arrays = golden("tiny")
    words = list(zip(arrays["images"], map(str, arrays["text"])))
    words[3] = (words[3][0], "wrong")
    words[5] = (words[5][0], "Wrong Too")
    words.append((b"no image", "lost"))
    words.append((arrays["images"][0], "x" * 26))
    write_lmdb(tmp_path / "data" / "svt", words)
    write_lmdb(tmp_path / "data" / "extra", [(arrays["images"][0], "a"), (arrays["images"][1], "b")])
    return tmp_path / "data", words, [*map(str, arrays["text"]), "", None]


def run(data, bundle, *options):
    return main(["--data", str(data), "--bundle", str(bundle), "--quiet", "--threads", "1", *options])


def test_report(data, tiny_bundle, tmp_path, capsys):
    folder, words, texts = data
    report, errors = tmp_path / "report.json", tmp_path / "errors.tsv"
    assert run(folder, tiny_bundle, "--json", str(report), "--errors", str(errors)) == 0
    printed = capsys.readouterr()
    assert "skipped: IIIT5k, IC13_857" in printed.out and "CUTE80" in printed.out
    assert "SVT: 1 images cannot be read" in printed.err
    values = json.loads(report.read_text())
    assert {
        "sets",
        "combined",
        "mean",
        "skipped",
        "bundle",
        "protocol",
        "decoding",
        "machine",
    } <= values.keys()
    assert [s["dataset"] for s in values["sets"]] == ["SVT", "extra"]
    protocol = Protocol()
    pairs = [(protocol.prediction(t), label) for (_, stored), t in zip(words, texts)
             if (label := protocol.label(stored)) is not None]  # fmt: skip
    svt = values["sets"][0]
    assert svt["num_samples"] == len(pairs) < len(words)
    assert svt["accuracy"] == pytest.approx(100 * sum(p == t for p, t in pairs) / len(pairs), abs=1e-3)
    assert svt["ned"] == pytest.approx(100 * sum(closeness(p, t) for p, t in pairs) / len(pairs), abs=1e-3)
    assert 0 < svt["confidence"] < 100
    assert values["combined"]["accuracy"] == svt["accuracy"]  # over the standard sets alone
    assert values["bundle"]["precision"] == "fp32" and values["machine"]["versions"]["numpy"]
    with errors.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE, escapechar="\\"))
    wrong = [(row["prediction"], row["label"]) for row in rows if row["dataset"] == "SVT"]
    assert wrong == [(p, t) for p, t in pairs if p != t]


def test_mistakes_are_drawn_the_surest_first(data, tiny_bundle, tmp_path, monkeypatch, capsys):
    folder, _, _ = data
    errors, drawn = tmp_path / "errors.tsv", tmp_path / "errors.png"
    assert run(folder, tiny_bundle, "--errors", str(errors), "--error-sheet", str(drawn)) == 0
    with errors.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE, escapechar="\\"))
    whole = np.asarray(Image.open(drawn))
    assert whole.shape[1] == ACROSS * (CELL[0] + GAP) + GAP
    assert whole.shape[0] == 30 + -(-len(rows) // ACROSS) * (CELL[1] + GAP)  # one that cannot be read has a place, too

    colours = [(200, 0, 0), (0, 200, 0), (0, 0, 200), (200, 200, 0)]
    sheet = ErrorSheet(tmp_path / "few.png")
    monkeypatch.setattr(error_sheet, "MOST", 3)
    for number, (confidence, colour) in enumerate(zip((0.2, 0.9, 0.1, 0.5), colours)):
        wrong = {"dataset": "ä\n", "number": number, "label_stored": "W" * 99, "text": "字 x" * 20}
        sheet.add(np.full((20, 60, 3), colour, np.uint8), {**wrong, "confidence": confidence})
    sheet.save()
    pixels = np.asarray(Image.open(tmp_path / "few.png"))
    lefts = [np.argwhere((pixels == colour).all(2))[:, 1].min() for colour in (colours[1], colours[3], colours[0])]
    assert lefts == sorted(lefts) and not (pixels == colours[2]).all(2).any()
    assert (pixels[30:, 3 * (CELL[0] + GAP) + 3 :] == (243, 243, 241)).all()  # nothing runs over into the next cell
    right = pixels[30 + 56 + 7 + 17 : 30 + 56 + 7 + 34, CELL[0] - 20 : CELL[0]]
    assert (right < 200).any()  # how sure it was has room beside a word that is cut


def test_what_does_not_fit_on_the_sheet_is_marked_however_long_it_is(monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr(ImageDraw.ImageDraw, "text", lambda self, at, text, *_, **__: drawn.append(text))
    sheet = ErrorSheet(tmp_path / "a.png")
    fits = {"dataset": "SVT", "number": 7, "label_stored": "HOTEL", "text": "", "confidence": 1.0}
    long = {"dataset": "SVT", "number": 8, "label_stored": "abc" + "汉" * 10**6, "text": "W" * 25, "confidence": 0.5}
    for mistake in (fits, long):
        sheet.add(None, mistake)
    sheet.picture()
    assert drawn[1:5] == ["100%", "HOTEL", "(nothing)", "SVT 7"]
    assert drawn[5] == "50%" and drawn[6].startswith("abc汉") and drawn[6].endswith("汉...") and len(drawn[6]) < 40
    assert drawn[7].startswith("WWW") and drawn[7].endswith("W...") and drawn[8] == "SVT 8"


def test_choosing_limiting_and_cased(data, tiny_bundle, tmp_path, capsys):
    folder, _, _ = data
    report = tmp_path / "report.json"
    options = (
        "--sets",
        "SVT",
        "--limit",
        "3",
        "--cased",
        "--punctuation",
        "--branch",
        "visual",
        "--json",
        str(report),
    )
    assert run(folder, tiny_bundle, *options) == 0
    values = json.loads(report.read_text())
    assert [(s["dataset"], s["num_samples"]) for s in values["sets"]] == [("SVT", 3)]
    assert values["decoding"]["branch"] == "visual" and values["protocol"]["cased"] is True
    assert "not found" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--data", "nowhere"), "nowhere: does not exist"),
        (("--data", "."), "no LMDB data set"),
        (("--data", "data", "--sets", "SVTP"), "no set named SVTP; found: SVT, extra"),
        (("--data", "data", "--limit", "0"), "--limit"),
        (("--data", "data", "--json", "nowhere/a.json"), "its folder does not exist"),
        (("--data", "data", "--json", "data"), "data: is a folder; name a file"),
        (("--data", "data", "--errors", "data"), "data: is a folder; name a file"),
        (("--data", "data", "--error-sheet", "wrong.jpg"), "its name must end in .png"),
        (
            ("--data", "data", "--error-sheet", "a.png", "--json", "a.png"),
            "--error-sheet a.png: is that of --json, too",
        ),
        (("--data", "data", "--limit", "few"), "argument --limit: invalid int value: 'few'"),
        (("--data", "data", "--lim", "1"), "unrecognized arguments: --lim 1"),
        ((), "required: --data"),
    ],
)
def test_mistakes_are_one_line(arguments, message, data, tiny_bundle, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    if arguments == ("--data", "."):
        monkeypatch.chdir(tmp_path / "empty")
    assert run_command(["eval", "--bundle", str(tiny_bundle), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_set_claimed_twice(data, tiny_bundle, tmp_path, write_lmdb, golden, capsys):
    folder, _, _ = data
    write_lmdb(folder / "old" / "SVT", [(golden("tiny")["images"][0], "a")])
    (folder / "svt").rename(folder / "SVT")
    report = tmp_path / "report.json"
    assert run(folder, tiny_bundle, "--json", str(report)) == 0
    printed = capsys.readouterr()
    assert "SVT: claimed by ./SVT, old/SVT, so none of them is it" in printed.err
    assert "Standard sets" not in printed.out and "skipped: IIIT5k, IC13_857" in printed.out
    values = json.loads(report.read_text())
    assert [s["dataset"] for s in values["sets"]] == ["./SVT", "extra", "old/SVT"]
    assert "SVT" in values["skipped"]


def test_means():
    sets = [SetResult("a", 300, 90.0, 95.0, 80.0), SetResult("b", 100, 50.0, 60.0, 40.0), SetResult("c")]
    assert combined(sets, "Combined", True).accuracy == pytest.approx(80.0)
    assert combined(sets, "Mean over sets", False).accuracy == pytest.approx(70.0)
    assert combined([SetResult("c")], "Combined", True).accuracy == 0


def test_a_set_of_which_no_image_can_be_read_is_an_error(tmp_path, write_lmdb, tiny_bundle, capsys):
    write_lmdb(tmp_path / "SVT", [(b"no image", "word"), (b"neither", "other")])
    assert run_command(["eval", "--data", str(tmp_path), "--bundle", str(tiny_bundle), "--quiet"]) == 2
    assert "SVT: not one image can be read, so this says nothing of the network" in capsys.readouterr().err
