"""What a source is, and what decoders hand to it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

from clip4str.core.errors import SourceError

from ..frames import Frame

MAX_PIXELS = 64_000_000  # of a frame: 8K video has 33 million; more is a mistake, or is meant to fill the memory
QUICKLY = {"fpsprobesize": "0", "analyzeduration": "200000"}  # FFmpeg's options: frames, microseconds of the stream


class Source:
    """Frames in their order: an iterator, and a context manager that closes it.

    name: without user, password and query of an address. live: frames come when they come, and only the newest is
    kept. size: (height, width) of the first frame. rate: frames a second. frames: how many there are to be, for a
    progress bar, as far as the file knows. None: not known. dropped: frames so far that nobody got. paused: somebody
    holds a live source up, and it is no fault of its that no frame comes.

    Iterating raises SourceError, one line, where the source cannot be read on.
    """

    name: str = ""
    live: bool = False
    size: tuple[int, int] | None = None
    rate: float | None = None
    frames: int | None = None
    dropped: int = 0
    paused: bool = False

    def __init__(self) -> None:
        self.stopping = threading.Event()  # set by another thread: ends waits for a connection

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __next__(self) -> Frame:
        raise NotImplementedError

    def wait(self, timeout: float | None = None) -> bool:
        """Whether next() would return or raise at once, waiting for that at most so many seconds."""
        return True

    def close(self) -> None:
        """Ends the source; twice does no harm."""

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Picture(NamedTuple):
    """One picture out of a decoder. time: seconds on the decoder's own clock, None where it has none."""

    pixels: Any
    time: float | None
    duration: float | None = None
    damaged: bool = False
    layout: str = "bgr"


class Decoder(Protocol):
    """Opens in its constructor, raising SourceError. A source's attributes, and:"""

    name: str
    rate: float | None
    frames: int | None
    dropped: int

    def pictures(self) -> Iterator[Picture]:
        """To the end of the file or connection. Called once. Raises SourceError."""

    def close(self) -> None: ...


class Sizeless(SourceError):
    """A video whose size nothing has told."""


def check_size(name: str, size: tuple[int, int]) -> None:
    """Raises SourceError for (height, width) that cannot be, or should not."""
    height, width = size
    if not height and not width:
        raise Sizeless(f"{name}: opened, but no picture came that tells its size")
    if height < 2 or width < 2:
        raise SourceError(f"{name}: frames of {width}x{height} pixels hold no word")
    if height * width > MAX_PIXELS:
        raise SourceError(f"{name}: frames of {width}x{height} pixels are more than the {MAX_PIXELS:,} allowed")


def silent(timeout: float) -> str:
    """Why a read that took that long is the last one: what FFmpeg gives after a time-out is what it had kept, and the
    next read waits as long again."""
    return f"sent nothing for {timeout:g} s"
