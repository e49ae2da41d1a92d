"""The server's token: out of the environment or a file, never an argument, which others can list."""

from __future__ import annotations

import hmac
import os
import re
from pathlib import Path

from clip4str.core.errors import UsageError

from .server_settings import VARIABLE

LOOPBACK = ("127.0.0.1", "::1", "localhost")
HAPROXY = "RAY_SERVE_ENABLE_HA_PROXY"  # Ray's
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{16,512}")
_MOST_BYTES = 4096


def given_token(file: str) -> str | None:
    """Of the file's first line, else of VARIABLE; None where there is neither. Raises UsageError, which does not show
    it."""
    if file:
        try:
            with Path(file).open("rb") as opened:
                token = opened.readline(_MOST_BYTES).decode("ascii", "replace").strip()
        except OSError as error:
            raise UsageError(f"{file}: {error.strerror or error}") from None
        where = file
    else:
        token, where = os.environ.get(VARIABLE, ""), VARIABLE
        if not token:
            return None
    if not _TOKEN.fullmatch(token):
        raise UsageError(f"{where}: a token is 16 to 512 of A-Z a-z 0-9 . _ ~ + / = -")
    return token


def needed(host: str, token: str | None, whose: str = "--host ") -> None:
    """Raises UsageError where others can reach the server, and no token keeps them out. With HAProxy replicas listen,
    too, and at all of a machine's addresses."""
    if token is None and (host not in LOOPBACK or os.environ.get(HAPROXY) == "1"):
        why = f"{whose}{host}" if host not in LOOPBACK else f"{HAPROXY}=1"
        raise UsageError(f"{why}: others can reach the server; set {VARIABLE}, or name a --token-file")


def is_token(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), token.encode())
