"""What a load goes to. A target is an async context manager: inside, its server runs and `send` reads a picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Setup:
    """How a server is to run. folder: an empty one for what it writes."""

    bundle: Path
    folder: Path
    instances: int = 1
    max_batch: int = 16
    delay_ms: float = 2.0
    queue: int = 16


class Target(Protocol):
    """Entered once. what: the server and its version."""

    what: str

    async def __aenter__(self) -> Target: ...

    async def __aexit__(self, *_: object) -> None: ...

    async def send(self, picture: bytes) -> str:
        """The word of an encoded picture. Raises arrivals.Refused, or what the server's client raises."""

    def counts(self) -> tuple[int, int]:
        """(pictures read, batches), as the server counts since it started."""
