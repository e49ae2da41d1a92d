"""Finds the fonts of this machine that can draw legible Latin words.

A font file may lack characters, draw boxes for them, or be a symbol font whose "A" is a pair of scissors.
`find_fonts` looks at the pictures instead of trusting names: every letter and digit must be drawn and differ
from the missing-glyph box, and most must be recognisable by comparison with a few well-known fonts.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageFont
from tqdm import tqdm

from clip4str.core.errors import DataError
from clip4str.training.vocabulary import CHARSET, DIGITS, LOWER, UPPER

LETTERS = LOWER + UPPER
FOLDERS = ("/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts", "/Library/Fonts")
SUFFIXES = (".ttf", ".otf", ".ttc", ".woff2")
PACKAGES = "fonts-dejavu fonts-liberation2 fonts-urw-base35 fonts-open-sans fonts-lato fonts-aenigma"
# fmt: off
REFERENCES = ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSerif.ttf", "DejaVuSerif-Bold.ttf",
              "DejaVuSans-Oblique.ttf", "LiberationSans-Regular.ttf", "LiberationSerif-Regular.ttf",
              "LiberationSansNarrow-Bold.ttf", "LiberationSerif-Italic.ttf", "LiberationSerif-BoldItalic.ttf")
# fmt: on
SAME_SHAPE = {"0": "o", "1": "l", "i": "l", "5": "s", "8": "b", "2": "z", "9": "g", "6": "g"}
LEGIBLE = 0.5
GLYPH = 20  # side of the square, in pixels, to which glyphs are scaled before they are compared
SCAN_VERSION = 7  # raise when the checks below change: it invalidates the cache


REFUSALS = (UNREADABLE, LACKING, ALIKE, ILLEGIBLE) = (
    "cannot be opened", "lack letters or digits", "draw letters alike (symbols)", "are too fanciful to be read",
)  # fmt: skip


class NoFontsError(DataError):
    """No usable font on this machine."""


@dataclass(frozen=True)
class Font:
    """One usable face.

    chars: the characters it draws. unicase: its lower case looks like upper case. legibility: share of
    letters and digits recognised by comparison with well-known fonts, 0..1. weight: share of the letters'
    area that is ink, about 0.2 for light faces and 0.5 for bold ones.
    """

    path: str
    family: str
    chars: str
    unicase: bool
    legibility: float
    weight: float


class Survey(NamedTuple):
    """fonts: the usable ones, in the order of their paths. refused: (why, number of files), the most frequent first."""

    fonts: tuple[Font, ...]
    refused: tuple[tuple[str, int], ...]


def font_files(folders: Iterable[str | os.PathLike[str]] | None = None) -> list[str]:
    """Paths of font files, sorted: those below `folders`, or else those that the system knows."""
    found: set[str] = set()
    for folder in FOLDERS if folders is None else folders:
        for base, _, names in os.walk(Path(folder).expanduser()):
            found.update(str(Path(base, n)) for n in names if n.lower().endswith(SUFFIXES))
    if folders is None and shutil.which("fc-list"):
        listing = subprocess.run(["fc-list", ":", "file"], capture_output=True, text=True, check=False).stdout
        paths = (line.strip().rstrip(":").strip() for line in listing.splitlines())
        found.update(p for p in paths if p.lower().endswith(SUFFIXES))
    if not found and folders is None:
        found.update(_matplotlib_fonts())
    by_name = {Path(p).name: p for p in sorted(found)}  # the same file is often installed twice
    return sorted(by_name.values())


def _matplotlib_fonts() -> list[str]:
    try:
        import matplotlib
    except ImportError:
        return []
    return [str(p) for p in (Path(matplotlib.get_data_path()) / "fonts" / "ttf").glob("DejaVu*.ttf")]


def _glyph(face: ImageFont.FreeTypeFont, char: str) -> np.ndarray | None:
    """Ink of one character, [GLYPH, GLYPH] float32, zero mean and unit norm; None when nothing is drawn."""
    core = face.getmask(char, mode="L")
    if core.size[0] == 0 or core.size[1] == 0:
        return None
    mask = Image.frombytes("L", core.size, bytes(core))
    box = mask.getbbox()
    if box is None:
        return None
    # Scaled to fill a square, but thin strokes (l, I, -) keep their shape.
    width, height = box[2] - box[0], box[3] - box[1]
    side = max(width, height, 1)
    square = Image.new("L", (side, side))
    square.paste(mask.crop(box), ((side - width) // 2, (side - height) // 2))
    if 2 * width > height and 2 * height > width:
        square = mask.crop(box)
    pixels = np.asarray(square.resize((GLYPH, GLYPH), Image.Resampling.BOX), dtype=np.float32)
    pixels -= pixels.mean()
    norm = float(np.linalg.norm(pixels))
    return pixels / norm if norm > 1e-3 else None


def _same(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    return a is not None and b is not None and float((a * b).sum()) > 0.995


@functools.lru_cache(maxsize=1)
def _references() -> np.ndarray:
    """Letters and digits of the well-known fonts that are installed, [fonts, GLYPH * GLYPH, 62]."""
    paths = {Path(p).name: p for p in (*_matplotlib_fonts(), *font_files())}
    templates = []
    for path in (paths[n] for n in REFERENCES if n in paths):
        face = ImageFont.truetype(path, 32, layout_engine=ImageFont.Layout.BASIC)
        glyphs = [g.ravel() for g in (_glyph(face, c) for c in DIGITS + LETTERS) if g is not None]
        if len(glyphs) == len(DIGITS + LETTERS):
            templates.append(np.stack(glyphs, axis=1))
    return np.stack(templates) if templates else np.zeros((0, GLYPH * GLYPH, 62), np.float32)


def _legibility(glyphs: np.ndarray) -> float:
    """Share of `glyphs` ([62, GLYPH * GLYPH], digits and letters) that the references tell correctly."""
    templates = _references()
    if len(templates) == 0:
        return 1.0
    # In pieces too small for a threaded BLAS, whose idle threads would cost more than the work.
    scores = glyphs.reshape(31, 1, 2, -1) @ templates[None]
    best = scores.transpose(0, 2, 1, 3).reshape(62, -1).argmax(1) % 62
    names = [_shape_name(c) for c in DIGITS + LETTERS]
    return round(float(np.mean([names[i] == names[j] for i, j in enumerate(best)])), 3)


def _look_alike(glyphs: np.ndarray) -> int:
    """Pairs, among an even number of glyphs that should all differ, which are the same picture."""
    count = len(glyphs)
    alike = (glyphs.reshape(count // 2, 2, -1) @ glyphs.T).reshape(count, count) > 0.98
    return int(np.triu(alike, 1).sum())


def _shape_name(char: str) -> str:
    return SAME_SHAPE.get(char.lower(), char.lower())


def inspect_font(path: str) -> Font | None:
    """Looks at one file; None when it cannot be opened or is not a font for Latin words."""
    found = examine(path)
    return found if isinstance(found, Font) else None


def examine(path: str) -> Font | str:
    """Looks at one file; for one that cannot be used, why."""
    try:
        face = ImageFont.truetype(path, 32, layout_engine=ImageFont.Layout.BASIC)
        family = face.getname()[0] or Path(path).stem
        missing = [_glyph(face, c) for c in ("\uffff", "\u0378", "\ue123")]
        glyphs = {c: _glyph(face, c) for c in CHARSET}
    except (OSError, ValueError, MemoryError):
        return UNREADABLE
    drawn = {c: g for c, g in glyphs.items() if g is not None and not any(_same(g, m) for m in missing)}
    if any(c not in drawn for c in DIGITS + LETTERS):
        return LACKING
    if _look_alike(np.stack([drawn[c].ravel() for c in LETTERS[26:] + DIGITS[2:]])) > 2:
        return ALIKE
    legibility = _legibility(np.stack([drawn[c].ravel() for c in DIGITS + LETTERS]))
    unicase = float(np.mean([(drawn[c] * drawn[c.upper()]).sum() > 0.9 for c in "abdefghlmnqrt"])) > 0.6
    ink = face.getmask("HEnos", mode="L")
    weight = round(sum(bytes(ink)) / 255 / max(1, ink.size[0] * ink.size[1]), 3)
    return Font(path, family, "".join(c for c in CHARSET if c in drawn), unicase, legibility, weight)


def _cache_file() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "clip4str" / "fonts.json"


def _stamp(path: str) -> str:
    info = Path(path).stat()
    return f"{len(_references())}:{info.st_size}:{int(info.st_mtime)}"


def find_fonts(
    folders: tuple[str, ...] | None = None, legible: float = LEGIBLE, cache: bool = True
) -> tuple[Font, ...]:
    """All usable fonts, in the order of their paths; arguments as of `survey`. Raises NoFontsError if there is none."""
    found = survey(folders, legible, cache)
    if not found.fonts:
        why = "".join(f"; {count} {reason}" for reason, count in found.refused)
        raise NoFontsError(f"no usable TrueType or OpenType font{why}; on Debian: apt-get install {PACKAGES}")
    return found.fonts


@functools.lru_cache(maxsize=8)
def survey(folders: tuple[str, ...] | None = None, legible: float = LEGIBLE, cache: bool = True) -> Survey:
    """Looks at all fonts.

    folders: look below these only (default: the system's fonts). legible: least share of letters and digits
    that comparison must recognise. cache: remember what was seen in the user's cache folder.
    """
    store = _cache_file()
    known = _read_cache(store) if cache else {}
    changed = False
    found: list[Font | str] = []
    # A first look at a thousand fonts takes some ten seconds.
    for path in tqdm(font_files(folders), "looking at fonts", delay=2, leave=False, disable=not sys.stderr.isatty()):
        try:
            stamp = _stamp(path)
        except OSError:
            continue
        seen = _remembered(known.get(path), stamp)
        if seen is None:
            seen = examine(path)
            known[path] = {"stamp": stamp, "seen": asdict(seen) if isinstance(seen, Font) else seen}
            changed = True
        found.append(seen if isinstance(seen, str) or seen.legibility >= legible else ILLEGIBLE)
    if cache and changed:
        _write_cache(store, known)
    refused = Counter(each for each in found if isinstance(each, str))
    return Survey(tuple(each for each in found if isinstance(each, Font)), tuple(refused.most_common()))


def _remembered(entry: Any, stamp: str) -> Font | str | None:
    """What the cache says of a file that is as it was."""
    try:
        seen = entry["seen"] if entry["stamp"] == stamp else None
        return Font(**seen) if isinstance(seen, dict) else seen if seen in REFUSALS else None
    except (LookupError, TypeError):
        return None


def _read_cache(store: Path) -> dict[str, Any]:
    try:
        known = json.loads(store.read_text())
        return dict(known["fonts"]) if known["version"] == SCAN_VERSION else {}
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return {}


def _write_cache(store: Path, known: dict[str, Any]) -> None:
    try:
        store.parent.mkdir(parents=True, exist_ok=True)
        draft = store.with_suffix(f".{os.getpid()}.tmp")
        draft.write_text(json.dumps({"version": SCAN_VERSION, "fonts": known}))
        draft.replace(store)
    except OSError:
        pass  # a cache that cannot be written only costs the next scan


def font_weights(fonts: Sequence[Font]) -> list[float]:
    """Sampling weights: families count about evenly however many faces they have; plain faces and those bold
    enough for signs count more than fanciful or hairline ones."""
    faces: dict[str, int] = {}
    for font in fonts:
        faces[font.family] = faces.get(font.family, 0) + 1
    return [
        (0.08 + font.legibility**7) * min(1.0, 0.25 + font.weight**2 / 0.12) / faces[font.family] ** 0.4
        for font in fonts
    ]
