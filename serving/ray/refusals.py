"""Why a request gets no words: a status, a type for programs, one line for people. Nothing of this machine is in it."""

from __future__ import annotations

from collections.abc import Mapping

TYPES = {  # of every error that is answered: type -> status
    "bad_request": 400, "unauthorized": 401, "not_found": 404, "method_not_allowed": 405, "too_large": 413,
    "unsupported_media_type": 415, "unprocessable": 422, "not_installed": 404, "overloaded": 429, "internal": 500,
    "unavailable": 503,
}  # fmt: skip


class Refused(Exception):
    """kind: of TYPES."""

    def __init__(self, kind: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.kind, self.message, self.headers = kind, message, dict(headers or {})

    @property
    def status(self) -> int:
        return TYPES[self.kind]


def kind_of(status: int) -> str:
    other = "bad_request" if status < 500 else "internal"
    return next((kind for kind, known in TYPES.items() if known == status), other)
