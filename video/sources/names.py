"""What a source may be called in public."""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit

from clip4str.core.console import one_line
from clip4str.core.errors import UsageError

_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)://")
_SECRET = re.compile(r"((?:pass(?:word|wd)?|pwd|token|secret|key|auth)[=:])[^/&;]*", re.IGNORECASE)


def scheme(uri: str) -> str:
    """Of an address, in lower case; "" for a path."""
    found = _SCHEME.match(uri)
    return found[1].lower() if found else ""


def public_name(uri: str | os.PathLike[str]) -> str:
    """A path as it is; an address without user, password, query and fragment, and without all that is before its last
    "@": passwords are written with "/", "?", "#" and "@" in them. Some cameras want the password within
    the path: what follows "password=" there goes, too. Raises UsageError for an address that is none."""
    text = os.fspath(uri)
    if not scheme(text):
        return one_line(text)
    try:
        urlsplit(text)
        parts = urlsplit(f"{scheme(text)}://{text.partition('://')[2].rpartition('@')[2]}")
        host = parts.hostname or ""
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        raise UsageError(f"{scheme(text)}://...: its host or port cannot be") from None
    host = f"[{host}]" if ":" in host else host
    path = _SECRET.sub(r"\1...", parts.path)
    return one_line(f"{parts.scheme}://{host}{port}{path}")
