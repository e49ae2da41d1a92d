"""The page as an output: a Sink of events, and of frames."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Sequence

from ..events import Event
from ..frames import Frame
from ..listening import Server
from ..options import listening_address
from ..sources.base import Source
from .access import Access, given_token, is_loopback
from .board import Board
from .handler import Handler, Site
from .pictures import Pictures, Words

CONNECTIONS = 64  # at once; a page holds two, and for moments a few more


class View:
    """A Sink. address: [HOST:]PORT, of this machine alone unless a host is named. token: what is asked of viewers; the
    environment's where it is None, or else, where others can reach the address, a new one. link: what to open, with a
    new token in it.

    The address is taken at once, and answers from `start` on. Nothing here waits for a viewer. Raises UsageError for an
    address or token that cannot be, or a port that is taken.
    """

    def __init__(self, address: str, token: str | None = None) -> None:
        host, port = listening_address(address, "--view")
        given = given_token(token)
        self.server = Server("--view", host, port, Handler, CONNECTIONS, "the page to watch")
        loopback = is_loopback(self.server.host)
        made = None if given or loopback else secrets.token_urlsafe(24)
        self.access = Access(given or made, loopback, self.server.port)
        self.link = self._url(host) + (f"?token={made}" if made else "")
        self.board: Board | None = None
        self.pictures: Pictures | None = None

    def start(self, sources: Sequence[Source]) -> None:
        self.pictures = Pictures(len(sources))
        self.board = Board(sources, self.pictures)
        self.server.site = Site(self.board, self.pictures, self.access)
        self.server.start()

    def show(self, source: int, frame: Frame, words: Words) -> None:
        """A source's next frame, and the words in it."""
        if self.board is not None and self.pictures is not None:
            self.board.frame(source, frame)
            self.pictures.show(source, frame, [word._replace(quad=word.quad.copy()) for word in words])

    def write(self, event: Event) -> None:
        if self.board is not None:
            self.board.write(event)

    def close(self) -> None:
        """Viewers are told that this is the end."""
        self.server.closing.set()
        if self.board is not None and self.pictures is not None:
            self.board.close()
            self.pictures.close()
        self.server.close()

    def __enter__(self) -> View:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _url(self, host: str) -> str:
        if self.server.host in ("0.0.0.0", "::"):
            host = _own_address()
        return f"http://{f'[{host}]' if ':' in host else host}:{self.server.port}/"


def _own_address() -> str:
    """By which others reach this machine, most likely. No packet is sent for it."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("192.0.2.1", 9))
            return str(probe.getsockname()[0])
    except OSError:
        return socket.gethostname()
