"""The standard test sets by folder name. Published tables report eleven; two of them also in a subset."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

STANDARD = (
    "IIIT5k", "SVT", "IC13_857", "IC13_1015", "IC15_1811", "IC15_2077", "SVTP", "CUTE80",
    "HOST", "WOST", "COCOv1.4", "ArT", "Uber",
)  # fmt: skip
_SPELLINGS = {
    "iiit": "IIIT5k", "iiit5k3000": "IIIT5k", "iiit5kwords": "IIIT5k", "svt647": "SVT",
    "ic13": "IC13_1015", "icdar13": "IC13_1015", "icdar2013": "IC13_1015",
    "ic15": "IC15_2077", "icdar15": "IC15_2077", "icdar2015": "IC15_2077",
    "svtperspective": "SVTP", "svtp645": "SVTP", "svt-p": "SVTP", "cute": "CUTE80", "cute288": "CUTE80",
    "heavy": "HOST", "weak": "WOST", "coco": "COCOv1.4", "cocotext": "COCOv1.4", "ubertext": "Uber",
}  # fmt: skip
_NOT_TEST = {"train", "training", "val", "valid", "validation"}


def standard_name(folder: Path) -> str | None:
    """The standard set that a folder's name stands for, whatever its case, dashes and dots, or None."""
    plain = _plain(folder.name)
    known = {_plain(name): name for name in STANDARD}
    known.update({_plain(spelling): name for spelling, name in _SPELLINGS.items()})
    return known.get(re.sub(r"^icdar(20)?1", "ic1", plain)) or known.get(plain)


def name_sets(root: Path, folders: Iterable[Path]) -> dict[str, Path]:
    """A name for every LMDB folder below root: standard sets in their usual order, then the rest by path.

    A training split is never a standard set, and of two folders of one name neither can be trusted to be it:
    these go by their path below root, with ./ before it where it would read like a standard set.
    """
    folders = list(folders)
    claims = claimed_sets(root, folders)
    sets = {name: found[0] for name in STANDARD if len(found := claims.get(name, [])) == 1}
    others = {_path_name(root, folder, folders): folder for folder in folders if folder not in sets.values()}
    return {**sets, **dict(sorted(others.items()))}


def claimed_sets(root: Path, folders: Iterable[Path]) -> dict[str, list[Path]]:
    """The folders whose names stand for a standard set, by set. Training splits claim none."""
    claims: dict[str, list[Path]] = {}
    for folder in folders:
        parts = {part.lower() for part in folder.relative_to(root).parts}
        name = None if parts & _NOT_TEST else standard_name(folder.resolve())
        if name:
            claims.setdefault(name, []).append(folder)
    return claims


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _path_name(root: Path, folder: Path, folders: Sequence[Path]) -> str:
    below = folder.relative_to(root).as_posix()
    if below == ".":
        return below if len(folders) > 1 else folder.resolve().name
    return f"./{below}" if below in STANDARD else below
