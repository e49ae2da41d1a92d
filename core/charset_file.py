"""Charsets as people have them: a string, a file of it, a list of a character a line, a published configuration."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from .errors import CharsetError, UsageError
from .text import describe_characters

KEYS = ("charset_train", "charset")  # of a configuration; the published one is configs/charset/*.yaml
LARGEST = 1 << 20  # bytes: no script has as many characters
_FILES = (".txt", ".yaml", ".yml", ".dict", ".keys")


class Given(NamedTuple):
    """A charset that was given, and a line on what was read: "viet.txt: 229 characters, ' twice"."""

    characters: str
    said: str


def read_charset(given: str) -> Given:
    """The charset that an option gives: the name of a file there is, else the characters themselves.

    A file is UTF-8: a published configuration (`charset_train: "..."`; nothing of it runs), a list with a character on
    each line as PaddleOCR's dictionaries are (a line may be a single space; empty ones are passed over), or one line,
    the string itself. Raises UsageError (no such file, cannot be read), CharsetError (holds no charset).
    """
    path = Path(given)
    try:
        is_file = path.is_file()
    except (OSError, ValueError):  # too long for a file's name
        is_file = False
    if not is_file:
        if path.suffix.lower() in _FILES:
            raise UsageError(f"{given}: no such charset file")
        return Given(given, describe_characters(given))
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or error})") from None
    except UnicodeDecodeError as error:
        raise CharsetError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}); convert it") from None
    if len(content) > LARGEST:
        raise CharsetError(f"{path}: larger than any charset")
    characters, note = _characters(path, text)
    if not characters:
        raise CharsetError(f"{path}: holds no characters")
    return Given(characters, f"{path.name}: {describe_characters(characters)}{note}")


def _characters(path: Path, text: str) -> tuple[str, str]:
    if re.search(rf"^\s*({'|'.join(KEYS)})\s*:\s*\S", text, re.MULTILINE) and len(text.splitlines()) < 1000:
        return _of_configuration(path, text), ""
    lines = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
    if len(lines) == 1:
        return lines[0], ""
    for number, line in enumerate(lines, 1):
        if len(line) > 1:
            raise CharsetError(
                f"{path}: line {number} has {len(line)} characters ({line[:12]!r}); a charset is one line, or a list "
                "with a single character on each"
            )
    empty = lines.count("")
    return "".join(lines), f"; {empty} empty line{'s' * (empty > 1)} passed over" if empty else ""


def _of_configuration(path: Path, text: str) -> str:
    try:
        import yaml
    except ImportError:
        raise UsageError(f"{path}: a YAML file needs PyYAML (pip install pyyaml); or give the string alone") from None
    try:
        values = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise CharsetError(f"{path}: no valid YAML ({str(error).splitlines()[0]})") from None
    for part in (values, values.get("model") if isinstance(values, dict) else None):
        for key in KEYS:
            if isinstance(part, dict) and isinstance(part.get(key), str):
                return str(part[key])
    raise CharsetError(f"{path}: no text under {' or '.join(KEYS)}")
