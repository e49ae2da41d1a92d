"""PNG files as nobody's library writes them: any header, any chunks, gigabytes of zeros in a few kilobytes."""

from __future__ import annotations

import struct
import zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def header(width: int, height: int, bits: int = 8, colour: int = 0) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))


def zeros(count: int) -> bytes:
    """So many zeros, deflated."""
    packer, block = zlib.compressobj(1), bytes(1 << 20)
    parts = [packer.compress(block) for _ in range(count >> 20)]
    return b"".join([*parts, packer.compress(bytes(count & ((1 << 20) - 1))), packer.flush()])


def black(
    width: int, height: int, bits: int = 8, colour: int = 0, before: bytes = b"", rows: int | None = None
) -> bytes:
    """A whole black picture; before: chunks ahead of its pixels. rows: how many it really has."""
    row = 1 + (width * CHANNELS[colour] * bits + 7) // 8
    pixels = chunk(b"IDAT", zeros(row * (height if rows is None else rows)))
    return SIGNATURE + header(width, height, bits, colour) + before + pixels + chunk(b"IEND", b"")
