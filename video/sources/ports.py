"""Whether a server accepts connections: cheap to ask and soon answered, where a whole try costs seconds."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import closing
from urllib.parse import urlsplit

from .names import scheme

PORTS = {"rtsp": 554, "rtsps": 322, "rtmp": 1935, "rtmps": 443, "http": 80, "https": 443, "tcp": None}
ANSWER = 0.5  # seconds to wait for one. TCP itself asks a silent host again after 1, 2, 4, ... seconds: too seldom


def answering(uri: str) -> Callable[[], bool] | None:
    """A function that asks the port of an address; None where there is none to ask (UDP), or it does not answer now
    that it should: behind a proxy, or too far away."""
    parts = urlsplit(uri)
    port = parts.port or PORTS.get(scheme(uri))
    if scheme(uri) not in PORTS or port is None or not parts.hostname:
        return None
    host = parts.hostname

    def answers() -> bool:
        try:
            with closing(socket.create_connection((host, port), ANSWER)):
                return True
        except OSError:
            return False

    return answers if answers() else None
