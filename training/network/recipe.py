"""The recipe: options of training/train.py and training/provide.py, in one committed file, training/network.args.

Sections in brackets, in each the options as they would be typed, over any number of lines; # begins a comment:

    [train]          always
    [real]           added where there are real words, [no real] where there are none
    [photos]         added where there are photos to cut pieces from, [no photos] where there are none
    [provide]        options of training/provide.py, which builds what {data} lacks; [provide real] is added where there
                     are real words
    [start]          words WORDS: what the bundled weights have seen, where their file does not say

{data}, {real}, {photos} and {checkout} stand for the folders of this machine.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from clip4str.core.errors import DataError

from .places import Places

SECTIONS = ("train", "real", "no real", "photos", "no photos", "provide", "provide real", "start")


@dataclass(frozen=True)
class Recipe:
    """train, provide: options with this machine's folders in them. words_before: of the bundled weights, or 0.

    lacks: which real data this machine does not have, in words.
    """

    train: tuple[str, ...]
    provide: tuple[str, ...]
    words_before: int
    lacks: tuple[str, ...]

    def option(self, name: str) -> float:
        """A numeric option of training, 0 where it is not given."""
        given = [value for option, value in zip(self.train, self.train[1:]) if option == name]
        try:
            return float(given[-1]) if given else 0.0
        except ValueError:
            return 0.0

    def missing(self, data: Path) -> list[Path]:
        """What training needs of the data folder and is not there."""
        return [path for path in map(Path, self.train) if data in path.parents and not path.exists()]


def read_recipe(path: Path, places: Places) -> Recipe:
    """Raises DataError for a file that is no recipe."""
    sections = _sections(path)
    real, photos = places.words.is_dir(), places.photos.is_dir()
    chosen = ("train", "real" if real else "no real", "photos" if photos else "no photos")
    folders = {"data": places.data, "real": places.words, "photos": places.photos, "checkout": places.checkout}

    def filled(name: str) -> list[str]:
        return [_filled(path, option, folders) for option in sections.get(name, ())]

    start = sections.get("start", [])
    if start and (len(start) != 2 or start[0] != "words" or not start[1].isdecimal()):
        raise DataError(f"{path}: [start] reads: words NUMBER, not {' '.join(start)!r}")
    lacks = [f"no real words in {places.words}"] * (not real) + [f"no photos in {places.photos}"] * (not photos)
    return Recipe(
        tuple(option for name in chosen for option in filled(name)),
        (*filled("provide"), *(filled("provide real") if real else ())),
        int(start[1]) if start else 0, tuple(lacks),
    )  # fmt: skip


def _sections(path: Path) -> dict[str, list[str]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a recipe ({error})") from None
    sections: dict[str, list[str]] = {}
    current: list[str] | None = None
    for number, line in enumerate(lines, start=1):
        heading = re.fullmatch(r"\s*\[([a-z ]+)\]\s*", line)
        if heading:
            if heading[1] not in SECTIONS:
                raise DataError(f"{path}, line {number}: no section [{heading[1]}]; there are {', '.join(SECTIONS)}")
            current = sections.setdefault(heading[1], [])
            continue
        try:
            options = shlex.split(line, comments=True)
        except ValueError as error:
            raise DataError(f"{path}, line {number}: {error}") from None
        if options and current is None:
            raise DataError(f"{path}, line {number}: options before the first section")
        if current is not None:
            current += options
    if not sections.get("train"):
        raise DataError(f"{path}: no [train] options")
    return sections


def _filled(path: Path, option: str, folders: dict[str, Path]) -> str:
    def folder(match: re.Match[str]) -> str:
        if match[1] not in folders:
            raise DataError(f"{path}: {match[0]} stands for nothing; there are {', '.join(folders)}")
        return str(folders[match[1]])

    return re.sub(r"\{([^}]*)\}", folder, option)
