"""Makes an atlas of the machine's fonts: chooses faces, draws their glyphs large, measures distances."""

from __future__ import annotations

import multiprocessing
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFont, features
from tqdm import tqdm

from clip4str.core.errors import DataError
from clip4str.training.drawing.atlas import CAP, PAD, SPACE, SPREAD, STEP, Atlas, Face, assemble
from clip4str.training.font_packages import read_families
from clip4str.training.fonts import Font, font_weights
from clip4str.training.vocabulary import CHARSET

FINE = 8  # drawn this many times larger than the field
SIGNATURE = "HEROSGagenoskt258"  # characters by which copies of a face are found
CAPITALS = "ABDEFGHLMNQRT"  # whose small letters are not small capitals
ALIKE = 0.12  # texels: mean difference below which two faces are the same
KERNED = "".join(c for c in CHARSET if c.isalnum() or c in ".,'-")
SAID = 10.0  # seconds between lines of progress
BASIC = ImageFont.Layout.BASIC
LICENCES = (
    ("OFL-1.1", r"open font licen|sil ofl|\bofl\b"),
    ("Apache-2.0", r"apache"),
    ("Bitstream-Vera", r"bitstream|vera"),
    ("GPL-with-font-exception", r"general public|\bl?gpl"),
    ("LPPL", r"lppl|gust font|latex project"),
    ("public-domain", r"public domain|cc0"),
    ("free", r"freeware|free for|freely|permission is"),
)


class Drawn(NamedTuple):
    """One face: glyphs int16 [95, 5], its tiles' texels one after another, kerning int8 [94, 94]. unicase: small
    letters have the shapes of capitals, maybe smaller."""

    glyphs: np.ndarray
    texels: np.ndarray
    kerning: np.ndarray
    signature: np.ndarray
    unicase: bool


def choose_faces(fonts: Sequence[Font], most: int, per_family: int) -> list[Font]:
    """At most `per_family` of each family, spread over its weights; beyond `most` the least useful go."""
    families: dict[str, list[Font]] = {}
    for font in fonts:
        families.setdefault(font.family, []).append(font)
    kept = []
    for group in families.values():
        group.sort(key=lambda f: (f.weight, Path(f.path).name))
        places = np.linspace(0, len(group) - 1, min(per_family, len(group))).round().astype(int)
        kept += [group[i] for i in sorted(set(places.tolist()))]
    useful = dict(zip((f.path for f in fonts), font_weights(fonts)))
    kept.sort(key=lambda f: (-useful[f.path], Path(f.path).name))
    # By name: the folders are others on another machine, and the atlas should be the same.
    return sorted(kept[:most], key=lambda f: Path(f.path).name)


def distances(ink: np.ndarray) -> np.ndarray:
    """bool [H * FINE, W * FINE] -> float32 [H, W]: from the middle of each FINE x FINE block to the outline, in
    blocks, positive inside; exact to half a fine pixel, cut off at SPREAD."""
    reach = int(SPREAD * FINE)
    rows = np.arange(ink.shape[0] // FINE) * FINE + FINE // 2
    columns = np.arange(ink.shape[1] // FINE) * FINE + FINE // 2
    aside = (np.arange(2 * reach, dtype=np.float32) - reach + 0.5) ** 2
    index = np.arange(ink.shape[0], dtype=np.int16)[:, None]
    nearest = []
    for on in (ink, ~ink):
        above = np.maximum.accumulate(np.where(on, index, np.int16(-20000)), axis=0)[rows - 1]
        below = np.minimum.accumulate(np.where(on, index, np.int16(20000))[::-1], axis=0)[::-1][rows]
        dy = np.minimum(rows[:, None] - above - 0.5, below - rows[:, None] + 0.5).astype(np.float32)
        squares = np.pad(np.minimum(dy, 4.0 * reach) ** 2, ((0, 0), (reach, reach)), constant_values=1e9)
        windows = np.lib.stride_tricks.sliding_window_view(squares, 2 * reach, axis=1)[:, columns]
        nearest.append(np.sqrt((windows + aside).min(axis=-1)))
    to_ink, to_ground = nearest
    fine = np.where(ink[np.ix_(rows, columns)], to_ground - 0.5, 0.5 - to_ink)
    return np.clip(fine / FINE, -SPREAD, SPREAD)


def encode(field: np.ndarray) -> np.ndarray:
    """Distances in texels -> stored values."""
    return np.clip(np.rint(field * STEP) + 64, 0, 127).astype(np.uint8)


def draw_glyph(face: ImageFont.FreeTypeFont, char: str) -> tuple[np.ndarray, int, int] | None:
    """The tile, and its left and top from the pen in texels; None for a character without ink."""
    core, (x, y) = face.getmask2(char, mode="L", anchor="ls")
    wide, high = core.size
    picture = Image.new("L", core.size)
    picture.im.paste(core, (0, 0, wide, high))
    mask = np.asarray(picture) >= 128
    if not mask.any() or max(wide, high) > 200 * FINE:
        return None
    left, top = x // FINE - PAD, y // FINE - PAD
    right, bottom = -(-(x + wide) // FINE) + PAD, -(-(y + high) // FINE) + PAD
    ink = np.zeros(((bottom - top) * FINE, (right - left) * FINE), bool)
    ink[y - top * FINE :, x - left * FINE :][:high, :wide] = mask
    return encode(distances(ink)), left, top


def draw_face(font: Font) -> Drawn | None:
    """All glyphs of a face; None if its capitals cannot be measured."""
    try:
        probe = ImageFont.truetype(font.path, 200, layout_engine=BASIC)
        cap = -probe.getbbox("H", anchor="ls")[1]
        if not 20 <= cap <= 400:
            return None
        size = 200 * CAP * FINE / cap
        face = ImageFont.truetype(font.path, size, layout_engine=BASIC)
        glyphs, tiles = np.zeros((SPACE + 1, 5), np.int16), {}
        for i, char in enumerate(CHARSET):
            drawn = draw_glyph(face, char) if char in font.chars else None
            if drawn is not None:
                tile, left, top = drawn
                glyphs[i] = (tile.shape[1], tile.shape[0], left, top, round(face.getlength(char) * STEP / FINE))
                tiles[char] = tile
        glyphs[SPACE, 4] = round(min(2 * CAP * FINE, face.getlength(" ")) * STEP / FINE)
        if not tiles.keys() >= set(SIGNATURE + CAPITALS + CAPITALS.lower()):
            return None
        texels = np.concatenate([t.ravel() for t in tiles.values()])
        return Drawn(glyphs, texels, _kerning(font, size), _signature(glyphs, tiles), font.unicase or unicase(tiles))
    except (OSError, ValueError, OverflowError):
        return None


def _sampled(tile: np.ndarray, side: int, rim: int = 0) -> np.ndarray:
    """Some of the values of a tile, on a side x side grid that leaves out `rim` texels all around."""
    y, x = (np.linspace(rim, n - 1 - rim, side).round().astype(int) for n in tile.shape)
    return tile[np.ix_(y, x)].astype(np.float32)


def _signature(glyphs: np.ndarray, tiles: Mapping[str, np.ndarray]) -> np.ndarray:
    """What some characters look like, in texels of distance: equal for copies of a face."""
    widths = glyphs[[CHARSET.index(c) for c in SIGNATURE], 4].astype(np.float32)
    return np.concatenate([*(_sampled(tiles[c], 10).ravel() for c in SIGNATURE), np.repeat(widths, 8)]) / STEP


def unicase(tiles: Mapping[str, np.ndarray]) -> bool:
    """Whether most small letters that have a shape of their own elsewhere are capitals here, of whatever size."""
    alike = []
    for capital in CAPITALS:
        small, large = (_sampled(tiles[c], 24, PAD - 1).clip(44, 84) for c in (capital.lower(), capital))
        alike.append(np.corrcoef(small.ravel(), large.ravel())[0, 1] > 0.8)
    return bool(np.mean(alike) > 0.5)


def _kerning(font: Font, size: float) -> np.ndarray:
    """From the face's own tables, old and new ones where Pillow has Raqm."""
    table = np.zeros((SPACE, SPACE), np.int8)
    modern = features.check("raqm")
    face = ImageFont.truetype(font.path, 256, layout_engine=ImageFont.Layout.RAQM if modern else BASIC)
    off = ["-liga", "-clig", "-calt", "-dlig"] if modern else None
    chars = [c for c in KERNED if c in font.chars]
    alone = {c: face.getlength(c, features=off) for c in chars}
    # One line of all pairs that begin with a character tells whether it kerns at all.
    for first in chars:
        row = "".join(first + second for second in chars)
        expected = len(chars) * alone[first] + sum(alone.values())
        if abs(face.getlength(row, features=off) - expected) < 1:
            continue
        for second in chars:
            extra = face.getlength(first + second, features=off) - alone[first] - alone[second]
            value = round(extra * size / 256 / FINE * STEP)
            table[CHARSET.index(first), CHARSET.index(second)] = max(-127, min(127, value))
    return table


def licences(paths: Sequence[str]) -> dict[str, str]:
    """The class of licence of each font file: as families.tsv beside it states, else by its own name table or its
    Debian package; maybe "unknown"."""
    found, packages = {}, _packages(paths)
    stated = {str(folder / row.file): row.licence for folder in {Path(p).parent for p in paths}
              for row in read_families(folder)}  # fmt: skip
    for path in paths:
        if path in stated:
            found[path] = stated[path]
            continue
        text = _own_terms(path)
        if _licence_class(text) == "unknown" and path in packages:
            notice = Path("/usr/share/doc", packages[path], "copyright")
            text = notice.read_text(errors="ignore") if notice.is_file() else ""
        found[path] = _licence_class(text)
    return found


def _licence_class(text: str) -> str:
    return next((name for name, pattern in LICENCES if re.search(pattern, text, re.IGNORECASE)), "unknown")


def _own_terms(path: str) -> str:
    try:
        from fontTools.ttLib import TTFont

        with TTFont(path, fontNumber=0, lazy=True) as font:
            return " ".join(str(font["name"].getDebugName(i) or "") for i in (13, 14))
    except Exception:  # fontTools is absent, or does not like the file: the package's notice is asked
        return ""


def _packages(paths: Sequence[str]) -> dict[str, str]:
    """Which Debian package each file is from."""
    try:
        command = ["dpkg-query", "-S", *(p for p in paths if p.startswith("/usr/share"))]
        listing = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    except OSError:
        return {}
    pairs = (line.partition(": ") for line in listing.splitlines())
    return {path: package.split(":")[0].split(",")[0] for package, _, path in pairs}


def build(fonts: Sequence[Font], workers: int = 1, refused: Counter[str] | None = None) -> Atlas:
    """Draws all faces; copies and faces that cannot be drawn are left out, and counted in `refused`."""
    terms = licences([f.path for f in fonts])
    faces: list[Face] = []
    kept: list[Drawn] = []
    refused = Counter() if refused is None else refused
    for font, drawn in zip(fonts, _watched(_map(fonts, workers), len(fonts))):
        if drawn is None:
            refused["cannot be drawn at this size"] += 1
        elif any(np.abs(drawn.signature - k.signature).mean() < ALIKE for k in kept):
            refused["are copies of another face"] += 1
        else:
            name = Path(font.path).stem
            faces.append(Face(name, font.family, terms[font.path], drawn.unicase, font.legibility, font.weight))
            kept.append(drawn)
    if not kept:
        raise DataError("no face could be drawn into the atlas")
    parts = (np.stack([k.glyphs for k in kept]), np.stack([k.kerning for k in kept]))
    return assemble(faces, *parts, np.concatenate([k.texels for k in kept]))


def _watched(drawn: Iterable[Drawn | None], count: int) -> Iterator[Drawn | None]:
    """A bar on a terminal, else a line now and then."""
    if sys.stderr.isatty():
        yield from tqdm(drawn, "faces", count)
        return
    said = time.monotonic()
    for number, face in enumerate(drawn, 1):
        yield face
        if time.monotonic() - said > SAID and number < count:
            said = time.monotonic()
            print(f"faces: {number} of {count}", file=sys.stderr, flush=True)


def _map(fonts: Sequence[Font], workers: int) -> Iterable[Drawn | None]:
    if workers <= 1:
        yield from map(draw_face, fonts)
        return
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield from pool.imap(draw_face, fonts, 8)
