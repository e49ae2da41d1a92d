"""Cameras and files on a web server of this machine."""

import base64
import contextlib
import importlib.util
import re
import struct
import threading
import time
import warnings
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from clips import clip, needed, picture

from clip4str.core.errors import SourceError
from clip4str.runtime import Word
from clip4str.video import Gap, VideoReader, WordEnded, WordFound
from clip4str.video.detect import Detections
from clip4str.video.sources import open_source
from clip4str.video.sources import streams as streams_module

cv2 = needed("cv2", "video")
BACKENDS = ["opencv", "av"] if importlib.util.find_spec("av") else ["opencv"]
each_backend = pytest.mark.parametrize("backend", BACKENDS)
BASIC = "Basic " + base64.b64encode(b"me:s3cr3t").decode()
HEAD = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%s\r\n"


class White:
    """Detector and recogniser: one word, along the white bar."""

    def detect(self, frame):
        height, width = frame.size
        right, top = width // 3, height * 5 // 6
        quad = np.array([[[2, top], [right, top], [right, height - 2], [2, height - 2]]], np.float32)
        return Detections(quad, np.ones(1, np.float32))

    def read(self, images, on_error="raise"):
        return [Word("white", 0.95, (0.95,))] * len(images)


def faststart(data):
    """An MP4 file with its index before its frames: what it says of their places is put right."""
    boxes, at = [], 0
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at : at + 8])
        boxes.append((kind, data[at : at + size]))
        at += size
    index = bytearray(dict(boxes)[b"moov"])
    places = index.find(b"stco") + 8
    (count,) = struct.unpack(">I", index[places : places + 4])
    for at in range(places + 4, places + 4 + 4 * count, 4):
        index[at : at + 4] = struct.pack(">I", struct.unpack(">I", index[at : at + 4])[0] + len(index))
    return dict(boxes)[b"ftyp"] + bytes(index) + b"".join(box for kind, box in boxes if kind not in (b"ftyp", b"moov"))


class Camera(BaseHTTPRequestHandler):
    """A camera's moving JPEG: `plan` tells of each connection how many frames it sends, and whether it then hangs."""

    def do_GET(self):
        if "s3cr3t" in self.path and self.headers.get("Authorization") != BASIC:
            self.send_response(401)
            self.send_header("WWW-Authenticate", "Basic realm=camera")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.server.asked.append(self.path)
        if self.server.file is not None:
            self.send_file()
            return
        frames, hangs = self.server.plan.pop(0) if self.server.plan else (0, False)
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            for number in range(frames):
                data = cv2.imencode(".jpg", picture(number))[1].tobytes()
                self.wfile.write(HEAD % (len(data), data))
                self.wfile.flush()
                time.sleep(0.01)
            if hangs:
                self.server.over.wait(30)

    def send_file(self):
        """The file, or what is asked for of it; of each answer at most `most` bytes."""
        whole, start = self.server.file, 0
        if self.server.ranges and (asked := self.headers.get("Range", "")):
            start = int(asked.removeprefix("bytes=").partition("-")[0])
        self.send_response(206 if start else 200)
        if self.server.ranges:
            self.send_header("Accept-Ranges", "bytes")
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(whole) - 1}/{len(whole)}")
        self.send_header("Content-Length", str(len(whole) - start))
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(whole[start : start + self.server.most])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(streams_module.Stream.__init__, "__defaults__", (None, None, None, 0.01))  # first_wait
    server = ThreadingHTTPServer(("127.0.0.1", 0), Camera)
    server.plan, server.file, server.asked, server.over = [], None, [], threading.Event()
    server.ranges, server.most = False, 10**9
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    server.address = f"127.0.0.1:{server.server_port}"
    yield server
    server.over.set()
    server.shutdown()
    server.server_close()
    thread.join()


@each_backend
@pytest.mark.parametrize("hangs", [False, True])
def test_a_camera_that_stops_or_hangs_is_connected_to_again(server, backend, hangs):
    server.plan = [(30, hangs), (0, False), (30, False)]
    uri = f"http://me:s3cr3t@{server.address}/live?token=s3cr3t"
    with open_source(uri, backend=backend, timeout=1, give_up=20) as source:
        assert (source.name, source.size) == (f"http://{server.address}/live", (64, 96))
        frames = []
        while sum(frame.broken == "reconnected" for frame in frames) < 1:
            frames.append(next(source))
    assert {frame.broken for frame in frames} == {"", "reconnected"} and len(frames) > 2
    times = [frame.time for frame in frames]
    assert all(a < b for a, b in zip(times, times[1:])) and times[-1] < 30
    assert server.asked[:3] == ["/live?token=s3cr3t"] * 3  # let in with user and password


@each_backend
def test_a_film_on_a_server_is_a_file(server, backend, tmp_path):
    server.file = clip(tmp_path / "a.avi", 20, codec="MJPG").read_bytes()
    with open_source(f"http://{server.address}/a.avi", backend=backend, timeout=5) as source:
        assert not source.live
        assert [round(frame.time, 6) for frame in source] == [n / 10 for n in range(20)]


@each_backend
def test_a_film_without_a_known_length_ends_where_it_is_said_not_to_be_live(server, backend, tmp_path):
    server.file = clip(tmp_path / "a.ts", 20, rate=25, codec="mp2v").read_bytes()
    with open_source(f"http://{server.address}/a.ts", backend=backend, timeout=5, live=False) as source:
        assert len(list(source)) in (19, 20)


KINDS = {"mp4": "mp4v", "ts": "mp2v"}


@each_backend
@pytest.mark.parametrize("kind", KINDS)
def test_a_film_that_breaks_off_is_read_on_where_it_broke_off(server, backend, kind, tmp_path):
    server.file, server.ranges = clip(tmp_path / f"a.{kind}", 60, (480, 640), 25, codec=KINDS[kind]).read_bytes(), True
    with open_source(f"http://{server.address}/a.{kind}", backend=backend, timeout=5) as source:
        whole = [(frame.time, frame.pixels.mean()) for frame in source]
    server.asked.clear()
    server.most = len(server.file) // 3
    with open_source(f"http://{server.address}/a.{kind}", backend=backend, timeout=5) as source:
        assert [(frame.time, frame.pixels.mean()) for frame in source] == whole and len(whole) >= 59
    assert len(server.asked) >= 3


@each_backend
@pytest.mark.parametrize("kind", KINDS)
def test_a_film_that_breaks_off_for_good_is_told_and_its_words_end(server, backend, kind, tmp_path):
    server.file = clip(tmp_path / f"a.{kind}", 60, (480, 640), 25, codec=KINDS[kind]).read_bytes()
    if kind == "mp4":  # its index is at the end, and has to be there
        server.file = faststart(server.file)
    server.most = len(server.file) // 2
    source = open_source(f"http://{server.address}/a.{kind}", backend=backend, timeout=2, live=False)
    events, told = [], []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            for event in VideoReader(White(), White()).run(source):
                events.append(event)
        except SourceError as error:
            told.append(str(error))
    told += [str(each.message) for each in caught if each.category is UserWarning]
    if kind == "mp4":  # of the other nobody knows how long it is
        assert len(told) == 1 and re.search("cannot be read on|cut off", told[0]) and server.address in told[0]
    names = [type(event).__name__ for event in events]
    assert names.count("WordFound") == names.count("WordEnded") == 1
    assert events[-1].frames > 5 and names[-1] == "Statistics"


@each_backend
def test_words_of_a_camera_that_stops_end_once_each_and_gaps_lie_between(server, backend):
    server.plan = [(40, False), (0, False), (40, True), (40, False)]
    source = open_source(f"http://{server.address}/live", backend=backend, timeout=1, give_up=20)
    events = VideoReader(White(), White()).run(source)
    told = []
    while sum(isinstance(event, WordFound) for event in told) < 3:
        told.append(next(events))
    source.close()
    told += events
    gaps = [event for event in told if isinstance(event, Gap) and event.reason == "reconnected"]
    assert len(gaps) == 2 and gaps[0].end <= gaps[1].start
    words = [event for event in told if isinstance(event, WordEnded)]
    assert Counter(word.track for word in words) == Counter(e.track for e in told if isinstance(e, WordFound))
    for word in words:
        assert all(word.end <= gap.start + 1e-3 or word.start >= gap.end - 1e-3 for gap in gaps)


@each_backend
def test_nobody_there_is_one_line_and_a_server_that_says_nothing_too(server, backend):
    server.plan = [(0, True)] * 9
    for uri in (f"http://{server.address}/live", "http://127.0.0.1:9/live"):
        began = time.monotonic()
        with pytest.raises(SourceError, match="cannot be opened"):
            open_source(uri, backend=backend, timeout=0.5)
        assert time.monotonic() - began < 20
