"""Glyphs of many faces in one file, small enough to carry to a GPU that has no fonts.

    clip4str atlas --output atlas.safetensors

A glyph is kept as a distance field (Green, "Improved Alpha-Tested Magnification", SIGGRAPH 2007): each texel says how
far its centre lies inside (positive) or outside the outline. One field gives letters of any size, bolder and thinner
ones, outlines and shadows. All faces have capitals of `CAP` texels.

The file, a safetensors file of format "clip4str-atlas-1":
  metadata  faces: JSON, a list of objects with name, family, licence, unicase, legibility, weight
  glyphs    int16 [faces, 95, 5]: width and height of the tile, left and top of it from the pen in texels (y down),
            advance in 1/16 texel. The charset's 94 characters, then the space; width 0: nothing to draw
  kerning   int8 [faces, 94, 94]: what to add to the advance of the first character before the second, 1/16 texel
  texels    uint8: tiles row by row in the order of the table, 64 + 16 x distance in texels, 0..127
Kerning and texels are LZMA streams (.xz) in uint8 tensors.
"""

from __future__ import annotations

import json
import lzma
import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from clip4str.core.atomic_files import replaced
from clip4str.core.errors import DataError, first_line

FORMAT = "clip4str-atlas-1"
CAP = 24  # texels: the height of H
SPREAD = 4.0  # texels: distances beyond are cut off
STEP = 16  # values per texel of distance, and of advance
PAD = 3  # texels around the ink of a tile
ZERO = 64  # the stored value on the outline
SPACE = 94  # row of the space
MOST_FILE, MOST_TEXELS, MOST_FACES = 1 << 27, 1 << 29, 8192


@dataclass(frozen=True)
class Face:
    """What is known of one face; see fonts.Font."""

    name: str
    family: str
    licence: str
    unicase: bool
    legibility: float
    weight: float


@dataclass(frozen=True)
class Atlas:
    """faces: F of them. glyphs int16 [F, 95, 5], kerning int8 [F, 94, 94], texels uint8 [all tiles], offsets int64
    [F, 95]: where each tile begins."""

    faces: tuple[Face, ...]
    glyphs: np.ndarray
    kerning: np.ndarray
    texels: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.faces)

    def tile(self, face: int, glyph: int) -> np.ndarray:
        """The stored values of one glyph, uint8 [height, width]."""
        width, height = (int(v) for v in self.glyphs[face, glyph, :2])
        start = int(self.offsets[face, glyph])
        return self.texels[start : start + width * height].reshape(height, width)

    @property
    def drawable(self) -> np.ndarray:
        """bool [F, 94]: which characters each face has."""
        return self.glyphs[:, :SPACE, 0] > 0


def bearings(atlas: Atlas) -> np.ndarray:
    """Empty columns at the left and right of each tile, its PAD included: int64 [F, 95, 2]. Tiles hold what Pillow
    draws into, from the pen on, often a tenth of a letter more than its ink."""
    empty = np.zeros((*atlas.offsets.shape, 2), np.int64)
    for face, (sizes, offsets) in enumerate(zip(atlas.glyphs[..., :2].astype(np.int64), atlas.offsets)):
        wide, start = sizes[:, 0], offsets[0]
        inside = np.flatnonzero(atlas.texels[start : start + int(sizes.prod(1).sum())] >= ZERO)
        glyph = np.searchsorted(offsets - start, inside, "right") - 1
        column = (inside - (offsets - start)[glyph]) % wide[glyph]
        some, first = np.unique(glyph, return_index=True)
        if len(some):
            empty[face, some, 0] = np.minimum.reduceat(column, first)
            empty[face, some, 1] = wide[some] - 1 - np.maximum.reduceat(column, first)
    return empty


def assemble(faces: list[Face], glyphs: np.ndarray, kerning: np.ndarray, texels: np.ndarray) -> Atlas:
    """Checks that the parts fit together. Raises ValueError where they do not."""
    count = len(faces)
    if not 0 < count <= MOST_FACES or glyphs.shape != (count, SPACE + 1, 5) or kerning.shape != (count, SPACE, SPACE):
        raise ValueError(f"{count} faces, glyphs {glyphs.shape} and kerning {kerning.shape} do not fit together")
    sizes = glyphs[..., :2].astype(np.int64)
    if sizes.min() < 0 or ((sizes[..., 0] == 0) != (sizes[..., 1] == 0)).any() or sizes[:, SPACE].any():
        raise ValueError("a tile has no size")
    area = sizes[..., 0] * sizes[..., 1]
    if int(area.sum()) != texels.size:
        raise ValueError(f"the tiles have {int(area.sum())} texels, the file {texels.size}")
    offsets = np.cumsum(area.ravel()).reshape(area.shape) - area
    return Atlas(tuple(faces), glyphs, kerning, texels, offsets)


def save_atlas(atlas: Atlas, path: str | os.PathLike[str]) -> None:
    """Writes the file; it appears complete or not at all. Raises DataError if it cannot be written."""
    packed: dict[str, np.ndarray] = {
        "glyphs": np.ascontiguousarray(atlas.glyphs, np.int16),
        "kerning": np.frombuffer(lzma.compress(np.ascontiguousarray(atlas.kerning, np.int8).tobytes()), np.uint8),
        "texels": np.frombuffer(lzma.compress(atlas.texels.tobytes(), preset=7), np.uint8),
    }
    faces = json.dumps([asdict(face) for face in atlas.faces])
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with replaced(target) as draft:
            draft.write_bytes(save(packed, {"format": FORMAT, "faces": faces}))
    except OSError as error:
        raise DataError(f"cannot write {target}: {error.strerror or error}") from None


def load_atlas(path: str | os.PathLike[str]) -> Atlas:
    """Reads and checks an atlas. Raises DataError, one line, if it is missing, damaged or of another format."""
    place = Path(path)
    if not place.is_file():
        raise DataError(f"{place}: no such atlas; make one with: clip4str atlas --output {place}")
    try:
        if place.stat().st_size > MOST_FILE:
            raise ValueError(f"more than {MOST_FILE >> 20} MB")
        with safe_open(place, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise ValueError(f"its format is {metadata.get('format')!r}, not {FORMAT!r}")
            faces = _faces(metadata["faces"])
            for name in ("glyphs", "kerning", "texels"):  # sizes before any of it is read
                shape = file.get_slice(name).get_shape()
                if math.prod(shape) > MOST_TEXELS or 0 in shape:
                    raise ValueError(f"{name} of shape {shape}")
            glyphs, kerning, texels = (file.get_tensor(name) for name in ("glyphs", "kerning", "texels"))
        if glyphs.dtype != np.int16 or kerning.dtype != np.uint8 or texels.dtype != np.uint8 or glyphs.ndim != 3:
            raise ValueError("a table has another type than it should")
        sizes = glyphs[..., :2].astype(np.int64)
        area = int((sizes[..., 0] * sizes[..., 1]).sum())
        if sizes.min() < 0 or not 0 < area <= MOST_TEXELS:
            raise ValueError(f"tiles of {area} texels, one of {sizes.min()}")
        pairs = _unpack(kerning, len(faces) * SPACE * SPACE).view(np.int8).reshape(-1, SPACE, SPACE)
        return assemble(faces, glyphs, pairs, _unpack(texels, area))
    except (OSError, SafetensorError, lzma.LZMAError, EOFError, ValueError, TypeError, LookupError, OverflowError,
            RecursionError, MemoryError) as error:  # fmt: skip
        raise DataError(
            f"{place}: not a usable atlas ({first_line(error)}); make it anew with clip4str atlas"
        ) from None


def _faces(text: str) -> list[Face]:
    faces = [Face(**face) for face in json.loads(text)]
    if len(faces) > MOST_FACES:
        raise ValueError(f"{len(faces)} faces")
    for face in faces:
        texts, numbers = (face.name, face.family, face.licence), (face.legibility, face.weight)
        fine = all(isinstance(each, str) for each in texts) and isinstance(face.unicase, bool)
        if not fine or not all(type(each) in (int, float) and 0 <= each <= 1 for each in numbers):
            raise ValueError("what it says of a face is of another type than it should")
    return faces


def _unpack(packed: np.ndarray, size: int) -> np.ndarray:
    """Exactly `size` bytes, whatever the packed data claims to hold."""
    if size > MOST_TEXELS:
        raise ValueError(f"{size} bytes in a table")
    unpacker = lzma.LZMADecompressor(memlimit=1 << 28)
    data = unpacker.decompress(packed.tobytes(), max_length=size + 1)
    if len(data) == size and not unpacker.eof:  # its checksum comes last
        raise ValueError("a table that is cut short")
    if len(data) != size:
        raise ValueError(f"a table of {len(data)} bytes, expected {size}")
    return np.frombuffer(data, np.uint8)
