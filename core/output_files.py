"""The files that a report is written to: checked before the work that fills them, and written whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from clip4str.core.atomic_files import replaced
from clip4str.core.errors import UsageError

_BUNDLE = "manifest.json"  # a folder with it is a bundle, and holds nothing else
_PICTURES = {
    ".png": (b"\x89PNG",), ".svg": (b"<?xml", b"<svg"), ".pdf": (b"%PDF",), ".jpg": (b"\xff\xd8",),
}  # fmt: skip
_MARKS = {".srt": "-->", ".vtt": "WEBVTT", ".csv": "source,track,text"}  # in one of the first two lines
_EVENTS = '{"event": "sources", '  # what the events of a video begin with, one a line
_HEAD, _LONG, _MOST_BYTES = 1 << 12, 1 << 24, 1 << 28  # bytes: that tell a table; of long events; of other reports
# A box of MP4 that players skip, at the end of our videos: by it one is known.
MP4_MARK = b"\0\0\0\x18freeclip4str overlay"


def check_output(file: Path | None, suffixes: Sequence[str] = ()) -> None:
    """Raises UsageError if `file` cannot be written, ends in none of the suffixes, where there are some, or is there
    and no report: nobody's weights, program or letters are replaced by one."""
    if file is None:
        return
    try:
        target = file.resolve()
        if target.is_dir():
            raise UsageError(f"{file}: is a folder; name a file")
        if suffixes and file.suffix.lower() not in suffixes:
            either = " or ".join(filter(None, (", ".join(suffixes[:-1]), suffixes[-1])))
            raise UsageError(f"{file}: its name must end in {either}")
        if not target.parent.is_dir():
            raise UsageError(f"{file}: its folder does not exist")
        if (target.parent / _BUNDLE).is_file():
            raise UsageError(f"{file}: {target.parent} is a bundle, which holds nothing else; name another folder")
        if target.exists():
            if not target.is_file():
                raise UsageError(f"{file}: is a device or a pipe; name a file")
            if not _is_report(target):
                raise UsageError(f"{file}: exists and is no report as would be written there; name another file")
        with tempfile.NamedTemporaryFile(prefix=f".{target.name}.", dir=target.parent):
            pass  # a name as long as this one can be made there
    except (OSError, RuntimeError, ValueError) as error:  # also a circle of links, and names that are none
        raise UsageError(f"{file}: cannot be written ({getattr(error, 'strerror', None) or error})") from None


def check_apart(outputs: Mapping[str, Path | None], inputs: Iterable[Path] = ()) -> None:
    """Raises UsageError if one of the outputs, by their options, is an input or another output: what is written last
    would replace it."""
    taken = {os.path.realpath(file): "what is read" for file in inputs}
    for option, file in outputs.items():
        if file is not None:
            if other := taken.get(os.path.realpath(file)):
                raise UsageError(f"{option} {file}: is {other}, too; name another file")
            taken[os.path.realpath(file)] = f"that of {option}"


def _is_report(file: Path) -> bool:
    """Could one of this package's commands have written it? By its content, as its name says: a picture, one JSON
    object or one a line, subtitles, the table of words of a video, or else lines of columns; a video by its mark."""
    if file.suffix.lower() == ".mp4" and file.stat().st_size:
        with file.open("rb") as opened:
            opened.seek(-min(len(MP4_MARK), file.stat().st_size), os.SEEK_END)
            return opened.read() == MP4_MARK
    with file.open("rb") as opened:
        head = opened.read(_HEAD).decode("utf-8", "replace")
    size = file.stat().st_size
    if _marked(file, head) or (size > _LONG and head.startswith(_EVENTS)):
        return True  # of any length: what a live source fills grows for months
    if size > _MOST_BYTES:
        return False
    content = file.read_bytes()
    if not content.strip():
        return True
    if file.suffix.lower() in _PICTURES:
        return content.startswith(_PICTURES[file.suffix.lower()])
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    lines = [line for line in text.splitlines() if line.strip()]
    if text.startswith("{"):
        return _is_object(text) or all(map(_is_object, lines))
    return file.suffix.lower() != ".json" and all("\t" in line for line in lines)


def _marked(file: Path, head: str) -> bool:
    mark = _MARKS.get(file.suffix.lower())
    return mark is not None and any(mark in line for line in [x for x in head.splitlines() if x.strip()][:2])


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def write_whole(path: Path, content: bytes | str) -> None:
    """Through a temporary name: a reader finds all of it or none. Raises UsageError if it cannot be written."""
    # a folder's name may hold bytes that no encoding has
    encoded = content if isinstance(content, bytes) else content.encode(errors="backslashreplace")
    try:
        with replaced(path.resolve(), durable=False) as partial:
            partial.write_bytes(encoded)
    except (OSError, RuntimeError) as error:
        raise UsageError(f"{path}: cannot be written ({getattr(error, 'strerror', None) or error})") from None


def write_json(path: Path, values: Any) -> None:
    """As write_whole."""
    write_whole(path, json.dumps(values, indent=1, ensure_ascii=False) + "\n")
