"""The page to watch: what its server tells viewers."""

import csv
import io
import re
import time
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from clips import needed
from PIL import Image

cv2 = needed("cv2", "video")
from viewing import GROUND, QUAD, Events, camera, ended, found, frame, get, page, picture, shown  # noqa: E402

from clip4str.core.errors import ImageError  # noqa: E402
from clip4str.video.events import Gap, Shown, Statistics, WordChanged  # noqa: E402
from clip4str.video.frames import Frame  # noqa: E402
from clip4str.video.outputs import Csv  # noqa: E402
from clip4str.video.view import health as health_module  # noqa: E402
from clip4str.video.view import pictures as pictures_module  # noqa: E402
from clip4str.video.view.board import Board  # noqa: E402
from clip4str.video.view.pictures import Pictures  # noqa: E402


@pytest.fixture
def view():
    with page() as view:
        yield view


def test_the_page_comes_from_here_alone(view):
    status, headers, html = get(view, "/")
    policy = headers["Content-Security-Policy"]
    assert status == 200 and "default-src 'none'" in policy and "unsafe" not in policy and "*" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff" and headers["Referrer-Policy"] == "no-referrer"
    text = html.decode()
    assert not re.search(r"<script(?![^>]*src)|<style|style=|\son\w+=", text)
    files = re.findall(r'(?:src|href)="([\w.]+\.(?:js|css|svg))"', text)
    assert {"view.js", "view.css"} <= set(files)
    while files:
        name = files.pop()
        status, headers, content = get(view, f"/{name}")
        assert status == 200 and headers["Content-Type"].startswith(("text/", "image/svg"))
        assert not re.search(rb"https?://(?!www\.w3\.org/2000/svg)", content)
        files += re.findall(r'from "\./([\w.]+)"', content.decode())
    assert get(view, "/../server.py")[0] == get(view, "/page/view.js")[0] == get(view, "/x")[0] == 404


def test_a_word_is_told_when_it_is_found_changes_and_ends(view):
    with closing(Events(view)) as events:
        assert events.next()[0] == "begin"
        view.write(found(1, "ward"))
        word = events.until("words")[1][0]
        assert (word["event"], word["text"], word["crop"]) == ("word_found", "ward", 0)
        view.write(WordChanged(0, 1, 1.5, "word", "ward", 0.95, QUAD))
        word = events.until("words")[1][0]
        assert (word["event"], word["text"], word["start"], word["confidence"]) == ("word_found", "word", 0.5, 0.95)
        view.write(ended(1))
        word = events.until("words")[1][0]
        assert (word["event"], word["end"], word["reads"], word["crop"]) == ("word_ended", 2.0, 3, 1)
        assert abs(time.time() - 1.0 + 0.5 - word["began"]) < 60  # a live source's words have a time of day


def test_a_viewer_that_comes_back_gets_what_it_has_missed(view):
    with closing(Events(view)) as events:
        view.write(found(1))
        last, _ = events.until("words")
    view.write(found(2))
    view.write(ended(1))
    with closing(Events(view, last)) as events:
        assert [word["track"] for word in events.until("words")[1]] == [2, 1]
    with closing(Events(view, path=f"/events?last={last}")) as events:
        assert [word["track"] for word in events.until("words")[1]] == [2, 1]
    with closing(Events(view)) as events:
        last, _ = events.until("words")
    with closing(Events(view, last)) as events:
        assert events.next()[0] == "status"
        view.write(found(3))
        assert [word["track"] for word in events.until("words")[1]] == [3]
    for other in ("", "0123abcd-1", "nonsense", last + "x"):  # of another run of the program
        with closing(Events(view, other)) as events:
            kind, _, about = events.next()
            assert (kind, about["sources"]) == ("begin", ["rtsp://camera/1"])
            assert [word["track"] for word in events.until("words")[1]] == [2, 1, 3]


def test_old_words_are_let_go_and_the_page_is_told_which():
    board = Board([camera()], Pictures(1), kept=10)
    for track in range(25):
        board.write(found(track))
    assert board.status()["first"] == 16 and board.status()["words"] == 25
    assert [word["track"] for word in board.since(0)[1]] == list(range(15, 25))
    board.write(ended(3))  # long in view
    assert len(board.since(0)[1]) == 10 and board.since(0)[1][-1]["track"] == 3
    assert len(list(csv.reader(io.StringIO(board.csv())))) == 11


def test_the_download_is_what_the_csv_output_writes(view, tmp_path):
    words = [ended(1, "=HYPERLINK(1)"), ended(2, "plain"), ended(3, '<b>"a",b')]
    output = Csv(tmp_path / "words.csv", ["rtsp://camera/1"])
    for word in words:
        view.write(word)
        output.write(word)
    output.close()
    status, headers, content = get(view, "/words.csv")
    assert status == 200 and "attachment" in headers["Content-Disposition"]
    assert content.decode() == (tmp_path / "words.csv").read_text()
    view.write(found(4, "+1+cmd"))
    rows = list(csv.DictReader(io.StringIO(get(view, "/words.csv")[2].decode())))
    assert [row["text"] for row in rows] == ["'=HYPERLINK(1)", "plain", '<b>"a",b', "'+1+cmd"]
    assert (rows[3]["end"], rows[3]["reads"], rows[0]["end"]) == ("", "", "2.000000")


def test_a_picture_is_encoded_once_for_all_and_only_when_asked_for(view, monkeypatch):
    encoded = []
    packed = pictures_module.packed
    monkeypatch.setattr(pictures_module, "packed", lambda *a: encoded.append(a[0]) or packed(*a))
    for number in range(5):
        view.show(0, frame(number), shown())
    assert encoded == []
    told, data = picture(get(view, "/picture?source=0&after=0")[2])
    assert picture(get(view, "/picture?source=0&after=0")[2]) == (told, data)
    assert encoded == [5] == [told["number"]]
    assert (told["width"], told["height"]) == (80, 60)
    assert told["words"] == [{"track": 1, "text": "word", "confidence": 0.9, "settled": True, "quad": QUAD.tolist()}]
    assert Image.open(io.BytesIO(data)).size == (80, 60)
    monkeypatch.setattr("clip4str.video.view.handler.PICTURE_WAIT", 0.05)
    assert get(view, "/picture?source=0&after=5")[::2] == (204, b"")
    view.show(0, frame(6, np.zeros((2000, 3000, 3), np.uint8)), [])
    told, data = picture(get(view, "/picture?source=0&after=5")[2])
    assert (told["width"], Image.open(io.BytesIO(data)).size) == (3000, (1280, 853))
    for bad in ("source=1", "source=-1", "", "source=0.0", "source=0&after=x&source=9"):
        assert get(view, f"/picture?{bad}")[0] == 404


def test_of_a_frame_that_cannot_be_had_here_the_words_are_told(view, monkeypatch):
    def on_a_gpu(_):
        raise ImageError("is on a GPU")

    monkeypatch.setattr(pictures_module, "rgb", on_a_gpu)
    view.show(0, frame(0), shown())
    told, data = picture(get(view, "/picture?source=0")[2])
    assert data == b"" and told["words"][0]["text"] == "word"


@pytest.mark.parametrize("layout", ["rgb", "bgr", "nv12"])
def test_colours_are_right_in_every_layout(view, layout):
    red = np.full((32, 48, 3), (200, 20, 20), np.uint8)
    pixels = red if layout == "rgb" else red[..., ::-1]
    if layout == "nv12":
        planes = cv2.cvtColor(red, cv2.COLOR_RGB2YUV_I420)
        pixels = np.vstack([planes[:32], np.stack([planes[32:40].reshape(16, 24), planes[40:].reshape(16, 24)], -1)
                            .reshape(16, 48)])  # fmt: skip
    view.show(0, Frame(np.ascontiguousarray(pixels), 0.0, layout=layout), [Shown(QUAD / 2, "", 0.0, False, 1)])
    view.write(found(1))
    for data in (picture(get(view, "/picture?source=0")[2])[1], get(view, "/crop?source=0&track=1")[2]):
        colour = np.asarray(Image.open(io.BytesIO(data))).reshape(-1, 3).mean(0)
        assert np.abs(colour - (200, 20, 20)).max() < 12


def test_a_words_picture_is_cut_now_and_its_best_one_once_it_has_ended(view):
    assert get(view, "/crop?source=0&track=1")[0] == 404
    view.show(0, frame(0), shown())
    view.write(found(1))
    view.write(found(2))  # not in the picture any more
    status, headers, data = get(view, "/crop?source=0&track=1")
    assert (status, headers["Content-Type"], Image.open(io.BytesIO(data)).size) == (200, "image/jpeg", (40, 20))
    assert get(view, "/crop?source=0&track=2")[0] == 404
    view.write(ended(1, crop=GROUND[:10, :30]))
    assert Image.open(io.BytesIO(get(view, "/crop?source=0&track=1")[2])).size == (30, 10)
    view.write(ended(3, crop=np.zeros((3000, 4000, 3), np.uint8)))
    assert Image.open(io.BytesIO(get(view, "/crop?source=0&track=3")[2])).size == (96, 72)


def states(view, *wanted):
    """Status messages until the sources are so."""
    with closing(Events(view)) as events:
        while True:
            sources = events.until("status")[1]["sources"]
            if tuple(source["state"] for source in sources) == wanted:
                return sources


def test_each_source_is_waiting_live_dead_or_ended(monkeypatch):
    monkeypatch.setattr(health_module, "DEAD", 0.3)
    with page("a", "b") as view:
        states(view, "waiting", "waiting")
        view.show(1, frame(0), [])
        states(view, "waiting", "dead")
        monkeypatch.setattr(health_module, "DEAD", 60.0)
        view.show(1, frame(1), [])
        states(view, "waiting", "live")
        view.write(Gap(1, 0.0, 1.0, "reconnected"))
        view.write(Statistics(1, frames=2))  # those of every minute
        now = states(view, "waiting", "live")[1]
        assert (now["frames"], now["gaps"], now["reconnects"], now["width"]) == (2, 1, 1, 80)
        view.write(Statistics(1, frames=2, ended=True))
        states(view, "waiting", "ended")


def test_a_picture_that_stands_still_is_told(view):
    for number in range(4):
        view.show(0, frame(number, GROUND, step=2.0), [])
    states(view, "frozen")
    other = GROUND.copy()
    other[33, 33] += 1  # one pixel, of none that is looked at first
    view.show(0, frame(4, other, step=2.0), [])
    states(view, "live")


def test_drops_and_latency_are_told_by_source(view):
    source = view.board._health[0].source
    source.dropped = 7
    for number in range(4):
        view.show(0, replace(frame(number), arrived=time.monotonic() - 5), [])
    now = states(view, "live")[0]
    assert now["dropped"] == 7 and 5 <= now["latency"] < 20 and now["rate"] > 0


def test_viewers_are_told_of_the_end_and_the_port_is_free_again():
    view = page()
    events = Events(view)
    view.write(found(1))
    events.until("words")
    view.write(ended(1))
    view.close()
    rest = []
    while not rest or rest[-1][0] != "end":
        rest.append(events.next())
    assert [v[0]["event"] for kind, _, v in rest if kind == "words"] == ["word_ended"]
    view.close()
    with page(address=str(view.server.port)) as again:
        assert get(again, "/")[0] == 200
