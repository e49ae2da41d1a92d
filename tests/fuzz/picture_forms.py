"""How pictures are built: see forms.py."""

from __future__ import annotations

import struct
import zlib

from mutate import Mutator

PNG = b"\x89PNG\r\n\x1a\n"


def png(m: Mutator, data: bytes) -> bytes:
    """Chunks: kind and content, deflated content also from within."""
    if not data.startswith(PNG):
        raise ValueError
    parts, at = [], 8
    while at + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        parts.append(data[at + 4 : at + 8 + length])
        at += 12 + length
    parts = m.part(parts, lambda part: deflated(m, part, 4))
    return PNG + b"".join(struct.pack(">I", len(p[4:])) + p + struct.pack(">I", zlib.crc32(p)) for p in parts)


def deflated(m: Mutator, part: bytes, head: int) -> bytes:
    if part[:4] == b"IDAT" and m.random.random() < 0.5:
        unpacker = zlib.decompressobj()
        return part[:head] + zlib.compress(m.blind(unpacker.decompress(part[head:], 1 << 20)), 1)
    return part[:head] + m.blind(part[head:])


def jpeg(m: Mutator, data: bytes) -> bytes:
    """Segments; the last part is what follows the first scan's header."""
    if data[:2] != b"\xff\xd8":
        raise ValueError
    parts, at = [], 2
    while data[at] == 0xFF and data[at + 1] != 0xDA:
        (length,) = struct.unpack_from(">H", data, at + 2)
        parts.append(data[at + 1 : at + 2] + data[at + 4 : at + 2 + length])
        at += 2 + length
    parts = m.part([*parts, data[at:]])
    packed = (b"\xff" + p[:1] + struct.pack(">H", len(p) + 1 & 0xFFFF) + p[1:] for p in parts[:-1])
    return b"\xff\xd8" + b"".join(packed) + parts[-1]


def riff(m: Mutator, data: bytes) -> bytes:
    if data[:4] != b"RIFF":
        raise ValueError
    parts, at = [], 12
    while at + 8 <= len(data):
        (length,) = struct.unpack_from("<I", data, at + 4)
        parts.append(data[at : at + 4] + data[at + 8 : at + 8 + length])
        at += 8 + length + length % 2
    body = b"".join(
        p[:4] + struct.pack("<I", len(p[4:])) + p[4:] + bytes(len(p) % 2) for p in m.part(parts) if len(p) >= 4
    )
    return b"RIFF" + struct.pack("<I", len(body) + 4) + data[8:12] + body


def boxes(m: Mutator, data: bytes, depth: int = 0) -> bytes:
    """JPEG 2000's and AVIF's."""
    parts, at = [], 0
    while at + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        length = length or len(data) - at
        if length < 8 or not data[at + 4 : at + 8].replace(b" ", b"a").isalnum():
            raise ValueError
        parts.append(data[at + 4 : at + length])
        at += length
    if not parts:
        raise ValueError

    def inside(part: bytes) -> bytes:
        skip = 8 if part[:4] == b"meta" else 4
        try:
            return part[:skip] + boxes(m, part[skip:], depth + 1)
        except (ValueError, struct.error):
            return part[:4] + m.blind(part[4:])

    return b"".join(struct.pack(">I", len(p) + 4) + p for p in m.part(parts, inside))


def picture(m: Mutator, data: bytes) -> bytes:
    for form in (png, jpeg, riff, boxes):
        try:
            return form(m, data)
        except (ValueError, LookupError, struct.error, zlib.error):
            continue
    raise ValueError("of no known form")
