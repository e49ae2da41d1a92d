"""Cameras and files on a web server of this machine."""

import base64
import contextlib
import importlib.util
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from clips import clip, needed, picture

from clip4str.core.errors import SourceError
from clip4str.video.sources import open_source
from clip4str.video.sources import streams as streams_module

cv2 = needed("cv2", "video")
BACKENDS = ["opencv", "av"] if importlib.util.find_spec("av") else ["opencv"]
each_backend = pytest.mark.parametrize("backend", BACKENDS)
BASIC = "Basic " + base64.b64encode(b"me:s3cr3t").decode()
HEAD = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%s\r\n"


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
            self.send_response(200)
            self.send_header("Content-Length", str(len(self.server.file)))
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                self.wfile.write(self.server.file)
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

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(streams_module.Stream.__init__, "__defaults__", (None, 0.01))  # first_wait
    server = ThreadingHTTPServer(("127.0.0.1", 0), Camera)
    server.plan, server.file, server.asked, server.over = [], None, [], threading.Event()
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


@each_backend
def test_nobody_there_is_one_line_and_a_server_that_says_nothing_too(server, backend):
    server.plan = [(0, True)] * 9
    for uri in (f"http://{server.address}/live", "http://127.0.0.1:9/live"):
        began = time.monotonic()
        with pytest.raises(SourceError, match="cannot be opened"):
            open_source(uri, backend=backend, timeout=0.5)
        assert time.monotonic() - began < 20
