"""clip4str dataset: label files as people have them become a set that is read, and what is wrong in them is said."""

from __future__ import annotations

import json
import os
from pathlib import Path

import lmdb
import numpy as np
import pytest
from PIL import Image

from clip4str.core import cli
from clip4str.data import conversion
from clip4str.data.label_formats import FORMATS
from clip4str.data.word_lmdb import LmdbWords
from clip4str.runtime.images import load_image

LABELS = ["Hotel", "café, 24h", 'say "hi"', "大安"]


def crops(folder: Path, names: list[str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((12, 30, 3), 40 * number % 256, np.uint8)).save(folder / name)
    return folder


def convert(source: Path, output: Path, *options: str) -> int:
    return cli.main(["dataset", str(source), "--output", str(output), "--quiet", *options])


def labels(folder: Path) -> list[str]:
    with LmdbWords(folder) as words:
        assert all(load_image(image).size == (30, 12) for image, _ in words)
        return [label for _, label in words]


def with_quotes(label: str) -> str:
    return '"' + label.replace('"', '""') + '"'


FILES = {  # of four pictures w/1.png ... with the labels above
    "tab": ("gt.txt", "".join(f"w/{i}.png\t{word}\n" for i, word in enumerate(LABELS, 1)).encode()),
    "tab, PaddleOCR's several pictures of a word": (
        "train.txt", b'["w/1.png", "w/2.png"]\tHotel\nw/3.png\tx\nw/4.png\ty\n'),
    "tab with a head": ("words.tsv", b"id\tlabel\tfile\n7\tHotel\tw/1.png\n8\tExit\tw/2.png\n"),
    "space": ("label.txt", "".join(f"w/{i}.png {word}\n" for i, word in enumerate(LABELS, 1)).encode()),
    "icdar, with a byte order mark and Windows' line ends": ("gt.txt", b"\xef\xbb\xbf" + "".join(
        f'w/{i}.png, "{word}"\r\n' for i, word in enumerate((w.replace('"', '\\"') for w in LABELS), 1)).encode()),
    "mlt": ("gt.txt", "w/1.png,Latin,Hotel\nw/2.png,Latin,café, 24h\nw/4.png,Chinese,大安\n".encode()),
    "csv": ("labels.csv", "".join(f"w/{i}.png,{with_quotes(word)}\n" for i, word in enumerate(LABELS, 1)).encode()),
    "csv with a head, EasyOCR's": ("labels.csv", "filename,words\n" + "".join(
        f"w/{i}.png,{with_quotes(word)}\n" for i, word in enumerate(LABELS, 1))),
    "csv without quotes around labels with commas": ("labels.csv", "w/1.png,Hotel\nw/2.png,café, 24h\nw/4.png,大安\n"),
    "csv with semicolons": ("l.csv", "image;text\nw/1.png;Hotel\nw/2.png;café, 24h\n"),
    "jsonl": ("labels.jsonl", "".join(
        json.dumps({"filename": f"w/{i}.png", "text": word}) + "\n" for i, word in enumerate(LABELS, 1))),
    "jsonl, Hugging Face's": ("metadata.jsonl", json.dumps({"file_name": "w/1.png", "text": "Hotel"})),
    "json, MMOCR's": ("train.json", json.dumps({"metainfo": {}, "data_list": [
        {"img_path": f"w/{i}.png", "instances": [{"text": word}]} for i, word in enumerate(LABELS, 1)]})),
    "json, picture: label": ("l.json", json.dumps({f"w/{i}.png": word for i, word in enumerate(LABELS, 1)}, indent=1)),
    "tab in UTF-16": ("gt.txt", "".join(
        f"w\\{i}.png\t{word}\r\n" for i, word in enumerate(LABELS, 1)).encode("utf-16")),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_label_files_as_people_have_them(tmp_path, capsys, name):
    crops(tmp_path / "crops", [f"w/{i}.png" for i in range(1, 5)])
    file, content = FILES[name]
    content = content.encode() if isinstance(content, str) else content
    (tmp_path / "crops" / file).write_bytes(content)
    assert convert(tmp_path / "crops", tmp_path / "set") == 0
    expected = {
        "tab, PaddleOCR's several pictures of a word": ["Hotel", "Hotel", "x", "y"],
        "tab with a head": ["Hotel", "Exit"],
        "mlt": [LABELS[0], LABELS[1], LABELS[3]],
        "csv without quotes around labels with commas": [LABELS[0], LABELS[1], LABELS[3]],
        "csv with semicolons": LABELS[:2],
        "jsonl, Hugging Face's": LABELS[:1],
    }.get(name, LABELS)
    assert labels(tmp_path / "set") == expected
    said = capsys.readouterr().out
    kind = FORMATS[name.replace(",", " ").split()[0]]
    assert said.splitlines()[0].startswith(f"{tmp_path / 'crops' / file}: {kind}; ")
    assert ("UTF-16" if "UTF-16" in name else "UTF-8") in said and "left out" not in said


def test_mjsynths_names_hold_its_labels(tmp_path):
    crops(tmp_path / "mj", ["2425/1/115_Lube_45484.png", "2425/1/116_Café_x_7.png"])
    (tmp_path / "mj" / "annotation.txt").write_text("./2425/1/115_Lube_45484.png 45484\n./2425/1/116_Café_x_7.png 7\n")
    assert convert(tmp_path / "mj", tmp_path / "set") == 0
    assert labels(tmp_path / "set") == ["Lube", "Café_x"]


def test_without_a_label_file_names_are_labels_only_if_the_user_says_so(tmp_path, capsys):
    crops(tmp_path / "drawn", ["Hotel_1.png", "Exit_2.png", "24h.png"])
    assert convert(tmp_path / "drawn", tmp_path / "set") == 2
    assert "--format names" in capsys.readouterr().err
    assert convert(tmp_path / "drawn", tmp_path / "set", "--format", "names") == 0
    assert labels(tmp_path / "set") == ["Exit", "Hotel"]
    assert "the line is not of the format: 1; line 1: 24h.png" in capsys.readouterr().out
    crops(tmp_path / "icdar", ["word_1.png", "word_2.png", "word_3.png"])
    assert convert(tmp_path / "icdar", tmp_path / "other", "--format", "names") == 2
    assert "all hold the same label" in capsys.readouterr().err


def test_tesseracts_text_files_beside_the_pictures(tmp_path):
    crops(tmp_path / "lines", ["a.png", "b/c.png"])
    (tmp_path / "lines" / "a.gt.txt").write_text("Hotel\n")
    (tmp_path / "lines" / "b" / "c.gt.txt").write_text("大安")
    assert convert(tmp_path / "lines", tmp_path / "set") == 0
    assert labels(tmp_path / "set") == ["Hotel", "大安"]


def test_everything_wrong_in_a_data_set_is_counted_and_named(tmp_path, capsys):
    folder = crops(tmp_path / "crops", [f"{i}.png" for i in range(1, 9)])
    (folder / "bad.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 50 50\nshowpage\n")
    os.mkfifo(folder / "pipe.png")
    (folder / "8.png").write_bytes((folder / "1.png").read_bytes())
    rows = ["1.png\tone", "gone.png\ttwo", "bad.png\tthree", "2.png\t ", "pipe.png\tfive", "1.png\tone",
            "1.png\tother", "no tab", "3.png\ta\x07b", f"4.png\t{'x' * 26}", "5.png\ttwo words",
            "6.png\tcafe\u0301", "8.png\tsix"]  # fmt: skip
    (folder / "gt.txt").write_text("\n".join(rows))
    report = tmp_path / "report.tsv"
    assert convert(folder, tmp_path / "set", "--report", str(report)) == 0
    assert labels(tmp_path / "set") == ["one", "x" * 26, "two words", "cafe\u0301", "six"]
    listed = [line.split("\t") for line in report.read_text().splitlines()[1:]]
    assert [(int(line), what) for line, _, what, _ in listed] == [
        (2, conversion.MISSING), (3, conversion.NO_PICTURE), (4, conversion.EMPTY), (5, conversion.MISSING),
        (6, conversion.TWICE), (7, conversion.TWICE), (8, conversion.NO_LABEL), (9, conversion.CONTROL),
        (10, conversion.LONG), (11, conversion.SPACES), (12, conversion.DECOMPOSED), (13, conversion.CONTRADICTED),
    ]  # fmt: skip
    assert listed[5][3] == "as 'one', now 'other'" and listed[-1][3] == "'one', now 'six'"
    said = capsys.readouterr().out
    assert "left out, of 13: no such file: 2; line 2: gone.png; line 5: pipe.png" in said and "\x07" not in said


@pytest.mark.parametrize(
    "name", ["../secret.png", "/etc/passwd", "C:\\crops\\1.png", "w/../../secret.png", "link/s.png"]
)
def test_a_path_that_leads_out_of_the_folder_ends_the_command(tmp_path, capsys, name):
    folder = crops(tmp_path / "crops", ["1.png"])
    crops(tmp_path, ["secret.png"])
    crops(tmp_path / "away", ["s.png"])
    (folder / "link").symlink_to(tmp_path / "away")
    (folder / "gt.txt").write_text(f"1.png\tone\n{name}\ttwo\n")
    assert convert(folder, tmp_path / "set") == 2
    error = capsys.readouterr().err
    assert "line 2" in error and ("leads out of" in error or "is a link out of" in error)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["away", "crops", "secret.png"]


@pytest.mark.parametrize(
    "content, message",
    [
        (b"1.png\tcaf\xe9\n", "line 1 is not UTF-8; say which encoding it is, such as --encoding gb18030"),
        ("1.png\tx\n".encode("utf-16-le"), "UTF-16 without its mark"),
        (b"", "the file is empty"),
        (b"hello\nworld\n", "'hello' is of no format known here; --format says which"),
        (b'img_61.jpg\t[{"transcription": "MASA", "points": [[310, 104], [416, 141]]}]\n', "cut the words out first"),
        (b"377,117,463,117,465,130,378,130,Genaxis Theatre\n", "cut the words out first"),
        (
            b"gone/1.png\tx\ngone/2.png\ty\n",
            "none of the 2 pictures is there, the first being 'gone/1.png'; --pictures",
        ),
        (b"[" * 100_000, "no JSON document"),
        (b"1.png\t \n", "no word is left (the line is not of the format: 0; empty label: 1"),
    ],
)
def test_label_files_that_cannot_be_used_are_one_line(tmp_path, capsys, content, message):
    folder = crops(tmp_path / "crops", ["1.png"])
    (folder / "gt.txt").write_bytes(content)
    assert convert(folder, tmp_path / "sets" / "mine") == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and str(folder) in error
    assert not (tmp_path / "sets").exists()


def test_the_encoding_can_be_said(tmp_path, capsys):
    folder = crops(tmp_path / "crops", ["1.png"])
    (folder / "gt.txt").write_bytes("1.png\t大安\n".encode("gbk"))
    assert convert(folder, tmp_path / "set", "--encoding", "gb18030") == 0
    assert labels(tmp_path / "set") == ["大安"]
    assert convert(folder, tmp_path / "other", "--encoding", "klingon") == 2
    assert "--encoding klingon: no such encoding" in capsys.readouterr().err


def test_several_label_files_are_asked_about(tmp_path, capsys):
    folder = crops(tmp_path / "crops", ["1.png"])
    for name in ("rec_gt_train.txt", "rec_gt_test.txt"):
        (folder / name).write_text("1.png\tone\n")
    assert convert(folder, tmp_path / "set") == 2
    assert "several label files (rec_gt_test.txt, rec_gt_train.txt); give one" in capsys.readouterr().err
    (tmp_path / "labels.txt").write_text("1.png\tone\n")
    assert convert(tmp_path / "labels.txt", tmp_path / "set", "--pictures", str(folder)) == 0


def test_held_out_words_and_the_charset(tmp_path):
    names = [f"{i}.png" for i in range(60)]
    folder = tmp_path / "crops"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in names:
        Image.fromarray(rng.integers(0, 255, (12, 30, 3), np.uint8)).save(folder / name)
    (folder / "copy.png").write_bytes((folder / "0.png").read_bytes())
    (folder / "gt.txt").write_text("".join(f"{name}\tw đ{i}\n" for i, name in enumerate([*names, "copy.png"])))
    charset = tmp_path / "charset.txt"
    assert convert(folder, tmp_path / "set", "--validation", "0.2", "--write-charset", str(charset)) == 0
    train, held = (labels(tmp_path / "set" / part) for part in ("train", "validation"))
    assert len(train) + len(held) == 61 and 5 <= len(held) <= 20
    assert ("w đ0" in train) == ("w đ60" in train)  # copies stay on one side
    assert charset.read_text(encoding="utf-8") == " 0123456789wđ\n"


def test_nothing_is_left_behind_when_it_fails_and_nothing_is_replaced(tmp_path, capsys, monkeypatch):
    folder = crops(tmp_path / "crops", ["1.png"])
    (folder / "gt.txt").write_text("1.png\tone\n")
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine.txt").write_text("x")
    assert convert(folder, tmp_path / "there") == 2
    assert "exists; choose another --output" in capsys.readouterr().err

    def full(*_, **__):
        raise lmdb.MapFullError("mdb_put: MDB_MAP_FULL")

    monkeypatch.setattr(conversion, "_put", full)
    assert convert(folder, tmp_path / "set") == 2
    assert "cannot be written (mdb_put: MDB_MAP_FULL)" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["crops", "there"]


@pytest.mark.parametrize("option", ["--report", "--write-charset"])
@pytest.mark.parametrize("named", ["w/gt.txt", "w"])
def test_no_report_takes_the_place_of_the_labels(tmp_path, capsys, option, named):
    folder = crops(tmp_path / "w", ["1.png"])
    (folder / "gt.txt").write_text("1.png\tHotel\n")
    assert convert(tmp_path / named, tmp_path / "set", option, str(folder / "gt.txt")) == 2
    assert "gt.txt: is what is read, too; name another file" in capsys.readouterr().err
    assert (folder / "gt.txt").read_text() == "1.png\tHotel\n" and not (tmp_path / "set").exists()
