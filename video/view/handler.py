"""What is answered to whom."""

from __future__ import annotations

import io
import json
import re
import time
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from importlib import resources
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ..listening import PATIENCE, Server, read_head
from .access import Access
from .board import Board
from .pictures import Pictures

TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
STATUS, PAUSE = 1.0, 0.1  # seconds from status to status, and from one message to the next at least
PICTURE_WAIT = 5.0  # seconds to wait for a newer picture
REFUSED = (
    '<!doctype html><html lang="en"><meta name="viewport" content="width=device-width"><title>clip4str</title>'
    "<p>This page asks for its token: open the address that clip4str printed when it started.</p>"
    '<p>If you have just come from there: <a href="/">go on</a>.</p></html>'
)


def pages() -> dict[str, tuple[str, bytes]]:
    """Type and content of each file of the page, by its path."""
    files = {file.name: file.read_bytes() for file in (resources.files(__package__) / "page").iterdir()}
    found = {f"/{name}": (TYPES["." + name.rpartition(".")[2]], data) for name, data in files.items()}
    return {**found, "/": found["/index.html"]}


@dataclass(frozen=True)
class Site:
    """What a server serves, its `site`."""

    board: Board
    pictures: Pictures
    access: Access
    pages: dict[str, tuple[str, bytes]] = field(default_factory=pages)


class Handler(BaseHTTPRequestHandler):
    protocol_version, disable_nagle_algorithm = "HTTP/1.1", True
    server: Server
    _rest = b""

    def setup(self) -> None:
        super().setup()
        self.rfile.close()  # requests are read by read_head
        self.site: Site = self.server.site

    def handle_one_request(self) -> None:
        self.server.due(self.connection, PATIENCE, idle=True)
        self.close_connection = True
        read = None if self.server.closing.is_set() else read_head(self.connection, self._rest)
        if read is None:
            return
        head, self._rest = read
        self.rfile = io.BytesIO(head)
        self.server.due(self.connection, PATIENCE)
        super().handle_one_request()

    def do_GET(self) -> None:
        try:
            url = urlsplit(self.path)
            query = {k: v[-1] for k, v in parse_qs(url.query, max_num_fields=8, errors="strict").items()}
        except ValueError:
            return self.send_error(HTTPStatus.BAD_REQUEST)
        if self.request_version == "HTTP/0.9":
            return self.send_error(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
        if self.headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in self.headers:
            self.close_connection = True
            return self._say(HTTPStatus.BAD_REQUEST, "nothing is taken here")
        if not self.site.access.right_host(self.headers.get("Host")):
            return self._say(HTTPStatus.MISDIRECTED_REQUEST, "not this page's name")
        if self.site.access.from_elsewhere(self.headers, page=url.path == "/"):  # type: ignore[arg-type]
            return self._say(HTTPStatus.FORBIDDEN, "not for other sites' pages")
        if url.path == "/" and self.site.access.is_token(query.get("token", "")):
            return self._answer(HTTPStatus.SEE_OTHER, "text/plain", b"",
                                {"Location": "/", "Set-Cookie": self.site.access.set_cookie()})  # fmt: skip
        if not self.site.access.let_in("; ".join(self.headers.get_all("Cookie", []))):
            self.close_connection = True
            return self._answer(HTTPStatus.UNAUTHORIZED, "text/html", REFUSED.encode())
        self._route(url.path, query)

    do_HEAD = do_GET

    def _route(self, path: str, query: dict[str, str]) -> None:
        if path in self.site.pages:
            return self._answer(HTTPStatus.OK, *self.site.pages[path])
        if path == "/words.csv":
            name = {"Content-Disposition": 'attachment; filename="words.csv"'}
            return self._answer(
                HTTPStatus.OK, "text/csv", self.site.board.csv().encode(errors="backslashreplace"), name
            )
        if path == "/events":
            return self._events(self.headers.get("Last-Event-ID") or query.get("last", ""))
        numbers = {k: int(v) for k, v in query.items() if re.fullmatch(r"[0-9]{1,15}", v)}
        source = numbers.get("source", -1)
        if path == "/picture" and 0 <= source < len(self.site.board.names):
            data = self.site.pictures.newer(source, numbers.get("after", 0), PICTURE_WAIT)
            if data is None:
                return self._answer(HTTPStatus.NO_CONTENT, "application/octet-stream", b"")
            return self._answer(HTTPStatus.OK, "application/octet-stream", data)
        crop = self.site.board.crop(source, numbers.get("track", -1)) if path == "/crop" else None
        if crop is None:
            return self._say(HTTPStatus.NOT_FOUND, "nothing there")
        self._answer(HTTPStatus.OK, "image/jpeg", crop, {"Cache-Control": "private, max-age=3600, immutable"})

    def _events(self, last: str) -> None:
        """Server-sent events: "words" with those that changed, each time they do; "status" every second; "begin" before
        all words that are kept, for who knows none or comes from another run; "end", when the program does."""
        self.close_connection = True
        self._head(HTTPStatus.OK, "text/event-stream", {"Connection": "close"})
        if self.command == "HEAD":
            return
        run, _, known = last.partition("-")
        change, again = 0, run == self.site.board.run and re.fullmatch(r"[0-9]{1,15}", known) is not None
        if again:
            change = int(known)
        else:
            about = {"run": self.site.board.run, "sources": self.site.board.names, "kept": self.site.board.kept}
            self._event("begin", about, f"{self.site.board.run}-0")
        told = -STATUS
        while True:
            if time.monotonic() - told >= STATUS:
                told = time.monotonic()
                self._event("status", self.site.board.status())
            over = self.server.closing.is_set()  # asked first: nothing is written after that
            before, (change, words) = change, self.site.board.since(change)
            if words or change < before:
                self._event("words", words, f"{self.site.board.run}-{change}")
            if over:
                return self._event("end", {})
            self.server.closing.wait(PAUSE)
            self.site.board.wait(change, max(0.0, told + STATUS - time.monotonic()))

    def _event(self, kind: str, values: Any, identity: str = "") -> None:
        line = json.dumps(values, allow_nan=False, separators=(",", ":"))
        named = f"id: {identity}\n" if identity else ""
        self.server.due(self.connection, PATIENCE)
        self.wfile.write(f"event: {kind}\n{named}data: {line}\n\n".encode())
        self.server.due(self.connection, None)

    def _say(self, status: HTTPStatus, text: str) -> None:
        self._answer(status, "text/plain", f"{text}\n".encode())

    def _answer(self, status: HTTPStatus, kind: str, data: bytes, more: dict[str, str] | None = None) -> None:
        self.server.due(self.connection, PATIENCE)
        length = {} if status == HTTPStatus.NO_CONTENT else {"Content-Length": str(len(data))}
        self._head(
            status, kind, {**length, **({"Connection": "close"} if self.close_connection else {}), **(more or {})}
        )
        if self.command != "HEAD":
            self.wfile.write(data)

    def _head(self, status: HTTPStatus, kind: str, more: dict[str, str]) -> None:
        self.send_response(status)
        charset = "; charset=utf-8" if kind.startswith("text/") else ""
        for name, value in {**HEADERS, "Content-Type": kind + charset, **more}.items():
            self.send_header(name, value)
        self.end_headers()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What Python's parser of requests refuses."""
        self.close_connection, self.request_version = True, "HTTP/1.0"  # HTTP/0.9 has no status
        self._answer(HTTPStatus(code), "text/plain", f"{HTTPStatus(code).phrase}\n".encode())

    def version_string(self) -> str:
        return "clip4str"

    def log_message(self, format: str, *args: Any) -> None:
        pass
