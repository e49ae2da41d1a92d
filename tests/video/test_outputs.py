"""Subtitles, CSV, the table, the contact sheet."""

import csv
import re

import numpy as np
import pytest
from PIL import Image

from clip4str.core.errors import UsageError
from clip4str.video.events import Gap, WordEnded, WordFound
from clip4str.video.outputs import Csv, LiveCsv, Sheet, Srt, Table, Vtt, table
from clip4str.video.outputs.csv import COLUMNS, CORNERS
from clip4str.video.outputs.lettering import font_for, lettering
from clip4str.video.outputs.sheet import ACROSS, DOWN
from clip4str.video.outputs.table import columns


def word(text, start=0.0, end=1.0, source=0, track=0, x=0.0, y=0.0, confidence=0.9, crop=None, label=None):
    quad = np.array([[x, y], [x + 40, y], [x + 40, y + 10], [x, y + 10]], np.float32)
    return WordEnded(source, track, text, confidence, start, end, start, quad, 3, 9, label, crop)


def written(kind, path, words, names=("a.mp4",)):
    sink = kind(path, list(names))
    for each in words:
        sink.write(each)
    assert not path.exists()  # whole or not at all
    sink.close()
    sink.close()
    return path.read_text(encoding="utf-8")


def cues(text, mark):
    """[(start, end, lines)] in milliseconds, by the formats' own definition of a time."""
    found = []
    pattern = rf"(\d+):(\d\d):(\d\d){mark}(\d\d\d) --> (\d+):(\d\d):(\d\d){mark}(\d\d\d)\n(.*?)(?:\n\n|\n\Z)"
    for match in re.finditer(pattern, text, re.DOTALL):
        *times, lines = match.groups()
        units = (3600000, 60000, 1000, 1)
        start, end = (sum(int(t) * unit for t, unit in zip(times[at : at + 4], units)) for at in (0, 4))
        found.append((start, end, lines.split("\n")))
    return found


@pytest.mark.parametrize("kind, suffix, mark", [(Srt, ".srt", ","), (Vtt, ".vtt", r"\.")])
def test_words_that_are_shown_together_share_a_block_from_top_to_bottom(tmp_path, kind, suffix, mark):
    words = [
        word("LOW", 1, 3, track=1, y=90),
        word("RIGHT", 0, 2, track=2, x=80, y=3),  # of the same line as LEFT, though a little lower
        word("LEFT", 0, 2, track=3, x=10),
        word("", 0, 9, track=4),
        word("LATER", 3661.5, 3662, track=5),
    ]
    text = written(kind, tmp_path / f"a{suffix}", words)
    assert cues(text, mark) == [
        (0, 1000, ["LEFT", "RIGHT"]),
        (1000, 2000, ["LEFT", "RIGHT", "LOW"]),
        (2000, 3000, ["LOW"]),
        (3661500, 3662000, ["LATER"]),
    ]


def test_the_files_as_players_know_them(tmp_path):
    words = [word("ONE", 0, 1), word("TWO", 2, 3)]
    assert written(Srt, tmp_path / "a.srt", words) == (
        "1\n00:00:00,000 --> 00:00:01,000\nONE\n\n2\n00:00:02,000 --> 00:00:03,000\nTWO\n"
    )
    assert written(Vtt, tmp_path / "a.vtt", words) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.000\nONE\n\n00:00:02.000 --> 00:00:03.000\nTWO\n"
    )
    assert written(Srt, tmp_path / "none.srt", []) == "" and written(Vtt, tmp_path / "none.vtt", []) == "WEBVTT\n"


def test_times_are_rounded_and_no_block_is_of_no_length(tmp_path):
    words = [word("A", 0.0004, 0.0004), word("B", 1.9996, 2.00149), word("C", 3599.9999, 3600.0)]
    assert [cue[:2] for cue in cues(written(Srt, tmp_path / "a.srt", words), ",")] == [
        (0, 1),
        (2000, 2001),
        (3600000, 3600001),
    ]


def test_blocks_of_many_words_never_overlap_and_show_each_for_its_time(tmp_path):
    rng = np.random.default_rng(0)
    words = []
    for number in range(60):
        start = float(rng.uniform(0, 20))
        words.append(word(f"W{number}", start, start + float(rng.uniform(0, 3)), track=number))
    found = cues(written(Srt, tmp_path / "a.srt", words), ",")
    assert all(end > start for start, end, _ in found) and all(a[1] <= b[0] for a, b in zip(found, found[1:]))
    for each in words:
        shown = [cue for cue in found if each.text in cue[2]]
        assert (shown[0][0], shown[-1][1]) == (round(each.start * 1000), round(each.end * 1000))
        assert sum(end - start for start, end, _ in shown) == shown[-1][1] - shown[0][0]


def test_text_does_no_harm_to_players(tmp_path):
    words = [word("<b>&-->", 0, 1), word("a\n\n9", 2, 3)]
    vtt = written(Vtt, tmp_path / "a.vtt", words)
    assert "&lt;b&gt;&amp;--&gt;\n" in vtt and "a\\n\\n9" in vtt
    assert len(cues(written(Srt, tmp_path / "a.srt", words), ",")) == 2


@pytest.mark.parametrize(
    "text, shown",
    [
        ("<i>HI</i>", "\u2039i\u203aHI\u2039/i\u203a"),
        ("<5", "\u20395"),
        ("{\\an8}TOP", "\uff5b\\an8}TOP"),
        ("{y:i}x", "\uff5by:i}x"),
        ("&lt;", "\uff06lt;"),
        ("&#60;", "\uff06#60;"),
        ("AT&T", "AT&T"),
        ("{a}", "{a}"),
        ("R&D;", "R\uff06D;"),
    ],
)
def test_subrip_has_no_markup(tmp_path, text, shown):
    words = [word(text), word("<c>", y=40, track=1)]
    ((_, _, lines),) = cues(written(Srt, tmp_path / "a.srt", words, ["a.mp4", "<b>.mp4"]), ",")
    assert lines == [f"[a.mp4] {shown}", "[a.mp4] \u2039c\u203a"]


def test_ffmpeg_shows_subrip_as_it_was_read(tmp_path):
    av = pytest.importorskip("av")
    text = "<i>A</i>{y:i}&amp;"
    written(Srt, tmp_path / "a.srt", [word(text)])
    with av.open(str(tmp_path / "a.srt")) as file:
        (event,) = [each for packet in file.demux(subtitles=0) for each in packet.decode()][:1]
    assert event.ass.decode().endswith(",,\u2039i\u203aA\u2039/i\u203a\uff5by:i}\uff06amp;")


def test_several_sources_are_named(tmp_path):
    words = [word("ONE", source=1), word("TWO", source=0)]
    assert cues(written(Srt, tmp_path / "a.srt", words, ["a.mp4", "b\n.mp4"]), ",") == [
        (0, 1000, ["[a.mp4] TWO", "[b\\n.mp4] ONE"])
    ]


def test_csv_as_spreadsheets_read_it(tmp_path):
    words = [word('say "hi", now', 1.5, 2.25, label="sign"), word("café", 0.1)]
    rows = list(csv.DictReader(written(Csv, tmp_path / "a.csv", words).splitlines()))
    assert tuple(rows[0]) == (*COLUMNS, *CORNERS)
    assert [row["text"] for row in rows] == ["café", 'say "hi", now']  # by their start
    last = rows[1]
    assert (last["source"], last["start"], last["end"], last["label"]) == ("a.mp4", "1.500000", "2.250000", "sign")
    assert [float(last[corner]) for corner in CORNERS] == [0, 0, 40, 0, 40, 10, 0, 10]


@pytest.mark.parametrize(
    "text, cell",
    [
        ("=cmd|'/c'!A1", "'=cmd|'/c'!A1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("-5", "-5"),
        ("+49", "+49"),
        ("-a", "'-a"),
        ("  =1+1", "'  =1+1"),
        ("\u00a0\u200b@SUM(A1)", "'\u00a0\u200b@SUM(A1)"),
        ("\uff1d1+1", "'\uff1d1+1"),
        (" \uff0b1", "' \uff0b1"),
        ("\uff20SUM(A1)", "'\uff20SUM(A1)"),
        (" -5", " -5"),
        (" a=b", " a=b"),
        ("", ""),
    ],
)
def test_no_word_is_run_as_a_formula(tmp_path, text, cell):
    (row,) = csv.DictReader(written(Csv, tmp_path / "a.csv", [word(text)]).splitlines())
    assert row["text"] == cell


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_the_table_fits_the_terminal(width):
    words = [word("word" * n, n, n + 1, source=n % 2) for n in range(1, 9)] + [word("中文" * 20), word("\x1b[31mred\n")]
    for names in (["a.mp4"], ["a.mp4", "a long name of a file \x07.mp4"]):
        lines = table(words, names, max(width, 60) if len(names) > 1 else max(width, 50))
        assert len(lines) == 11 and max(map(columns, lines)) <= max(width, 60)
        assert all(line.isprintable() for line in lines) and "00:00:01.000  00:00:02.000  90%" in re.sub(
            " {3,}", "  ", lines[1]
        )


def test_the_table_tells_what_it_leaves_out():
    shown = []
    sink = Table(["a.mp4"], shown.append, most=3)
    for number in range(5):
        sink.write(word(f"W{number}", 5 - number))
    sink.write(Gap(0, 0.0, 1.0, "frozen"))
    sink.close()
    assert [line.split()[-1] for line in shown] == ["word", "W4", "W3", "W2", "more"]
    assert shown[-1] == "... and 2 more" and table([]) == ["no words found"]


def test_rows_of_live_sources_are_there_as_words_end_and_none_is_kept(tmp_path):
    names, path = ["rtsp://camera/1", "=cmd|' /C calc'!A0"], tmp_path / "live.csv"
    live, whole = LiveCsv(path, names), Csv(tmp_path / "whole.csv", names)
    assert path.read_text().startswith("source,track,text")
    words = [word("=1+1", 0, 1, source=1), word("HOTEL, BAR", 0.5, 2), word('A"B', 3, 4)]
    for number, one in enumerate(sorted(words, key=lambda w: w.start)):
        for sink in (live, whole):
            sink.write(Gap(0, 0.0, 1.0, "frozen"))
            sink.write(one)
        assert len(list(csv.reader(path.open(newline="")))) == 2 + number
    whole.close()
    live.close()
    live.close()
    assert path.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    for other in (tmp_path, tmp_path / "none" / "a.csv"):
        with pytest.raises(UsageError):
            LiveCsv(other)


@pytest.mark.parametrize("kind, name", [(Srt, "a.txt"), (Vtt, "a.srt"), (Sheet, "a.jpg")])
def test_a_name_that_is_not_of_its_kind_is_told_before_the_run(tmp_path, kind, name):
    with pytest.raises(UsageError, match="must end in"):
        kind(tmp_path / name)
    for path in (tmp_path, tmp_path / "none" / "a.csv"):
        with pytest.raises(UsageError):
            Csv(path)


def crop(value):
    return np.full((20, 60, 3), value, np.uint8)


def test_a_contact_sheet_has_every_words_crop(tmp_path):
    sink = Sheet(tmp_path / "a.png", ["a.mp4"])
    colours = [(200, 0, 0), (0, 200, 0), (0, 0, 200)]
    for number, colour in enumerate(colours):
        sink.write(word("WORD", 3 - number, 4, crop=crop(colour)))
        sink.write(WordFound(0, number, 0.0, 0.0, "WORD", 0.5, np.zeros((4, 2))))
    sink.close()
    sink.close()
    pixels = np.asarray(Image.open(tmp_path / "a.png"))
    found = [np.argwhere((pixels == colour).all(2)) for colour in colours]
    assert all(len(places) == 216 * 72 for places in found)  # enlarged to the frame's width
    lefts = [places[:, 1].min() for places in found]
    assert lefts == sorted(lefts, reverse=True)  # by their start


def test_many_words_fill_pages_and_none_is_kept(tmp_path):
    sink = Sheet(tmp_path / "a.png")
    for number in range(ACROSS * DOWN + 1):
        sink.write(word(f"{number}", number, number + 1, crop=crop(9)))
    assert (tmp_path / "a.png").exists() and len(sink._words) == 1
    sink.close()
    assert sink.pages == [tmp_path / "a.png", tmp_path / "a-2.png"]
    assert all(max(Image.open(page).size) < 2000 for page in sink.pages)


def test_pages_of_a_longer_sheet_before_are_gone_and_others_files_stay(tmp_path):
    Image.new("RGB", (9, 9)).save(tmp_path / "a-4.png")
    for other in (Sheet(tmp_path / "b.png"), Sheet(tmp_path / "b-2.png"), Sheet(tmp_path / "b.png")):
        other.close()  # of another camera, b-2
    for words in (2 * ACROSS * DOWN + 1, 1):
        sink = Sheet(tmp_path / "a.png")
        for number in range(words):
            sink.write(word(f"{number}", number, number + 1, crop=crop(9)))
        sink.close()
    assert {file.name for file in tmp_path.iterdir()} == {"a.png", "a-4.png", "b.png", "b-2.png"}


def test_a_later_page_replaces_nobodys_file_either(tmp_path):
    (tmp_path / "a-2.png").write_text("a letter")
    sink = Sheet(tmp_path / "a.png")
    for number in range(ACROSS * DOWN + 1):
        sink.write(word(f"{number}", number, number + 1, crop=crop(9)))
    with pytest.raises(UsageError, match=r"a-2\.png: exists and is no report"):
        sink.close()
    assert (tmp_path / "a-2.png").read_text() == "a letter" and sink.pages == [tmp_path / "a.png"]


def test_a_contact_sheet_of_odd_crops_and_of_none(tmp_path):
    sink = Sheet(tmp_path / "a.png", ["one", "two"])
    for shape in ((1, 1, 3), (1, 3000, 3), (3000, 1, 3), (0, 9, 3)):
        sink.write(word("long" * 40 + "\n", crop=np.zeros(shape, np.uint8)))
    sink.write(word(""))
    sink.close()
    Sheet(tmp_path / "none.png").close()
    assert Image.open(tmp_path / "none.png").size[0] > 100


def test_words_in_other_scripts_are_drawn_where_a_font_has_them():
    assert (lettering("Aa", 20) > 128).any() and lettering("Aa", 20).shape[0] >= 20
    if font_for("é", 20).getname()[0] == "Aileron":
        pytest.skip("no font here has more than ASCII")
    box = lettering("\uffff", 20)
    assert lettering("é", 20).shape != box.shape or (lettering("é", 20) != box).any()
