"""Hostile checkpoints: pickles that run code or grow, archives that lie, tensors of nothing, weights of no numbers."""

from __future__ import annotations

import collections
import io
import json
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from corpus import ANSWERED, EITHER, REFUSED, each, hostile
from safetensors.torch import save as save_safetensors

KIND = "checkpoints"
MB = 1 << 20
HYPER = {"charset_train": "abc", "charset_test": "abc", "img_size": [32, 64], "dec_num_heads": 2}


@cache
def network() -> dict[str, torch.Tensor]:
    """The state_dict of a network of 40 KB."""
    from clip4str.model import Clip4Str, Config

    torch.manual_seed(0)
    model = Clip4Str(Config(
        image_size=(32, 64), patch_size=(32, 32), image_width=8, image_layers=1, text_width=8, text_layers=1,
        text_positions=16, vocabulary=514, d=8, decoder_heads=2, decoder_mlp=8, steps=4, charset="abc",
        charset_test="abc"))  # fmt: skip
    return {k: torch.rand(v.shape) for k, v in model.state_dict().items()}


def state(**changes: Any) -> dict[str, Any]:
    return {k: changes.get(k.replace(".", "_"), v) for k, v in network().items()}


def lightning(weights: Any = None, **beside: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save({"state_dict": network() if weights is None else weights, "hyper_parameters": HYPER, **beside}, buffer)
    return buffer.getvalue()


def legacy() -> bytes:
    buffer = io.BytesIO()
    torch.save({"state_dict": network(), "hyper_parameters": HYPER}, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def safetensors(weights: dict[str, torch.Tensor] | None = None, metadata: dict[str, str] | None = None) -> bytes:
    return save_safetensors(weights or network(), metadata)


SAID = {"charset": "abc", "charset_test": "abc", "image_size": [32, 64], "decoder_heads": 2}


def ours(weights: dict[str, torch.Tensor] | None = None, **changed: Any) -> bytes:
    """Safetensors as we write them, with all that the tensors do not say."""
    return safetensors(weights, {"clip4str": json.dumps({**SAID, **changed})})


def header_changed(change: Callable[[dict[str, Any]], Any]) -> bytes:
    """A safetensors file with another header before the same bytes."""
    data = ours()
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    text = json.dumps(change(header) or header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + size :]


def archive(pickled: bytes, method: int = zipfile.ZIP_STORED, **more: bytes) -> bytes:
    """What torch.save would have written, with any pickle in it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as made:
        made.writestr("archive/data.pkl", pickled)
        made.writestr("archive/byteorder", b"little")
        made.writestr("archive/data/0", more.pop("storage", bytes(64)))
        for name, data in more.items():
            made.writestr(f"archive/{name}", data)
        made.writestr("archive/version", b"3\n")
    return buffer.getvalue()


def overlapping(count: int = 2000, size: int = MB) -> bytes:
    """Many names in the directory of an archive, all of the same bytes."""
    plain = archive(pickle.dumps({}), storage=bytes(size))
    end = plain.rindex(b"PK\5\6")
    (start,) = struct.unpack("<I", plain[end + 16 : end + 20])
    directory = plain[start:end]
    entry = directory[directory.index(b"archive/data/0") - 46 :][: 46 + len(b"archive/data/0")]
    names = (f"archive/data{n % 10**4:04}"[:14].encode() for n in range(count))
    more = directory + b"".join(entry[:46] + name.ljust(14, b"0") for name in names)
    tail = struct.pack("<HHIIH", 4 + count, 4 + count, len(more), start, 0)
    return plain[:start] + more + plain[end : end + 8] + tail


def tensor(*arguments: bytes) -> bytes:
    """Opcodes of torch._utils._rebuild_tensor_v2(...): storage 0 of 16 floats, offset, size, stride."""
    storage = b"(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0000X\3\0\0\0cpuK\x10tQ"
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"".join(arguments) + b"\x89ccollections\nOrderedDict\n)RtR"
    )


def one_tensor(offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> bytes:
    parts = [pickle.dumps(value, 2)[2:-1] for value in (offset, size, stride)]
    return archive(b"\x80\2}X\1\0\0\0w" + tensor(*parts) + b"s.")


def calling(name: str, *arguments: Any) -> bytes:
    """A pickle that calls module.name with these."""
    module, _, function = name.rpartition(".")
    return b"\x80\2c" + f"{module}\n{function}\n".encode() + pickle.dumps(arguments, 2)[2:-1] + b"R."


def beside_weights(pickled: bytes) -> bytes:
    """The same among the hyper-parameters of a checkpoint that is whole otherwise."""
    plain = lightning(extra="MARK-MARK-MARK")
    read = zipfile.ZipFile(io.BytesIO(plain))
    mark = b"X\x0e\0\0\0MARK-MARK-MARK"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        for entry in read.infolist():
            data = read.read(entry)
            if entry.filename.endswith("data.pkl"):
                assert mark in data
                data = data.replace(mark, pickled.removeprefix(b"\x80\2").removesuffix(b"."))
            made.writestr(entry.filename, data)
    return buffer.getvalue()


def laughs(depth: int = 60) -> bytes:
    """Lists of the same list twice, and so on: short to load, endless to print, compare or walk."""
    return b"\x80\2]" + b"".join(b"q%c0]h%ch%c\x86\x85" % (n, n, n) for n in range(depth)) + b"."


NAMES = ["os.system", "posix.system", "subprocess.Popen", "builtins.eval", "builtins.exec", "builtins.__import__",
         "runpy.run_path", "torch.hub.load", "torch.load", "torch.storage._load_from_bytes", "shutil.rmtree",
         "builtins.open", "importlib.import_module", "operator.attrgetter", "functools.partial",
         "torch.utils.cpp_extension.load_inline", "numpy.load", "pydoc.locate", "code.interact"]  # fmt: skip
WITNESS = "code-was-run"
# Refused, or there as a value that does nothing: never run, and no state_dict.
each(KIND, REFUSED, {
    f"{name} alone": lambda name=name: archive(calling(name, f"touch {WITNESS}")) for name in NAMES
})  # fmt: skip
each(KIND, EITHER, {
    f"{name} beside the weights": lambda name=name: beside_weights(calling(name, f"touch {WITNESS}")) for name in NAMES
})  # fmt: skip

# What the allowed names can be made to do.
each(KIND, EITHER, {
    "a bytearray of 10 GB": lambda: beside_weights(calling("builtins.bytearray", 10**10)),
    "a bytearray of 10 GB by its class": lambda: beside_weights(calling("__builtin__.bytearray", 10**10)),
    "a Counter of counters": lambda: beside_weights(calling("collections.Counter", "ab" * 10)),
    "a list of a range": lambda: beside_weights(calling("builtins.list", "x" * MB)),
    "an OrderedDict of a text": lambda: beside_weights(calling("collections.OrderedDict", "ab")),
    "a size of 10 million": lambda: beside_weights(calling("torch.Size", [10**6] * 1000)),
    "an integer of 2 million digits": lambda: beside_weights(
        b"\x80\2\x8b" + struct.pack("<i", 900_000) + b"\x7f" * 900_000 + b"."),
    "a float of 100,000 digits": lambda: beside_weights(b"\x80\2F" + b"9" * 100_000 + b"\n."),
    "sixty lists, each twice the one before": lambda: beside_weights(laughs()),
    "hyper-parameters that are sixty lists": lambda: lightning(hyper_parameters={"charset_train": _twice(60)}),
    "hyper-parameters nested 900 deep": lambda: beside_weights(b"\x80\2" + b"}U\1a" * 900 + b"}" + b"s" * 900 + b"."),
    "a million small dictionaries": lambda: beside_weights(b"\x80\2(" + b"}" * MB + b"l."),
    "a pickle of marks alone": archive(b"\x80\2" + b"(" * MB),
    "a pickle of duplicates": archive(b"\x80\2]" + b"2" * MB + b"."),
    "a pickle that memorises at 2^32 - 1": archive(b"\x80\2]r\xff\xff\xff\xff."),
    "a text that says 4 GB": archive(b"\x80\2X\xff\xff\xff\xffa."),
    "bytes that say 2^63": archive(b"\x80\4\x8e" + b"\xff" * 7 + b"\x7fa."),
    "an empty pickle": archive(b""),
    "a pickle of protocol 255": archive(b"\x80\xff."),
})  # fmt: skip


def _twice(depth: int) -> list:
    made: list = []
    for _ in range(depth):
        made = [made, made]
    return made


# Tensors that are larger than what holds them.
each(KIND, REFUSED, {
    "a stride of 0": lambda: lightning(state(visual_decoder_head_weight=torch.zeros(1).expand(100_000, 100_000))),
    "a million of one number": lambda: lightning({f"w{n}": torch.zeros(1).expand(10**4, 10**4) for n in range(100)}),
    "16 numbers as 10^12": one_tensor(0, (10**6, 10**6), (0, 0)),
    "numbers past the storage": one_tensor(0, (1000,), (1,)),
    "numbers before the storage": one_tensor(-4, (4,), (1,)),
    "strides backwards": one_tensor(0, (4, 4), (-4, 1)),
    "a size of 2^62": one_tensor(0, (2**62, 2**62), (0, 0)),
    "a size below 0": one_tensor(0, (-1,), (1,)),
    "a size of 64 dimensions": one_tensor(0, (2,) * 64, (0,) * 64),
    "a sparse tensor of 10^12": lambda: lightning(
        {"w": torch.sparse_coo_tensor(torch.tensor([[0]]), [1.0], (10**12,))}),
    "a quantised tensor": lambda: lightning({"w": torch.quantize_per_tensor(torch.rand(4), 0.1, 0, torch.quint8)}),
    "a tensor of nothing on meta": lambda: lightning({"w": torch.empty(10**6, 10**6, device="meta")}),
    "complex weights": lambda: lightning({k: v.to(torch.complex64) for k, v in network().items()}),
    "a gigabyte of zeros, deflated":
        lambda: archive(calling("builtins.int", 1), zipfile.ZIP_DEFLATED, storage=bytes(256 * MB)),
    "two thousand entries of the same megabyte": overlapping,
})  # fmt: skip

# Weights that would be computed with.
BAD = {"NaN": float("nan"), "infinity": float("inf"), "minus infinity": float("-inf")}
each(KIND, REFUSED, {
    f"one {name} among the weights, {form}": lambda value=value, make=make: make(_one(value))
    for name, value in BAD.items() for form, make in (("torch", lightning), ("safetensors", ours))
}, says="finite|NaN|nan|inf")  # fmt: skip
each(KIND, REFUSED, {
    "a float64 that is no float32": lambda: lightning({k: v.double() * 1e300 for k, v in network().items()}),
    "a temperature of 0": lambda: ours(temperature=0.0),
    "a temperature of infinity": lambda: ours(temperature=float("inf")),
})  # fmt: skip


def _one(value: float) -> dict[str, torch.Tensor]:
    weights = {k: v.clone() for k, v in network().items()}
    weights["visual_decoder.head.weight"][1, 2] = value
    return weights


# safetensors whose headers lie.
def _shape(shape: list) -> Callable[[], bytes]:
    return lambda: header_changed(lambda h: h["visual_decoder.head.weight"].update(shape=shape))


each(KIND, REFUSED, {
    "a shape of [0, 10^18, 8, 4]": _shape([0, 10**18, 8, 4]),
    "a shape of 2^64": _shape([2**64]),
    "a shape below 0": _shape([-1, 8]),
    "a shape of texts": _shape(["4", "8"]),
    "a shape of 10,000 ones": _shape([1] * 10_000),
    "offsets past the end": lambda: header_changed(
        lambda h: h["visual_decoder.head.weight"].update(data_offsets=[2**40, 2**41])),
    "offsets backwards": lambda: header_changed(lambda h: h["visual_decoder.head.weight"].update(data_offsets=[9, 5])),
    "all tensors at one place": lambda: header_changed(
        lambda h: [entry.update(data_offsets=[0, 4]) for entry in h.values()] and None),
    "a header of 2^63": struct.pack("<Q", 2**63) + b"{" + bytes(100),
    "a header of 100 MB": struct.pack("<Q", 100 * MB) + b"{" + bytes(100),
    "a header nested 100,000 deep": struct.pack("<Q", 600_000) + b'{"a":' * 100_000 + b"}" * 100_000,
    "a header of brackets": struct.pack("<Q", 100_001) + b"{" + b"[" * 100_000,
    "a header that is a list": struct.pack("<Q", 2) + b"{]",
    "metadata nested 100,000 deep":
        lambda: safetensors({"w": torch.zeros(4)}, {"clip4str": '{"a":' * 100_000 + "}" * 100_000}),
    "metadata of 4300 digits and more":
        lambda: safetensors({"w": torch.zeros(4)}, {"clip4str": '{"context": ' + "9" * 10**6 + "}"}),
    "100,000 tensors of nothing": lambda: safetensors({f"w{n}": torch.zeros(0) for n in range(20_000)}),
    "names of lines and escapes": lambda: safetensors({f"w\n\x1b[31m{k}": v for k, v in network().items()}),
    "a name of a megabyte": lambda: safetensors({"w" * MB: torch.zeros(4)}),
    "a network of 10,000 layers": lambda: safetensors({**network(), **{
        f"clip_model.visual.transformer.resblocks.{n}.ln_1.weight": torch.zeros(1) for n in range(10_000)}}),
    "a layer numbered 10^18": lambda: safetensors(
        {**network(), f"clip_model.visual.transformer.resblocks.{10**18}.ln_1.weight": torch.zeros(8)}),
    "an empty charset": lambda: ours(charset=""),
    "an image of 10^9": lambda: ours(image_size=[10**9, 10**9]),
    "10^9 decoder heads": lambda: ours(decoder_heads=10**9),
    "0 decoder heads": lambda: ours(decoder_heads=0),
    "a context of 10^9": lambda: ours(context=10**9),
})  # fmt: skip

each(KIND, REFUSED, {
    f"{form} cut to {percent} %": lambda make=make, percent=percent: (data := make())[: len(data) * percent // 100]
    for form, make in (("torch", lightning), ("the older torch", legacy), ("safetensors", safetensors))
    for percent in (1, 50, 99)
})  # fmt: skip
each(KIND, REFUSED, {"nothing": b"", "a pickle's first byte": b"\x80", "an archive's first bytes": b"PK\3\4",
                     "a text": b"weights, please", "a deflated nothing": zlib.compress(b"")})  # fmt: skip


@hostile(KIND, REFUSED, says="folder", name="a folder")
def _(path: Path) -> None:
    path.mkdir()


@hostile(KIND, REFUSED, name="a pipe that nobody writes to")
def _(path: Path) -> None:
    os.mkfifo(path)


@hostile(KIND, REFUSED, name="a safetensors file of 512 MB, nearly all of it a hole")
def _(path: Path) -> None:
    entry = {"w": {"dtype": "F32", "shape": [1 << 27], "data_offsets": [0, 1 << 29]}}
    text = json.dumps(entry).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    os.truncate(path, 8 + len(text) + (1 << 29))


each(KIND, ANSWERED, {
    "a good torch file": lightning,
    "a good safetensors file": ours,
    "a good file of the older torch": legacy,
    "good weights in a good order": lambda: lightning(collections.OrderedDict(network())),
})  # fmt: skip
