"""clip4str video and clip4str photo, as they are typed."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from clips import needed
from PIL import Image

from clip4str.core.cli import main

cv2 = needed("cv2", "video")
needed("rapidocr", "video")
from scenes import SMALL, video  # noqa: E402  (needs cv2)

from clip4str.video.outputs import LiveCsv  # noqa: E402


@pytest.fixture(scope="module")
def street(tmp_path_factory):
    """A generated street as a file, its frames and its truth."""
    frames, truth = video(replace(SMALL, speed=0.0, frames=12), 5)
    path = tmp_path_factory.mktemp("street") / "street.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (640, 360))
    for frame in frames:
        writer.write(frame.pixels[..., ::-1])
    writer.release()
    return path, frames, truth


def whole_words(frames, truth):
    sides = np.array(frames[0].size[::-1]) - 2
    return {w.text.lower() for w in truth.words if all((q > 2).all() and (q < sides).all() for q in w.quads.values())}


@pytest.fixture(scope="module")
def outputs(street, tmp_path_factory):
    folder = tmp_path_factory.mktemp("outputs")
    files = {name: folder / f"words.{name}" for name in ("jsonl", "srt", "vtt", "csv")}
    files |= {"sheet": folder / "sheet.png", "overlay": folder / "overlay.mp4"}
    options = [part for name, file in files.items() for part in (f"--{name}", str(file))]
    assert main(["video", str(street[0]), *options, "--threads", "1", "--quiet"]) == 0
    return files


def test_a_video_is_read_into_every_kind_of_file(street, outputs):
    _, frames, truth = street
    lines = [json.loads(line) for line in outputs["jsonl"].read_text().splitlines()]
    ended = [line for line in lines if line["event"] == "word_ended"]
    found = {line["text"].lower() for line in ended}
    want = whole_words(frames, truth)
    assert len(want) >= 4 and len(found & want) >= 0.7 * len(want)
    assert {line["version"] for line in lines} == {1} and lines[-1]["event"] == "statistics"
    assert all(
        line["start"] == 0 and line["end"] == pytest.approx(1.2) for line in ended if line["text"].lower() in want
    )
    with outputs["csv"].open(newline="") as file:
        assert {row["text"].lower() for row in csv.DictReader(file)} == found
    for name in ("srt", "vtt"):
        text = outputs[name].read_text().lower()
        assert all(word in text for word in found)
    assert Image.open(outputs["sheet"]).size[0] > 100
    capture = cv2.VideoCapture(str(outputs["overlay"]))
    assert int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) == len(frames)


def test_a_table_of_words_without_any_file(street, capsys):
    assert main(["video", str(street[0]), "--threads", "1", "--quiet", "--summary"]) == 0
    out, err = capsys.readouterr()
    assert "start" in out.splitlines()[0] and len(out.splitlines()) >= 4
    assert "12 frames" in err and "ms a frame" in err


def test_openvino_searches_and_reads_the_same(street, outputs, monkeypatch, capsys):
    needed("openvino", "openvino")
    from clip4str.video.detect import ppocr

    opened, by_openvino = [], ppocr.ENGINES["openvino"]
    monkeypatch.setitem(ppocr.ENGINES, "openvino", lambda *how: opened.append(how[1:]) or by_openvino(*how))
    options = ["--backend", "openvino", "--dtype", "float32", "--jsonl", "-", "--threads", "1", "--quiet"]
    assert main(["video", str(street[0]), *options]) == 0
    ours, before = (
        [(line["text"], line["start"], line["end"]) for line in map(json.loads, text.splitlines())
         if line["event"] == "word_ended"]
        for text in (capsys.readouterr().out, outputs["jsonl"].read_text())
    )  # fmt: skip
    assert opened == [(1, "float32")] and sorted(ours) == sorted(before)


def test_a_video_is_read_for_a_page_to_watch(street, monkeypatch, capsys):
    from clip4str.video.view import View

    told, close = {}, View.close

    def closed(view):
        told["words"], told["status"] = view.board.since(0)[1], view.board.status()["sources"][0]
        told["picture"] = view.pictures.newer(0, 0, 1)
        told["crops"] = [view.board.crop(word["source"], word["track"]) for word in told["words"]]
        close(view)

    monkeypatch.setattr(View, "close", closed)
    assert main(["video", str(street[0]), "--view", "0", "--quiet", "--threads", "1"]) == 0
    assert "watch at http://127.0.0.1:" in capsys.readouterr().err
    want = whole_words(*street[1:])
    assert len({word["text"].lower() for word in told["words"]} & want) >= 0.7 * len(want)
    assert {word["event"] for word in told["words"]} == {"word_ended"} and all(told["crops"])
    assert all(word["began"] is None for word in told["words"])  # a file has no time of day
    assert (told["status"]["state"], told["status"]["frames"]) == ("ended", 12) and told["status"]["latency"] > 0
    assert len(told["picture"]) > 10_000


def test_rows_of_a_live_source_are_written_as_words_end(street, tmp_path, monkeypatch, capsys):
    path, seen = tmp_path / "words.csv", []
    write = LiveCsv.write

    def written(self, event):
        write(self, event)
        seen.append(len(path.read_text(encoding="utf-8").splitlines()))

    monkeypatch.setattr(LiveCsv, "write", written)
    assert main(["video", str(street[0]), "--live", "--csv", str(path), "--quiet", "--threads", "1"]) == 0
    rows = path.read_text(encoding="utf-8").splitlines()
    assert len(rows) > 1 and seen[-1] == len(rows) and sorted(seen) == seen
    assert main(["video", str(street[0]), "--csv", str(path), "--quiet", "--threads", "1"]) == 0
    assert seen[-1] == len(rows)  # a file's are written at the end


def test_a_pattern_a_lexicon_and_a_region_narrow_what_is_told(street, tmp_path, capsys):
    _, frames, truth = street
    word = sorted(whole_words(frames, truth))[0]
    lexicon = tmp_path / "words.txt"
    lexicon.write_text(f"{word}\n", encoding="utf-8")
    for option in (["--pattern", f"(?i){word}"], ["--lexicon", str(lexicon)]):
        assert main(["video", str(street[0]), "--threads", "1", "--quiet", "--jsonl", "-", *option]) == 0
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert {line["text"].lower() for line in lines if line["event"] == "word_ended"} <= {word}
    assert main(["video", str(street[0]), "--threads", "1", "--quiet", "--jsonl", "-", "--region", "0,0,1,1"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert not [line for line in lines if line["event"] == "word_ended"]


def test_the_words_of_a_photo_with_their_places(street, tmp_path, capsys):
    _, frames, truth = street
    photo, overlay = tmp_path / "photo.png", tmp_path / "read.png"
    Image.fromarray(frames[0].pixels).save(photo)
    assert main(["photo", str(photo), "--json", "--overlay", str(overlay), "--threads", "1"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["width"], found["height"]) == (640, 360)
    assert all(len(str(value)) <= 6 for w in found["words"] for corner in w["quad"] for value in corner)  # 123.4
    want = whole_words(frames, truth)
    right = [w for w in found["words"] if w["text"].lower() in want]
    assert len(right) >= 0.7 * len(want)
    for word in right:
        middles = [t.quads[0].mean(0) for t in truth.words if t.text.lower() == word["text"].lower()]
        assert min(np.abs(np.mean(word["quad"], 0) - middle).max() for middle in middles) < 12
    assert Image.open(overlay).size == (640, 360)
    assert main(["photo", str(photo), "--threads", "1"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(found["words"])


BAD = [
    (["video", "missing.mp4"], "missing.mp4"),
    (["video", "{street}", "--srt", "words.txt"], "its name must end in"),
    (["video", "{street}", "--jsonl", "nowhere/words.jsonl"], "its folder does not exist"),
    (["video", "{street}", "--region", "1,2,3"], "--region is x,y,width,height"),
    (["video", "{street}", "--pattern", "["], "is no regular expression"),
    (["video", "{street}", "--lexicon", "missing.txt"], "cannot be read as a lexicon"),
    (["video", "{street}", "--max-latency", "0"], "--max-latency is a time"),
    (["video", "{street}", "--detect-every", "0"], "detect_every is 1 to 120"),
    (["video", "{street}", "--raw", "640x360@25:rgb24"], "--raw says what comes on standard input"),
    (["video", "{street}", "{street}", "--overlay", "x.mp4"], "--overlay draws one source"),
    (["video", "{street}", "--long-side", "9"], "long_side is 64 to 4096"),
    (["video", "{street}", "--detector-model", "missing.onnx"], "no such file"),
    (["video", "{street}", "--csv", "x.csv", "--jsonl", "./x.csv"], "--csv x.csv: is that of --jsonl, too"),
    (["video", "words.csv", "--csv", "words.csv"], "--csv words.csv: is what is read, too"),
    (["photo", "missing.jpg"], "missing.jpg"),
    (["photo", "."], ".: no images found"),
    (["photo", "{street}"], "street.avi"),
    (["photo", "a.jpg", "b.jpg", "--overlay", "x.png"], "--overlay draws one photo"),
    (["photo", "a.jpg", "--least", "2"], "--least is 0 to 1"),
    (["photo", "a.jpg", "--overlay", "./a.jpg"], "is the photo itself"),
]


@pytest.mark.parametrize(("argv", "message"), BAD)
def test_bad_input_is_one_line_and_leaves_no_file(street, tmp_path, monkeypatch, capsys, argv, message):
    monkeypatch.chdir(tmp_path)
    assert main([part.format(street=street[0]) for part in argv] + ["--threads", "1"]) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(error) == 1 and message in error[0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["video", "photo"])
def test_without_opencv_there_is_help_and_one_line(command):
    program = (
        "import importlib.util as u, sys; sys.modules['cv2'] = None; find = u.find_spec;"
        "u.find_spec = lambda name, *rest: None if name == 'cv2' else find(name, *rest);"
        "from clip4str.core.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    helped, refused = (
        subprocess.run([sys.executable, "-c", program, command, last], capture_output=True, text=True)
        for last in ("--help", "street.mp4")
    )
    assert helped.returncode == 0 and "--long-side" in helped.stdout and not helped.stderr
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1
    assert "pip install 'clip4str[video]'" in refused.stderr


def test_nothing_is_written_over_before_everything_is_there(street, tmp_path, monkeypatch):
    good = tmp_path / "words.srt"
    good.write_text("kept", encoding="utf-8")
    assert main(["video", str(street[0]), "--srt", str(good), "--bundle", str(tmp_path / "none"), "--quiet"]) == 2
    assert good.read_text() == "kept"
