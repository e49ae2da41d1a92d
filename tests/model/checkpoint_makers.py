"""Files that claim to be checkpoints: those of other people's ways to save, and bombs. Written byte by byte where no
library would write them; importable by fuzz tests."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch


def torch_bytes(value: object, **options: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def archive(pickled: bytes, entries: dict[str, bytes] | None = None) -> bytes:
    """torch's zip of a pickle, and storages by key."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as file:
        file.writestr("archive/data.pkl", pickled)
        file.writestr("archive/byteorder", "little")
        for key, content in (entries or {}).items():
            file.writestr(f"archive/data/{key}", content)
        file.writestr("archive/version", "3\n")
    return buffer.getvalue()


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value: int) -> bytes:
    data = value.to_bytes(max(1, (value.bit_length() + 8) // 8), "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def called(module: str, name: str, *arguments: bytes) -> bytes:
    return f"c{module}\n{name}\n".encode() + b"(" + b"".join(arguments) + b"tR"


def storage(key: str, count: int, kind: str = "FloatStorage") -> bytes:
    return b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text(key) + text("cpu") + number(count) + b"tQ"


def tensor(key: str, count: int, shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0) -> bytes:
    sizes = [b"(" + b"".join(map(number, values)) + b"t" for values in (shape, strides)]
    nothing = called("collections", "OrderedDict")
    return called("torch._utils", "_rebuild_tensor_v2", storage(key, count), number(offset), *sizes, b"\x89", nothing)


def state_dict(**values: bytes) -> bytes:
    """A pickle of names and what makes their values."""
    return b"\x80\x02}(" + b"".join(text(k.replace("__", ".")) + v for k, v in values.items()) + b"u."


def shared_bytes() -> bytes:
    """An archive whose thousand storages all are the bytes of its first."""
    count = 1 << 18
    names = [str(i) for i in range(1000)]
    pickled = b"\x80\x02}(" + b"".join(text(f"w{n}") + tensor(n, count, (count,), (1,)) for n in names) + b"u."
    whole = archive(pickled, dict.fromkeys(names, b"") | {"0": bytes(4 * count)})
    with zipfile.ZipFile(io.BytesIO(whole)) as file:
        place = {info.filename: info.header_offset for info in file.infolist()}
    end = whole.rindex(b"PK\x05\x06")
    directory = whole.index(b"PK\x01\x02")
    out, at = bytearray(whole), directory
    while at < end:
        sizes = struct.unpack("<HHH", whole[at + 28 : at + 34])
        name = whole[at + 46 : at + 46 + sizes[0]].decode()
        if name.startswith("archive/data/"):
            out[at + 16 : at + 28] = struct.pack("<III", 0, 4 * count, 4 * count)
            out[at + 42 : at + 46] = struct.pack("<I", place["archive/data/0"])
        at += 46 + sum(sizes)
    return bytes(out)


def many_entries(count: int = 300_000) -> bytes:
    """A directory of so many entries, all of them the same one."""
    entry = b"PK\x01\x02" + struct.pack("<HHHHHHIIIHHHHHII", 20, 20, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    local = b"PK\x03\x04" + struct.pack("<HHHHHIIIHH", 20, 0, 0, 0, 0, 0, 0, 0, 1, 0) + b"a"
    end = struct.pack("<HHHHIIH", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    size, start = count * len(entry), len(local)
    zip64 = b"PK\x06\x06" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, count, count, size, start)
    locator = b"PK\x06\x07" + struct.pack("<IQI", 0, start + size, 1)
    return local + entry * count + zip64 + locator + b"PK\x05\x06" + end


def layers(count: int) -> bytes:
    """A network of so many empty-handed layers: they share one number."""
    one = tensor("0", 1, (1,), (1,))
    names = [f"clip_model.visual.transformer.resblocks.{i}.ln_1.bias" for i in range(count)]
    names.append("clip_model.transformer.resblocks.0.ln_1.bias")
    big = {
        "clip_model.visual.conv1.weight": tensor("1", 192, (1, 3, 8, 8), (192, 64, 8, 1)),
        "clip_model.visual.positional_embedding": tensor("1", 192, (17, 1), (1, 1)),
        "clip_model.token_embedding.weight": tensor("1", 192, (96, 2), (2, 1)),
        "visual_decoder.head.weight": tensor("1", 192, (95, 1), (1, 1)),
        "cross_decoder.head.weight": tensor("1", 192, (95, 1), (1, 1)),
    }
    parts = [text(name) + one for name in names] + [text(name) + value for name, value in big.items()]
    return archive(b"\x80\x02}(" + b"".join(parts) + b"u.", {"0": bytes(4), "1": bytes(4 * 192)})


def safetensors_bytes(header: str, data: bytes = b"") -> bytes:
    encoded = header.encode()
    return struct.pack("<Q", len(encoded)) + encoded + data


# Each asked for gigabytes, minutes or the process when it was loaded by torch, or would by a plain unpickler.
BOMBS: dict[str, Callable[[], bytes]] = {
    "bytearray.pt": lambda: archive(state_dict(a=called("__builtin__", "bytearray", number(2**33)))),
    "tuple-of-range.pt": lambda: archive(
        state_dict(a=called("__builtin__", "list", called("__builtin__", "range", number(2**33))))
    ),
    "counter.pt": lambda: archive(
        state_dict(a=called("collections", "Counter", called("__builtin__", "range", number(2**31))))
    ),
    "defaultdict.pt": lambda: archive(
        b"\x80\x02" + called("collections", "defaultdict") + b"(" + b"K\x01]" * 400_000 + b"u."
    ),
    "stride-0.pt": lambda: archive(state_dict(a=tensor("0", 1, (2**15, 2**18), (0, 0))), {"0": bytes(4)}),
    "overlapping-views.pt": lambda: archive(
        b"\x80\x02}(" + b"".join(text(f"a{i}") + tensor("0", 2**18, (2**18,), (1,)) for i in range(4000)) + b"u.",
        {"0": bytes(2**20)},
    ),
    "claimed-storage.pt": lambda: archive(state_dict(a=tensor("0", 2**33, (2**33,), (1,))), {"0": bytes(64)}),
    "overlapping-entries.pt": shared_bytes,
    "many-entries.pt": many_entries,
    "memo-index.pt": lambda: archive(b"\x80\x02}r" + struct.pack("<I", 2**31) + b"."),
    "string-length.pt": lambda: archive(b"\x80\x02X" + struct.pack("<I", 2**32 - 1) + b"a."),
    "long-string.pt": lambda: archive(b"\x80\x02" + b"\x8d" + struct.pack("<Q", 2**40) + b"a."),
    "huge-integer.pt": lambda: archive(b"\x80\x02\x8b" + struct.pack("<I", 2**25) + b"\x01" * 2**25 + b"."),
    "digits.pt": lambda: archive(b"\x80\x02I" + b"9" * 2**22 + b"\n."),
    "deep-lists.pt": lambda: archive(b"\x80\x02" + b"]" * 450_000 + b"a" * 449_999 + b"."),
    "deep-tuples.pt": lambda: archive(b"\x80\x02})" + b"\x85" * 900_000 + b"Ns."),
    "deep-calls.pt": lambda: archive(
        b"\x80\x02"
        + b"ctorch._tensor\n_rebuild_from_type_v2\n"
        + b"h\x00N".join([b"q\x00"] + [b""] * 20_000)
        + b")"
        + b"\x87" * 20_000
        + b"R."
    ),
    "dictionaries.pt": lambda: archive(b"\x80\x02(" + b"}" * 40_000_000 + b"t."),
    "sets.pt": lambda: archive(b"\x80\x04(" + b"\x8f" * 40_000_000 + b"t."),
    "layers.pt": lambda: layers(20_000),
    "protocol-5-buffer.pt": lambda: archive(b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"a."),
    "legacy-claims.pt": lambda: _legacy(tensor("0", 2**33, (2**33,), (1,)), "0", 2**33),
    "empty-and-huge.safetensors": lambda: safetensors_bytes(
        '{"clip_model.visual.conv1.weight":{"dtype":"F32","shape":[0,1000000000000000000,8,4],"data_offsets":[0,0]}}'
    ),
    "header.safetensors": lambda: struct.pack("<Q", 2**40) + b"{",
    "nested.safetensors": lambda: safetensors_bytes("{" + '"a":{' * 500_000),
}


def _legacy(value: bytes, key: str, count: int) -> bytes:
    begin = b"".join(pickle.dumps(v, 2) for v in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
    keys = b"\x80\x02](" + text(key) + b"e."
    return begin + state_dict(a=value) + keys + struct.pack("<q", count) + bytes(64)


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path
