"""Pictures and labels -> an LMDB of words; what is wrong with them is counted, and what cannot be used is left out."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import unicodedata
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from clip4str.core.console import one_line
from clip4str.core.errors import DataError, ImageError
from clip4str.data.label_formats import Row
from clip4str.data.lmdb_file import LARGEST_VALUE
from clip4str.data.protocol import Protocol
from clip4str.data.word_lmdb import fraction
from clip4str.runtime.images import load_image

EXAMPLES = 3
LONGEST = Protocol().max_length
LARGE = 1_000_000  # pixels; a word crop has thousands
BATCH = 1000  # words a transaction
LEFT_OUT = (
    NO_LABEL, EMPTY, CONTROL, MISSING, TWICE, NO_PICTURE,
) = (
    "the line is not of the format", "empty label", "control characters in the label", "no such file",
    "picture named before", "not a picture that can be read",
)  # fmt: skip
NOTED = (LONG, SPACES, DECOMPOSED, SAME, CONTRADICTED, PHOTO) = (
    f"label of over {LONGEST} characters", "spaces in the label", "label not in Unicode's composed form (NFC)",
    "same picture as another", "same picture as another, with another label", f"over {LARGE:,} pixels: not one word?",
)  # fmt: skip


@dataclass
class Findings:
    """counts: by kind. found: kind, line, file and what else is to be said; the first few of a kind, or `every`."""

    every: bool = False
    counts: Counter[str] = field(default_factory=Counter)
    found: list[tuple[str, int, str, str]] = field(default_factory=list)
    characters: Counter[str] = field(default_factory=Counter)
    words: Counter[str] = field(default_factory=Counter)  # by part

    def add(self, kind: str, row: Row, more: str = "") -> None:
        self.counts[kind] += 1
        if self.every or self.counts[kind] <= EXAMPLES:
            self.found.append((kind, row.line, row.file, more))

    def examples(self, kind: str) -> list[str]:
        found = [entry for entry in self.found if entry[0] == kind][:EXAMPLES]
        return [one_line(f"line {line}: {file[:100]}{more and f' ({more[:100]})'}") for _, line, file, more in found]


class Word(NamedTuple):
    row: Row
    path: Path
    label: str
    size: int


def usable(rows: Sequence[Row], pictures: Path, findings: Findings) -> list[Word]:
    """The rows whose labels can be learned and whose pictures are there, not yet looked into.

    Raises DataError for a path that leads out of `pictures`, and where no picture at all is there.
    """
    root, found, seen = pictures.resolve(), [], dict[str, str]()
    for row in rows:
        label = (row.label or "").strip()
        if row.label is None:
            findings.add(NO_LABEL, row)
            continue
        path = _within(root, row, pictures)
        size = _size(path)
        if size is None:
            findings.add(MISSING, row)
        elif not label:
            findings.add(EMPTY, row)
        elif any(unicodedata.category(c) == "Cc" for c in label):
            findings.add(CONTROL, row, repr(label))
        elif str(path) in seen:
            before = seen[str(path)]
            findings.add(TWICE, row, "" if before == label else f"as {before!r}, now {label!r}")
        else:
            seen[str(path)] = label
            found.append(Word(row, path, label, size))
    if findings.counts[MISSING] and not seen:
        first = next(file for kind, _, file, _ in findings.found if kind == MISSING)
        raise DataError(
            f"{pictures}: none of the {findings.counts[MISSING]:,} pictures is there, the first being {first!r}; "
            "--pictures DIR says below which folder they are"
        )
    return found


def _within(root: Path, row: Row, shown: Path) -> Path:
    """Where the picture should be. Raises DataError for what lies elsewhere, be it by a link."""
    name = row.file.strip().replace("\\", "/")
    if name.startswith("/") or re.match("[A-Za-z]:", name) or ".." in name.split("/") or "\0" in name:
        raise DataError(f"line {row.line}: {row.file[:200]!r} leads out of {shown}; paths are relative to that folder")
    path = root / name
    try:
        inside = path.resolve().is_relative_to(root)
    except (OSError, RuntimeError, ValueError):  # a loop of links, or a name too long
        return path
    if not inside:
        raise DataError(f"line {row.line}: {row.file[:200]!r} is a link out of {shown}; --pictures DIR says where to")
    return path


def _size(path: Path) -> int | None:
    """Of a regular file (a pipe would be waited for), None for what is none."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def write(words: Sequence[Word], folder: Path, share: float, findings: Findings, progress: bool = False) -> None:
    """LMDBs of those whose pictures can be read: in `folder`, or with a share held out in its folders train and
    validation. Which are held out is said by a hash of the picture, so copies stay on one side.

    Raises DataError if lmdb is missing, nothing is left, or it cannot be written.
    """
    try:
        import lmdb
    except ImportError:
        raise DataError("writing a data set needs lmdb: pip install lmdb") from None
    places = {"train": folder / "train", "validation": folder / "validation"} if share else {"": folder}
    room = (1 << 24) + sum(word.size + (1 << 14) for word in words)  # of addresses; the file is as long as its words
    seen: dict[bytes, str] = {}
    try:
        with ExitStack() as stack:
            sets = {}
            for name, place in places.items():
                place.mkdir(exist_ok=True)
                sets[name] = stack.enter_context(lmdb.open(str(place), map_size=room, lock=False))
            bar = stack.enter_context(tqdm(total=len(words), unit="picture", disable=None if progress else True))
            for first in range(0, len(words), BATCH):
                with ExitStack() as writing:
                    open_sets = {name: writing.enter_context(env.begin(write=True)) for name, env in sets.items()}
                    for word in words[first : first + BATCH]:
                        data = _picture(word, findings, seen)
                        if data is not None:
                            name = "" if not share else "validation" if fraction(data) < share else "train"
                            _put(open_sets[name], word, data, findings, name)
                        bar.update()
        for place in places.values():
            (place / "lock.mdb").unlink(missing_ok=True)
    except lmdb.Error as error:
        raise DataError(f"{folder}: cannot be written ({error})") from None
    for name in places:
        if not findings.words[name]:
            what = f"nothing would be left for {name}; another share of --validation" if share else "no word is left"
            raise DataError(f"{what} ({'; '.join(f'{kind}: {findings.counts[kind]:,}' for kind in LEFT_OUT)})")


def _picture(word: Word, findings: Findings, seen: dict[bytes, str]) -> bytes | None:
    """Its bytes, if they are a picture for the runtime."""
    try:
        if word.size > LARGEST_VALUE:
            raise ImageError(f"{word.path}: over {LARGEST_VALUE >> 20} MB")
        data = word.path.read_bytes()
        image = load_image(data)
    except (ImageError, OSError) as error:
        findings.add(NO_PICTURE, word.row, str(error).partition(": ")[2] or str(error))
        return None
    if image.width * image.height > LARGE:
        findings.add(PHOTO, word.row, f"{image.width}x{image.height}")
    digest = hashlib.sha256(data).digest()
    before = seen.get(digest)
    seen.setdefault(digest, word.label)
    if before is not None:
        kind = SAME if before == word.label else CONTRADICTED
        findings.add(kind, word.row, "" if kind == SAME else f"{before!r}, now {word.label!r}")
    return data


def _put(txn: Any, word: Word, data: bytes, findings: Findings, part: str) -> None:
    label = word.label
    findings.words[part] += 1
    findings.characters.update(label)
    for kind, found in ((LONG, len(label) > LONGEST), (SPACES, any(c.isspace() for c in label)),
                        (DECOMPOSED, not unicodedata.is_normalized("NFC", label))):  # fmt: skip
        if found:
            findings.add(kind, word.row, repr(label))
    number = findings.words[part]
    txn.put(b"image-%09d" % number, data)
    txn.put(b"label-%09d" % number, label.encode())
    txn.put(b"num-samples", str(number).encode())


def sidecars(folder: Path, suffixes: Sequence[str]) -> list[tuple[Path, Path]]:
    """(picture, file with its label) of those below a folder: NAME.gt.txt or NAME.txt beside NAME.png."""
    found = []
    for base, folders, names in os.walk(folder):
        folders.sort()
        there = set(names)
        for name in sorted(names):
            stem, suffix = Path(name).stem, Path(name).suffix
            beside = next((other for other in (f"{stem}.gt.txt", f"{stem}.txt") if other in there), None)
            if suffix.lower() in suffixes and beside:
                found.append((Path(base, name), Path(base, beside)))
    return found
