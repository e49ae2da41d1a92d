"""Video files for tests: written by OpenCV, and changed by hand where OpenCV cannot write what is wanted."""

from __future__ import annotations

import importlib.util
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # OpenCV asks once, when it first writes or reads

RED = (0, 0, 200)  # BGR: the top left quarter of every frame
UNIT = 10240  # ticks a second of MP4 files: what FFmpeg takes for 10 frames a second


def needed(module: str, extra: str) -> ModuleType:
    """The module; where it is missing, the test file is skipped, but not in CI."""
    if importlib.util.find_spec(module) is None:
        missing = f"needs {module}: pip install 'clip4str[{extra}]'"
        if os.environ.get("CI"):
            pytest.fail(missing, pytrace=False)
        pytest.skip(missing, allow_module_level=True)
    return importlib.import_module(module)


def picture(number: int, size: tuple[int, int] = (64, 96)) -> np.ndarray:
    """BGR: red top left, a white bar below that grows with the number, grey elsewhere."""
    height, width = size
    pixels = np.full((height, width, 3), 40, np.uint8)
    pixels[: height // 2, : width // 2] = RED
    pixels[-height // 6 :, : 4 * number + 4] = 255
    return pixels


def clip(path: Path, frames: int = 20, size: tuple[int, int] = (64, 96), rate: float = 10, codec: str = "mp4v") -> Path:
    import cv2

    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), rate, size[::-1])
    assert writer.isOpened()
    for number in range(frames):
        writer.write(picture(number, size))
    writer.release()
    return path


def shown_for(path: Path, seconds: Sequence[float]) -> Path:
    """An MP4 file of clip's at 10 frames a second: every frame shown as long as said, in ticks of 1/UNIT."""
    ticks = [round(value * UNIT) for value in seconds]
    table = struct.pack(">II", 0, len(ticks)) + b"".join(struct.pack(">II", 1, each) for each in ticks)
    moov = _rewritten(_box(path, b"moov"), {b"stts": table}, {b"mdhd": sum(ticks), b"elst": sum(ticks) * 1000 // UNIT})
    return _with_box(path, b"moov", moov)


def turned(path: Path, degrees: int) -> Path:
    """An MP4 file of clip's, to be shown turned clockwise."""
    one = 1 << 16
    a, b, c, d = {90: (0, one, -one, 0), 180: (-one, 0, 0, -one), 270: (0, -one, one, 0)}[degrees]
    data = bytearray(path.read_bytes())
    matrix = data.find(b"tkhd") + 44
    data[matrix : matrix + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def flipped(path: Path, count: int, keep: int = 2000, seed: int = 0) -> Path:
    """So many bytes turned over, none of the first `keep`."""
    data = bytearray(path.read_bytes())
    for place in np.random.default_rng(seed).integers(keep, len(data), count):
        data[place] ^= 255
    path.write_bytes(data)
    return path


def _boxes(data: bytes) -> list[tuple[bytes, bytes]]:
    found, at = [], 0
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at : at + 8])
        found.append((kind, data[at + 8 : at + size]))
        at += size
    return found


def _box(path: Path, kind: bytes) -> bytes:
    return dict(_boxes(path.read_bytes()))[kind]


def _with_box(path: Path, kind: bytes, content: bytes) -> Path:
    data = b"".join(_packed(k, content if k == kind else old) for k, old in _boxes(path.read_bytes()))
    path.write_bytes(data)
    return path


def _packed(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", len(content) + 8, kind) + content


def _rewritten(content: bytes, tables: dict[bytes, bytes], durations: dict[bytes, int]) -> bytes:
    out = b""
    for kind, old in _boxes(content):
        if kind in (b"trak", b"mdia", b"minf", b"stbl", b"edts"):
            old = _rewritten(old, tables, durations)
        elif kind in tables:
            old = tables[kind]
        elif kind == b"mdhd":
            old = old[:16] + struct.pack(">I", durations[kind]) + old[20:]
        elif kind == b"elst":
            old = old[:8] + struct.pack(">I", durations[kind]) + old[12:]
        out += _packed(kind, old)
    return out


def y4m(pictures: Sequence[np.ndarray]) -> bytes:
    """YUV4MPEG2, ten frames a second, of (H, W, 3) uint8 RGB."""
    import cv2

    height, width = pictures[0].shape[:2]
    frames = [cv2.cvtColor(rgb, cv2.COLOR_RGB2YCrCb)[..., [0, 2, 1]].transpose(2, 0, 1).tobytes() for rgb in pictures]
    return b"".join([f"YUV4MPEG2 W{width} H{height} F10:1 Ip C444\n".encode(), *(b"FRAME\n" + f for f in frames)])
