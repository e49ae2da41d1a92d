"""The server's token: out of the environment or a file, never an argument, which others can list."""

from __future__ import annotations

import hmac
import os
import re
from pathlib import Path

from clip4str.core.errors import UsageError

from .settings import VARIABLE

_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{16,512}")
_MOST_BYTES = 4096


def given_token(file: str) -> str | None:
    """Of the file, else of VARIABLE; None where there is neither. Raises UsageError, which does not show it."""
    if file:
        try:
            with Path(file).open("rb") as opened:
                token = opened.read(_MOST_BYTES).decode("ascii", "replace").strip()
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


def is_token(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), token.encode())
