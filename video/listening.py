"""An HTTP server with bounds: connections, time, the size of a request. Python's own, as four kinds of answer need no
web framework, and none bounds more than this."""

from __future__ import annotations

import errno
import os
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from typing import Any

from clip4str.core.errors import UsageError, first_line

PATIENCE = 15.0  # seconds that a request may take to come, and a part of an answer to be taken
HEAD = 16384  # bytes of a request
WAITING = 1 << 17  # bytes of an answer that the system holds for a slow viewer; it would take megabytes


class Server(socketserver.ThreadingTCPServer):
    """Listens at once, answers from `start` on, on daemon threads named `name`, `connections` at once. option: of the
    command, named where it cannot listen: UsageError."""

    site: Any = None  # what the handler serves
    daemon_threads, block_on_close, request_queue_size = True, False, 16
    allow_reuse_address = os.name == "posix"  # elsewhere it would let two listen at one port

    def __init__(
        self, option: str, host: str, port: int, handler: type[BaseHTTPRequestHandler], connections: int, name: str
    ) -> None:
        self.connections, self.name = connections, name
        shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            self.address_family, address = found[0][0], found[0][4]
            super().__init__(address, handler)  # type: ignore[arg-type]
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            reason = "another program listens there; name another port" if taken else error.strerror or error
            raise UsageError(f"{option} {shown}: cannot be listened at: {reason}") from None
        self.host, self.port = str(self.server_address[0]), int(self.server_address[1])
        self.closing = threading.Event()
        self._lock = threading.Lock()
        self._due: dict[Any, tuple[float | None, bool]] = {}  # of each connection, see `due`
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self.serve_forever, args=(0.25,), name=self.name, daemon=True)
        self._thread.start()

    def close(self, patience: float = 1.0) -> None:
        """Handlers see `closing`, and may say goodbye for so many seconds; then they are cut off. Twice is no harm."""
        self.closing.set()
        self._cut(lambda _, idle: idle)
        if self._thread is not None:
            end = time.monotonic() + patience
            while self._due and time.monotonic() < end:
                time.sleep(0.01)
            self.shutdown()
            self._thread.join()
            self._thread = None
        self.server_close()
        self._cut(lambda *_: True)

    def due(self, connection: Any, seconds: float | None, idle: bool = False) -> None:
        """The connection is cut off after so many seconds, unless this is called again. None: never. idle: nothing was
        asked, and `close` waits for no goodbye."""
        with self._lock:
            if connection in self._due:
                self._due[connection] = None if seconds is None else time.monotonic() + seconds, idle

    def service_actions(self) -> None:
        now = time.monotonic()
        self._cut(lambda due, _: due is not None and due < now)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            full = len(self._due) >= self.connections or self.closing.is_set()
            if not full:
                self._due[request] = time.monotonic() + PATIENCE, True
        if full:
            self.shutdown_request(request)
        else:
            request.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, WAITING)
            super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._due.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):  # those are viewers that have gone
            print(f"{self.name}: {type(error).__name__}: {first_line(error)}", file=sys.stderr)

    def _cut(self, which: Callable[[float | None, bool], bool]) -> None:
        with self._lock:
            for connection, due in self._due.items():
                if which(*due):
                    with suppress(OSError):
                        connection.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits for it


def read_head(connection: socket.socket, rest: bytes) -> tuple[bytes, bytes] | None:
    """A request up to its empty line, and what came after that; None where it never comes, or is too long. rest: what
    came after the last one."""
    data = rest
    while (end := data.find(b"\r\n\r\n")) < 0:
        if len(data) > HEAD or not (more := connection.recv(4096)):
            return None
        data += more
    return (data[: end + 4], data[end + 4 :]) if end <= HEAD else None
