"""The corpus: hostile files by kind, made when a test wants them, each with how it must end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ANSWERED, REFUSED, EITHER = "answered", "refused", "either"


@dataclass(frozen=True)
class Hostile:
    """make(path) makes the file (or folder). ends: how it must end, within its door's memory and seconds, whichever it
    is. says: what the line of a refusal must match. starves: it may ask for any memory: SECURITY.md says so."""

    kind: str
    name: str
    make: Callable[[Path], Any]
    ends: str
    says: str
    starves: bool = False

    @property
    def id(self) -> str:
        return f"{self.kind}-{self.name}"


CORPUS: list[Hostile] = []


def hostile(
    kind: str, ends: str = REFUSED, says: str = "", name: str = "", starves: bool = False
) -> Callable[[Callable], Callable]:
    """Of a function that makes the file at the path it is given."""

    def add(make: Callable[[Path], Any]) -> Callable[[Path], Any]:
        CORPUS.append(Hostile(kind, name or make.__name__, make, ends, says, starves))
        return make

    return add


def each(kind: str, ends: str, files: dict[str, bytes | Callable[[], bytes]], says: str = "") -> None:
    """Files of given bytes by name."""
    for name, data in files.items():
        hostile(kind, ends, says, name)(lambda path, data=data: path.write_bytes(data() if callable(data) else data))
