"""Hostile glyph atlases: tables that unpack to gigabytes, tiles that lie elsewhere, faces that are none."""

from __future__ import annotations

import json
import lzma
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from corpus import ANSWERED, EITHER, REFUSED, each, hostile
from safetensors.numpy import save

KIND = "atlases"
MB = 1 << 20
FACE = {"name": "a", "family": "a", "licence": "free", "unicase": False, "legibility": 1.0, "weight": 0.4}


def packed(data: bytes, **how: Any) -> np.ndarray:
    return np.frombuffer(lzma.compress(data, **how), np.uint8)


def glyphs(faces: int = 1, side: int = 4) -> np.ndarray:
    table = np.zeros((faces, 95, 5), np.int16)
    table[:, :94, :2] = side
    return table


def atlas(faces: Any = None, form: str = "clip4str-atlas-1", **tensors: np.ndarray) -> bytes:
    """An atlas of one face with tiles of 4 x 4, and what is to be different in it. faces: a text is taken as it is."""
    content = {"glyphs": glyphs(), "kerning": packed(bytes(94 * 94)), "texels": packed(bytes(94 * 16)), **tensors}
    said = faces if isinstance(faces, str) else json.dumps([FACE] if faces is None else faces)
    return save(content, {"format": form, "faces": said})


def table(change: Callable[[np.ndarray], None]) -> bytes:
    changed = glyphs()
    change(changed)
    return atlas(glyphs=changed)


def zeros(count: int) -> np.ndarray:
    """So many zeros in an .xz stream."""
    packer = lzma.LZMACompressor(preset=0)
    parts = [packer.compress(bytes(MB)) for _ in range(count // MB)]
    return np.frombuffer(b"".join([*parts, packer.flush()]), np.uint8)


def _put(where: tuple, value: int) -> Callable[[np.ndarray], None]:
    return lambda changed: changed.__setitem__(where, value)


each(KIND, REFUSED, {
    "texels of half a gigabyte": lambda: atlas(texels=zeros(512 * MB)),
    "kerning of half a gigabyte": lambda: atlas(kerning=zeros(512 * MB)),
    "a dictionary of 1.5 GB": lambda: atlas(texels=packed(bytes(94 * 16), format=lzma.FORMAT_XZ, filters=[
        {"id": lzma.FILTER_LZMA2, "dict_size": 1536 * MB, "mode": lzma.MODE_FAST, "mf": lzma.MF_HC3}])),
    "texels that are no stream": lambda: atlas(texels=np.arange(200, dtype=np.uint8)),
    "texels cut short": lambda: atlas(texels=packed(bytes(94 * 16))[:-20]),
    "texels too few": lambda: atlas(texels=packed(bytes(94 * 16 - 1))),
    "no texels": lambda: atlas(texels=np.zeros(0, np.uint8)),
    "kerning too short": lambda: atlas(kerning=packed(bytes(94 * 93))),
    "tiles of 32,767 x 32,767": lambda: atlas(glyphs=glyphs(1, 32_767)),
    "a tile of 32,767 x 32,767": lambda: table(_put((0, 5, slice(2)), 32_767)),
    "a width below 0": lambda: table(_put((0, 5, 0), -4)),
    "width and height below 0": lambda: table(_put((0, 5, slice(2)), -4)),
    "a width of 0": lambda: table(_put((0, 5, 0), 0)),
    "a space with ink": lambda: table(_put((0, 94, slice(2)), 4)),
    "no ink at all": lambda: table(_put((..., slice(2)), 0)),
    "glyphs of two faces": lambda: atlas(glyphs=glyphs(2)),
    "glyphs of no face": lambda: atlas(faces=[], glyphs=glyphs(0), kerning=packed(b"")),
    "glyphs of 94 characters": lambda: atlas(glyphs=glyphs()[:, :94]),
    "glyphs of four numbers": lambda: atlas(glyphs=np.ascontiguousarray(glyphs()[..., :4])),
    "glyphs of one number": lambda: atlas(glyphs=np.ascontiguousarray(glyphs()[..., :1])),
    "glyphs in a row": lambda: atlas(glyphs=glyphs().ravel()),
    "glyphs of floats": lambda: atlas(glyphs=glyphs().astype(np.float32)),
    "kerning of floats": lambda: atlas(kerning=np.zeros(94 * 94, np.float32)),
    "texels of two dimensions": lambda: atlas(texels=np.zeros((0, 10**12), np.uint8)),
    "9000 faces": lambda: atlas(faces=[FACE] * 9000, glyphs=glyphs(9000, 1), kerning=packed(bytes(9000 * 94 * 94))),
    "another format": lambda: atlas(form="clip4str-atlas-2"),
    "a format of a megabyte": lambda: atlas(form="x" * MB),
    "a format of lines and escapes": lambda: atlas(form="\n\x1b[31m"),
})  # fmt: skip
FACES = {
    "nothing": "", "a number": "7", "null": "null", "an object": "{}", "a text": '"aaaaaa"', "NaN": "NaN",
    "numbers": "[7]", "nulls": "[null]", "lists": "[[]]", "empty objects": "[{}]", "a digit's million": "9" * 10**6,
    "brackets": "[" * 50_000, "objects in objects": '{"a":' * 50_000,
    "200,000 objects": "[" + "{}," * 200_000 + "{}]",
    **{f"of {key} {str(value)[:12]!a}": json.dumps([{**FACE, key: value}]) for key, value in (
        ("more", 1), ("name", 7), ("name", None), ("family", ["a"]), ("licence", {}),
        ("weight", "0.4"), ("weight", float("nan")), ("legibility", float("inf")), ("legibility", None),
        ("legibility", 10**400), ("legibility", True), ("unicase", "no"), ("unicase", 1))},
}  # fmt: skip
each(KIND, REFUSED, {f"faces: {name}": lambda text=text: atlas(faces=text) for name, text in FACES.items()})
each(KIND, REFUSED, {
    "nothing": b"", "zeros": bytes(1000), "a text": b"glyphs", "a header of 2^63": struct.pack("<Q", 2**63) + b"{}",
    "cut in the middle": lambda: (data := atlas())[: len(data) // 2],
    "no tensors": lambda: save({"w": np.zeros(4)}, {"format": "clip4str-atlas-1", "faces": "[]"}),
    "no faces": lambda: save({"glyphs": glyphs()}, {"format": "clip4str-atlas-1"}),
    "no metadata": lambda: save({"glyphs": glyphs()}),
})  # fmt: skip
each(KIND, EITHER, {
    "a name of lines and escapes": lambda: atlas(faces=[{**FACE, "name": "a\n\x1b[31m"}]),
    "a name of half a character": lambda: atlas(faces=[{**FACE, "name": "\ud800"}]),
    "texels of any value": lambda: atlas(texels=packed(b"\xff" * 94 * 16)),
    "tiles far from the pen": lambda: table(_put((..., slice(2, 5)), -32_768)),
})  # fmt: skip


@hostile(KIND, REFUSED, says="such|folder", name="a folder")
def _(path: Path) -> None:
    path.mkdir()


@hostile(KIND, REFUSED, name="a pipe that nobody writes to")
def _(path: Path) -> None:
    os.mkfifo(path)


@hostile(KIND, REFUSED, says="more than", name="a hole of 64 GB")
def _(path: Path) -> None:
    path.write_bytes(atlas())
    os.truncate(path, 1 << 36)


each(KIND, ANSWERED, {"a good atlas": atlas})
