"""Frames out of a pipe: YUV4MPEG2, as `ffmpeg -f yuv4mpegpipe` writes it, or bare pixels of a size that is told."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from io import RawIOBase
from typing import Any, NamedTuple

import numpy as np

from clip4str.core.console import one_line
from clip4str.core.errors import SourceError, UsageError
from clip4str.core.planes import chosen_matrix

from ..frames import coloured
from .base import Picture, check_size

MAGIC = b"YUV4MPEG2 "
LONGEST = 1024  # bytes of a header, the stream's or a frame's
CHROMA = {"420": (2, 2), "422": (2, 1), "444": (1, 1)}  # pixels across and down that share a colour
_RAW = re.compile(r"(\d{1,6})x(\d{1,6})@(\d{1,4}(?:\.\d{1,6})?|\d{1,7}/\d{1,7}):(rgb24|bgr24|nv12)")
_HOW = "ffmpeg -i VIDEO -pix_fmt yuv420p -f yuv4mpegpipe - | clip4str video -"


class Layout(NamedTuple):
    """How the frames of a pipe lie. kind: rgb24, bgr24, nv12, mono, 420, 422 or 444, the last three plane by plane."""

    height: int
    width: int
    rate: float
    kind: str
    full_range: bool = False

    @property
    def chroma(self) -> tuple[int, int]:
        """(height, width) of the planes of colour."""
        across, down = CHROMA[self.kind]
        return -(-self.height // down), -(-self.width // across)

    @property
    def size(self) -> int:
        """Bytes of a frame."""
        pixels = self.height * self.width
        if self.kind in CHROMA:
            height, width = self.chroma
            return pixels + 2 * height * width
        return {"mono": pixels, "nv12": pixels * 3 // 2}.get(self.kind, pixels * 3)


def parse_raw(text: str) -> Layout:
    """ "1280x720@30:rgb24": width, height, rate (30, 29.97 or 30000/1001), and rgb24, bgr24 or nv12. UsageError."""
    found = _RAW.fullmatch(text)
    if not found:
        raise UsageError(f"raw is WIDTHxHEIGHT@RATE:rgb24, bgr24 or nv12, e.g. 1280x720@30:rgb24, not {text!r}")
    width, height, kind = int(found[1]), int(found[2]), found[4]
    if kind == "nv12" and (width % 2 or height % 2):
        raise UsageError(f"raw={text}: nv12 has an even width and height")
    return Layout(height, width, _rate(found[3].replace("/", ":")) or _bad_rate(text), kind)


def _bad_rate(text: str) -> float:
    raise UsageError(f"raw={text}: a rate is over 0 and at most 1000 frames a second")


class Pipe:
    """A Decoder. raw: for bare pixels; None for YUV4MPEG2. A last frame that is cut short is left out, with a warning,
    and counted as dropped: who writes may be ended at any time."""

    def __init__(self, stream: RawIOBase, name: str, raw: Layout | None = None) -> None:
        self.name, self._stream = name, stream
        self.frames: int | None = None
        self.dropped = 0
        self._headers = raw is None
        self.layout = raw or self._header()
        self.rate: float | None = self.layout.rate
        check_size(name, (self.layout.height, self.layout.width))

    def pictures(self) -> Iterator[Picture]:
        number = 0
        while True:
            head = self._line(b"FRAME") if self._headers else b""
            data = self._read(self.layout.size) if head or not self._headers else np.empty(0, np.uint8)
            if len(data) < self.layout.size:
                if head or len(data):
                    self.dropped += 1
                    hint = "" if self._headers else "; are its size and format as told?"
                    warnings.warn(f"{self.name}: ended within frame {number}, which is left out{hint}", stacklevel=2)
                return
            pixels, kind = _pixels(data, self.layout)
            yield Picture(pixels, number / self.layout.rate, 1 / self.layout.rate, layout=kind)
            number += 1

    def close(self) -> None:
        pass  # standard input is not ours

    def _read(self, size: int) -> np.ndarray:
        data = np.empty(size, np.uint8)
        view, filled = memoryview(data), 0  # type: ignore[arg-type]
        while filled < size:
            count = self._stream.readinto(view[filled:])
            if not count:
                break
            filled += count
        return data[:filled]

    def _line(self, start: bytes) -> bytes:
        """A header's line; b"" at the end of the stream. Byte by byte, as nothing behind it may be taken away."""
        line = bytearray()
        while len(line) <= LONGEST:
            byte = self._stream.read(1)
            if not byte and not line:
                return b""
            if byte == b"" and start.startswith(line):
                return bytes(line)
            if byte in (b"", b"\n"):
                break
            line += byte
            if not start.startswith(line[: len(start)]):
                break
        if not line.startswith(start):
            what = "no YUV4MPEG2 stream" if start == MAGIC else "no frame where one should begin"
            raise SourceError(f"{self.name}: {what}; {_HOW}")
        if len(line) > LONGEST:
            raise SourceError(f"{self.name}: a header of more than {LONGEST} bytes")
        return bytes(line)

    def _header(self) -> Layout:
        line = self._line(MAGIC)
        if not line:
            raise SourceError(f"{self.name}: nothing came; {_HOW}")
        fields = line.decode("ascii", "replace").split(" ")[1:]
        values = {field[:1]: field[1:] for field in fields if field and not field.startswith("X")}
        sides = [values.get(side, "") for side in "WH"]
        if not all(re.fullmatch(r"\d{1,6}", side) for side in sides):
            raise SourceError(f"{self.name}: its header tells no width or no height")
        kind = _kind(values.get("C", "420"))
        if kind is None:
            colours = one_line(values["C"][:20])
            raise SourceError(f"{self.name}: colours of kind {colours!r} are not read; {_HOW}")
        rate = _rate(values.get("F", "")) or 25.0
        return Layout(int(sides[1]), int(sides[0]), rate, kind, "XCOLORRANGE=FULL" in fields)


def _kind(text: str) -> str | None:
    if text in ("420", "420jpeg", "420mpeg2", "420paldv"):
        return "420"
    return text if text in ("422", "444", "mono") else None


def _rate(text: str) -> float | None:
    """ "30000:1001" or "29.97"; None for what is no rate: "0:0" stands for an unknown one."""
    numbers = text.split(":")
    try:
        rate = float(numbers[0]) / float(numbers[1] if len(numbers) > 1 else 1)
    except (ValueError, ZeroDivisionError):
        return None
    return rate if 0 < rate <= 1000 else None


def _pixels(data: np.ndarray, layout: Layout) -> tuple[Any, str]:
    """(pixels, layout of the Frame)."""
    height, width = layout.height, layout.width
    if layout.kind in ("rgb24", "bgr24"):
        return data.reshape(height, width, 3), layout.kind[:3]
    if layout.kind == "nv12":
        return data.reshape(height * 3 // 2, width), "nv12"
    luma = data[: height * width].reshape(height, width)
    if layout.kind == "mono":
        return np.repeat(_stretched(luma, layout)[:, :, None], 3, 2), "rgb"
    planes = data[height * width :].reshape(2, *layout.chroma)
    if layout.kind == "420" and not (height % 2 or width % 2 or layout.full_range):
        out = np.empty((height * 3 // 2, width), np.uint8)
        out[:height] = luma
        out[height:].reshape(height // 2, width // 2, 2)[:] = planes.transpose(1, 2, 0)
        return out, "nv12"
    across, down = CHROMA[layout.kind]
    chroma = planes.repeat(down, 1).repeat(across, 2)[:, :height, :width]
    # a header has no tag for the matrix: as of NV12, by the size
    return coloured(np.dstack([luma, *chroma]), chosen_matrix(None, (height, width)), layout.full_range), "rgb"


def _stretched(luma: np.ndarray, layout: Layout) -> np.ndarray:
    """Of television's range, 16 to 235, to 0 to 255."""
    if layout.full_range:
        return luma
    return np.clip(np.round((np.arange(256.0) - 16) * 255 / 219), 0, 255).astype(np.uint8)[luma]
