"""Pictures over HTTP: whole, or refused before more than a picture's bytes have come."""

from __future__ import annotations

import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

pytest.importorskip("fsspec")
pytest.importorskip("aiohttp")

from batch_inputs import CROPS

from clip4str.core.errors import ImageError, SourceError
from clip4str.serving.batch import listing, stores

CROP = CROPS[0].read_bytes()
ENDLESS = 200_000_000  # bytes that this server would send


class Store(BaseHTTPRequestHandler):
    """No ranges, and of most things no size."""

    sent: ClassVar[Counter[str]] = Counter()

    def do_GET(self):
        self.send_response(404 if self.path == "/none" else 200)
        if self.path in ("/cut", "/none"):
            self.send_header("Content-Length", str(len(CROP)) if self.path == "/cut" else "0")
        self.end_headers()
        left = {"/crop": CROP, "/cut": CROP[:1000]}.get(self.path, b"")
        try:
            for start in range(0, len(left), 700):
                self.wfile.write(left[start : start + 700])
                self.wfile.flush()
            while self.path == "/endless" and self.sent[self.path] < ENDLESS:
                self.sent[self.path] += self.wfile.write(bytes(1 << 16))
        except OSError:
            pass

    def log_message(self, *_):
        pass


@pytest.fixture
def url():
    with ThreadingHTTPServer(("127.0.0.1", 0), Store) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_picture_comes_whole_however_it_is_sent(url):
    assert stores.fetched(f"{url}/crop") == CROP


def test_an_address_with_a_query_is_no_pattern(url):
    """Signed addresses have one; they were left out in silence."""
    named = [f"{url}/a.jpg?sig=b&c=*", f"{url}/a.tar?sig=b/c"]
    listing.check(named)
    assert [(entry.kind, entry.path) for entry in listing.entries(named)] == list(zip(("files", "tar"), named))


def test_what_is_larger_than_a_picture_is_not_read_to_its_end(url, monkeypatch):
    monkeypatch.setattr(stores, "MOST_BYTES", 1 << 20)
    with pytest.raises(ImageError, match="more than 1,048,576 bytes"):
        stores.fetched(f"{url}/endless")
    assert Store.sent["/endless"] < ENDLESS / 4  # what buffers on the way hold is sent, too


def test_what_is_not_there_and_what_breaks_off(url, monkeypatch):
    monkeypatch.setattr(stores, "WAITS", (0.0,))
    with pytest.raises(ImageError, match="no such file"):
        stores.fetched(f"{url}/none")
    with pytest.raises(SourceError, match="cannot be reached"):
        stores.fetched(f"{url}/cut")
