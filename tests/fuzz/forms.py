"""How inputs are built: a change in one part, and lengths and checksums that are right again, so that what lies behind
the first check is reached."""

from __future__ import annotations

import io
import json
import lzma
import math
import pickletools
import struct
import zipfile
import zlib
from typing import Any

from mutate import Form, Mutator


def text(m: Mutator, data: bytes) -> bytes:
    """JSON: a value, key or nesting."""
    value = json.loads(data)
    return json.dumps(json_value(m, value)).encode()


def json_value(m: Mutator, value: Any) -> Any:
    """value with something in it, or itself, changed."""
    if isinstance(value, dict) and value and m.random.random() < 0.9:
        key = m.random.choice(list(value))
        dice = m.random.random()
        if dice < 0.08:
            return {k: v for k, v in value.items() if k != key}
        if dice < 0.14:
            return {(_odd(m) if k == key else k): v for k, v in value.items()}  # a key must be a text: see _odd
        if dice < 0.2:
            return {**value, str(_odd(m)): m.random.choice(list(value.values()))}
        return {**value, key: json_value(m, value[key])}
    if isinstance(value, list) and value and m.random.random() < 0.9:
        at = m.random.randrange(len(value))
        return [*value[:at], json_value(m, value[at]), *value[at + m.random.choice((0, 1, 1, 1)) :]]
    if isinstance(value, str) and value[:1] in ("{", "[") and m.random.random() < 0.9:
        try:
            return json.dumps(json_value(m, json.loads(value)))  # JSON within JSON
        except ValueError:
            pass
    if isinstance(value, str) and value and m.random.random() < 0.4:
        return m.blind(value.encode("utf-8", "surrogatepass")).decode("latin-1")
    if isinstance(value, (int, float)) and m.random.random() < 0.4:
        return value + m.random.choice((-1, 1, 0.5, value, -2 * value))
    return m.random.choice((lambda: _odd(m), lambda: [value], lambda: {"a": value}, lambda: _deep(m)))()


ODD: tuple[Any, ...] = (10**20, 10**400, 1e308, math.inf, math.nan, True, False, None, "", "../x", "/etc/passwd", "\0",
                        "a\nb\x1b[31m", "\ud800", "x" * 3000, [], {})  # fmt: skip


def _odd(m: Mutator) -> Any:
    number = m.number()
    return m.random.choice((number, -number, number + 0.5, str(number), *ODD))


def _deep(m: Mutator) -> Any:
    value: Any = 0
    for _ in range(m.random.choice((3, 50, 400))):
        value = m.random.choice(([value], {"a": value}))
    return value


def safetensors(m: Mutator, data: bytes) -> bytes:
    (size,) = struct.unpack_from("<Q", data)
    header, body = data[8 : 8 + size], data[8 + size :]
    if m.random.random() < 0.8:
        header = text(m, header) if m.random.random() < 0.8 else m.blind(header)
    else:
        body = m.blind(body)
    return struct.pack("<Q", len(header)) + header + body


def atlas(m: Mutator, data: bytes) -> bytes:
    """A safetensors file of LZMA streams: also from within."""
    if m.random.random() < 0.5:
        return safetensors(m, data)
    (size,) = struct.unpack_from("<Q", data)
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    parts: dict[str, bytes] = {}
    for name, entry in header.items():
        if name != "__metadata__":
            start, end = entry["data_offsets"]
            parts[name] = body[start:end]
    chosen = m.random.choice(sorted(parts))
    try:
        unpacked = lzma.LZMADecompressor(memlimit=1 << 26).decompress(parts[chosen], 1 << 20)
        parts[chosen] = lzma.compress(m.blind(unpacked), preset=0)
    except (lzma.LZMAError, EOFError):
        parts[chosen] = m.blind(parts[chosen])
    body = b""
    for name, part in parts.items():
        header[name]["data_offsets"] = [len(body), len(body) + len(part)]
        if header[name]["dtype"] == "U8":
            header[name]["shape"] = [len(part)]
        body += part
    packed = json.dumps(header).encode()
    return struct.pack("<Q", len(packed)) + packed + body


NAMES = tuple(name.replace(" ", "\n").encode() + b"\n" for name in (
    "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter", "torch._utils _rebuild_sparse_tensor",
    "torch._utils _rebuild_qtensor", "torch.serialization _get_layout", "torch Size", "torch device",
    "torch FloatStorage", "torch HalfTensor", "collections OrderedDict", "collections Counter", "builtins bytearray",
    "builtins getattr",
    "os system", "argparse Namespace", "omegaconf.listconfig ListConfig", "numpy._core.multiarray scalar",
    "pathlib PosixPath"))  # fmt: skip


def pickled(m: Mutator, data: bytes) -> bytes:
    """Opcodes with their arguments."""
    starts = [at for _, _, at in pickletools.genops(data)]
    parts = [data[a:b] for a, b in zip(starts, [*starts[1:], len(data)])]

    def argument(part: bytes) -> bytes:
        if part[:1] == b"c":
            return b"c" + m.random.choice(NAMES)
        if part[:1] in b"KMJ" and m.random.random() < 0.8:
            return m.random.choice(
                (b"J" + struct.pack("<I", m.number(2**32 - 1)), b"\x8a\x09" + struct.pack("<Qb", m.number(), 0))
            )
        return part[:1] + m.blind(part[1:]) if len(part) > 1 else bytes([m.random.randrange(256)])

    return b"".join(m.part(parts, argument))


def checkpoint(m: Mutator, data: bytes) -> bytes:
    """What torch.save writes, in both its forms, and safetensors."""
    if data[:2] == b"PK":
        return archive(m, data)
    if data[:1] == b"\x80":
        return pickled(m, data[: 1 << 16])
    return safetensors(m, data)


def archive(m: Mutator, data: bytes) -> bytes:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as read:
            parts = [(entry.filename, read.read(entry)) for entry in read.infolist()[:200]]
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, zlib.error) as error:
        raise ValueError from error
    at = m.random.choice([k for k, (name, _) in enumerate(parts) if m.random.random() < 0.1 or name.endswith(".pkl")])
    name, content = parts[at]
    dice = m.random.random()
    if dice < 0.85:
        parts[at] = name, pickled(m, content) if name.endswith(".pkl") else m.blind(content)
    elif dice < 0.95:
        parts[at] = m.blind(name.encode()).decode("latin-1"), content
    else:
        parts.insert(at, parts[at])
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        for entry, inside in parts:
            made.writestr(zipfile.ZipInfo(entry or "a"), inside)  # its time is 1980: the same input from the same seed
    return buffer.getvalue()


def varint(value: int, length: int = 0) -> bytes:
    groups = [value >> 7 * k & 127 for k in range(max(length, -(-value.bit_length() // 7), 1))]
    return bytes(g | 128 for g in groups[:-1]) + bytes(groups[-1:])


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 128:
            return value, at


def protobuf(m: Mutator, data: bytes, depth: int = 0) -> bytes:
    """Fields, and those of the messages in them; tags and lengths also in other ways of writing them."""
    fields: list[tuple[int, bytes | int]] = []
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        if tag & 7 == 2:
            length, at = _read_varint(data, at)
            if at + length > len(data):
                raise ValueError
            fields.append((tag, data[at : at + length]))
            at += length
        elif tag & 7 == 0:
            value, at = _read_varint(data, at)
            fields.append((tag, value))
        elif tag & 7 in (1, 5) and tag >> 3:
            size = 8 if tag & 7 == 1 else 4
            fields.append((tag, int.from_bytes(data[at : at + size], "little")))
            at += size
        else:
            raise ValueError
    if not fields:
        raise ValueError
    chosen, odd = m.random.randrange(len(fields)), m.random.random()

    def written(k: int, tag: int, value: bytes | int) -> bytes:
        long = m.random.choice((0, 5, 10)) if k == chosen and odd < 0.15 else 0
        if k == chosen:
            if odd < 0.08:
                tag += m.random.choice((1 << 32, 1 << 35, 8, -8, 1, 2, 3)) if tag > 8 else 8
            elif odd >= 0.15:
                value = inside(value)
        if isinstance(value, bytes):
            return varint(tag, long) + varint(len(value), long) + value
        if tag & 7 in (1, 5):
            size = 8 if tag & 7 == 1 else 4
            return varint(tag, long) + (value & (1 << 8 * size) - 1).to_bytes(size, "little")
        return varint(tag, long) + varint(value, long)

    def inside(value: bytes | int) -> bytes | int:
        if isinstance(value, int):
            return m.number()
        if depth < 12 and m.random.random() < 0.8:
            try:
                return protobuf(m, value, depth + 1)
            except (ValueError, LookupError):
                pass
        return m.blind(value)

    parts = [written(k, tag, value) for k, (tag, value) in enumerate(fields)]
    if odd > 0.85:
        parts = m.part(parts, lambda part: part)
    return b"".join(parts)


def pages(size: int = 4096) -> Form:
    """An LMDB's: heads and the tables of nodes behind them, or whole pages."""

    def change(m: Mutator, data: bytes) -> bytes:
        parts = [data[at : at + size] for at in range(0, len(data), size)]
        if not parts:
            raise ValueError

        def head(page: bytes) -> bytes:
            """A field of the head, of the table, or of a node that the table names."""
            at = m.random.choice((8, 10, 12, 14, 16, 40, 88, 92, 94, 120, 128, 136, 144))
            if m.random.random() < 0.6 and len(page) == size:
                below = min(size, max(16, struct.unpack_from("<H", page, 12)[0]))
                table = struct.unpack_from(f"<{(below - 16) // 2}H", page, 16)
                if table:
                    at = min(size - 8, m.random.choice(table) + m.random.choice((0, 2, 4, 6)))
            value = m.random.choice((m.number(), m.random.randrange(len(parts) + 2), m.random.randrange(size)))
            new = struct.pack("<Q", value)[: m.random.choice((2, 2, 4, 8))]
            return page[:at] + new + page[at + len(new) :]

        return b"".join(m.part(parts, head))

    return change
