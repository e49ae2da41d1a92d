"""What a name stands for."""

from __future__ import annotations

import glob
import os
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Union

from clip4str.core.errors import SourceError, UsageError
from clip4str.core.planes import LAYOUTS

from .base import Decoder, Source
from .files import check_file, open_decoder, open_file
from .folders import SUFFIXES, Pictures, in_folder, natural
from .given import Given
from .live import Newest
from .names import public_name, scheme
from .opencv import OpenCV
from .pipes import Pipe, parse_raw
from .ports import answering
from .prefetch import Prefetch
from .recorded import Recorded
from .streams import Stream
from .times import DEFAULT_RATE

ADDRESSES = ("rtsp", "rtsps", "rtmp", "rtmps", "http", "https", "srt", "udp", "rtp", "tcp")
What = Union[str, "os.PathLike[str]", int, Source, Iterable[Any]]


def open_source(
    what: What,
    *,
    rate: float | None = None,
    layout: str = "rgb",
    raw: str | None = None,
    live: bool | None = None,
    backend: str = "auto",
    timeout: float = 10.0,
    give_up: float | None = None,
    threads: int | None = None,
    ahead: int = 4,
) -> Source:
    """Frames of a video file, a folder of pictures, a pattern, a picture, an address (rtsp://, http://, ...), a camera
    (0, "0", "/dev/video0"), standard input ("-"), or of any iterable of Frames or uint8 arrays.

    rate: frames a second of pictures and arrays. layout: of arrays. raw: bare pixels on standard input,
    "1280x720@30:rgb24". live: keep the newest `ahead` frames, do not wait for who is late, and connect again where
    the source ends; None: of cameras, and of addresses that have no end; True, of a file: at its own pace. backend: see
    files.open_decoder; of a video file also "nvcodec", decoded on an NVIDIA GPU, where its frames stay: each until the
    next is asked for. timeout: seconds to wait for a connection or for data. give_up: seconds without a frame after
    which a live source fails; None: it is tried for ever. threads: of the decoder. ahead: frames decoded before they
    are asked for, 0 for none.

    Raises SourceError, one line, for what cannot be opened; UsageError for options that make no sense.
    """
    _check(rate, layout, timeout, give_up, ahead, threads)
    if isinstance(what, Source):
        return what
    if not isinstance(what, (str, os.PathLike, int)):
        if not isinstance(what, Iterable):
            raise UsageError(f"a source is a path, an address or an iterable of frames, not a {type(what).__name__}")
        return Given(what, rate, layout)
    if raw is not None and what != "-":
        raise UsageError("raw= is of standard input, '-'")
    camera = _camera(what)
    if camera is not None:
        if isinstance(camera, int) and camera < 0:
            raise UsageError(f"cameras are numbered from 0, not {camera}")
        _no_rate(rate, "a camera")
        device = f"camera {camera}"
        return _connected(lambda _: OpenCV(camera, device, timeout), lambda: None, False, live, give_up, ahead)
    text = os.fspath(what)  # type: ignore[arg-type]
    name = public_name(text)
    if not text:
        raise UsageError("an empty path names nothing; for this folder: .")
    if text == "-":
        return _threaded(Recorded(_pipe(raw)), live, False, ahead)
    if scheme(text) in ADDRESSES:
        _no_rate(rate, "an address")
        may_end = scheme(text).startswith("http")
        return _connected(
            lambda quick: open_decoder(text, name, backend, timeout, threads, quick),
            lambda: answering(text), may_end, live, give_up, ahead,
        )  # fmt: skip
    pictures = _pictures(Path(text), name, rate)
    if pictures is not None:
        return _threaded(Recorded(pictures), live, True, ahead)
    if scheme(text) and not Path(text).exists():
        raise SourceError(f"{name}: addresses begin with {', '.join(ADDRESSES)}://")
    _no_rate(rate, "a video file")
    if backend == "nvcodec":
        return _on_gpu(Path(text), name, live)
    return _threaded(Recorded(open_file(Path(text), name, backend, timeout, threads)), live, True, ahead)


def _check(
    rate: float | None, layout: str, timeout: float, give_up: float | None, ahead: int, threads: int | None
) -> None:
    if rate is not None and not 0 < rate <= 1000:
        raise UsageError(f"rate is over 0 and at most 1000 frames a second, not {rate:g}")
    if layout not in LAYOUTS:
        raise UsageError(f"layout is 'rgb', 'bgr' or 'nv12', not {layout!r}")
    if not 0 < timeout <= 3600:
        raise UsageError(f"timeout is over 0 and at most 3600 seconds, not {timeout:g}")
    if give_up is not None and not 0 < give_up <= 10**7:
        raise UsageError(f"give_up is over 0 and at most ten million seconds, not {give_up:g}")
    if not 0 <= ahead <= 64:
        raise UsageError(f"ahead is 0 to 64 frames, not {ahead}")
    if threads is not None and not 1 <= threads <= 64:
        raise UsageError(f"threads are 1 to 64, not {threads}")


def _no_rate(rate: float | None, what: str) -> None:
    if rate is not None:
        raise UsageError(f"{what} has times of its own: rate= is of pictures and arrays")


def _camera(what: Any) -> int | None:
    """A camera's number: 0, "0", "/dev/video0"."""
    if isinstance(what, int):
        return what
    text = os.fspath(what)
    digits = text.removeprefix("/dev/video")
    return int(digits) if digits.isdecimal() and len(digits) < 4 and not Path(digits).exists() else None


def _pipe(raw: str | None) -> Pipe:
    if sys.stdin.isatty():
        raise SourceError("standard input: is a terminal; video is to be piped in")
    # unbuffered: a thread that waits in a buffered read keeps Python from ending
    stream = open(sys.stdin.fileno(), "rb", buffering=0, closefd=False)  # noqa: SIM115
    return Pipe(stream, "standard input", parse_raw(raw) if raw is not None else None)


def _pictures(path: Path, name: str, rate: float | None) -> Pictures | None:
    if path.is_dir():
        return Pictures(in_folder(path, name), name, rate or DEFAULT_RATE)
    if not path.exists() and glob.has_magic(str(path)):
        found = sorted((Path(each) for each in glob.glob(str(path), recursive=True)), key=natural)  # noqa: PTH207
        if not found:
            raise SourceError(f"{name}: matches nothing")
        others = [each for each in found if each.suffix.lower() not in SUFFIXES]
        if others:
            raise SourceError(f"{name}: matches {others[0].name}, too, which is no picture")
        return Pictures(found, name, rate or DEFAULT_RATE)
    if path.suffix.lower() in SUFFIXES:
        return Pictures([path], name, rate or DEFAULT_RATE)
    return None


def _connected(
    connect: Callable[[bool], Decoder], answering: Callable[[], Callable[[], bool] | None],
    may_end: bool, live: bool | None, give_up: float | None, ahead: int,
) -> Source:  # fmt: skip
    """connect: quickly or not. may_end: a known number of frames makes it a file that lies elsewhere."""
    began = time.monotonic()
    decoder = connect(False)
    if live is False or (may_end and decoder.frames):
        return _threaded(Recorded(decoder), live, True, ahead)
    return _threaded(Stream(decoder, connect, give_up, answering(), began), True, False, ahead)


def _on_gpu(path: Path, name: str, live: bool | None) -> Source:
    """Without a thread: its frames hold until the next one is decoded."""
    if live:
        raise UsageError("backend='nvcodec' reads files as fast as they are asked for: leave out live=True")
    from .nvcodec import NvCodec

    check_file(path, name)
    return NvCodec(path, name)


def _threaded(source: Source, live: bool | None, paced: bool, ahead: int) -> Source:
    if live:
        return Newest(source, paced, max(1, ahead))
    return Prefetch(source, ahead) if ahead else source
