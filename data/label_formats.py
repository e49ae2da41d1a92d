"""How label files name pictures and say what is written on them: one parser for each format, and which one it is."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from clip4str.core.errors import DataError
from clip4str.data.label_text import Text
from clip4str.runtime.read_command import IMAGE_SUFFIXES

FORMATS = {
    "tab": "picture, tab, label (PaddleOCR, deep-text-recognition-benchmark)",
    "space": "picture, space, label (MMOCR's text files)",
    "icdar": 'picture, comma, "label" in quotes (ICDAR)',
    "mlt": "picture, script, label with commas between (ICDAR MLT)",
    "csv": "comma or semicolon between, with a head or without (EasyOCR, Kaggle)",
    "jsonl": "a JSON object for each line (MMOCR, Hugging Face)",
    "json": "one JSON document (MMOCR's data_list, a list of objects, or picture: label)",
    "mjsynth": "paths of pictures whose names hold their labels: NUMBER_label_NUMBER.jpg",
}
_FILE = ("filename", "file_name", "file", "img_path", "image_path", "img_name", "image_name", "image", "img", "path")
_LABEL = ("text", "label", "words", "word", "transcription", "gt", "ground_truth", "labels", "sentence", "value")
_SUFFIX = "|".join(sorted(suffix[1:] for suffix in IMAGE_SUFFIXES))
_ICDAR = re.compile(rf'(.+?\.(?:{_SUFFIX}))\s*,\s*"(.*)"\s*', re.IGNORECASE)
_SPACE = re.compile(rf"(.+?\.(?:{_SUFFIX}))[ \t]+(.*)", re.IGNORECASE)
_PICTURE = re.compile(rf".+\.(?:{_SUFFIX})", re.IGNORECASE)
_MJSYNTH = re.compile(r"\d+_(.+)_(\d+)")
_PLACES = re.compile(r"\s*-?\d+(?:\.\d+)?(?:\s*,\s*-?\d+(?:\.\d+)?){3,7}\s*,")
_SCRIPTS = {"arabic", "latin", "chinese", "japanese", "korean", "bangla", "hindi", "symbols", "mixed", "none"}
_LOOKED_AT = 200  # lines
_WHOLE = "labels of words in whole pictures (for detection); cut the words out first: a picture of one word each"


class Row(NamedTuple):
    """label: None where the line does not say, and file is then the line."""

    line: int
    file: str
    label: str | None


def detect(text: Text, suffix: str = "") -> str:
    """The format's name. suffix: of the file. Raises DataError where it is none, or that of detection."""
    lines = [line for _, line in text.lines()[:_LOOKED_AT]]
    first = lines[0].lstrip()
    if first[0] in "{[" and "\t" not in first:
        return "jsonl" if _json_object(first) is not None and suffix != ".json" else "json"
    if all(_PLACES.match(line) for line in lines):
        raise DataError(_WHOLE)
    for name in ("mjsynth", "icdar", "tab", "mlt", "csv", "space"):
        if 2 * sum(map(_LOOKS[name], lines)) > len(lines):
            return name
    raise DataError(f"{first[:80]!r} is of no format known here; --format says which: {', '.join(FORMATS)}")


def parse(text: Text, name: str) -> list[Row]:
    """Every picture that is named, in order. Raises DataError where the text is of another format."""
    rows = list(_PARSERS[name](text))
    if not any(row.label is not None for row in rows):
        raise DataError(f"no line is of the format {name!r} ({FORMATS[name]})")
    return rows


def _tab(text: Text) -> Iterator[Row]:
    lines = text.lines()
    cells = [cell.strip().lower() for cell in lines[0][1].split("\t")]
    columns = _columns(cells)
    for number, line in lines[1:] if columns else lines:
        if columns:
            values = line.split("\t")
            whole = len(values) > max(columns)
            yield Row(number, values[columns[0]], values[columns[1]]) if whole else Row(number, line, None)
            continue
        file, tab, label = line.partition("\t")
        if not tab:
            yield Row(number, line, None)
        elif label.lstrip().startswith("[{") and isinstance(_json(label), list):
            raise DataError(f"line {number}: {_WHOLE}")
        elif file.startswith("[") and isinstance(files := _json(file), list):  # several pictures of one word
            yield from (Row(number, str(each), label) for each in files)
        else:
            yield Row(number, file, label)


def _matching(pattern: re.Pattern[str]) -> Callable[[Text], Iterator[Row]]:
    def rows(text: Text) -> Iterator[Row]:
        for number, line in text.lines():
            match = pattern.fullmatch(line)
            yield Row(number, match[1], match[2]) if match else Row(number, line, None)

    return rows


def _icdar(text: Text) -> Iterator[Row]:
    for row in _matching(_ICDAR)(text):
        yield row._replace(label=re.sub(r'\\(["\\])', r"\1", row.label)) if row.label is not None else row


def _mlt(text: Text) -> Iterator[Row]:
    for number, line in text.lines():
        parts = line.split(",", 2)
        yield Row(number, parts[0], parts[2]) if len(parts) == 3 else Row(number, line, None)


def _csv(text: Text) -> Iterator[Row]:
    head = text.content.lstrip("\r\n").splitlines()[0]
    between = ";" if head.count(";") > head.count(",") else ","
    reader = csv.reader(io.StringIO(text.content, newline=""), delimiter=between)
    columns = None
    try:
        for count, cells in enumerate(row for row in reader if any(cell.strip() for cell in row)):
            if count == 0 and (columns := _columns([cell.strip().lower() for cell in cells])):
                width = len(cells)
            elif columns:
                whole = len(cells) == width
                file, label = (cells[c] for c in columns) if whole else (between.join(cells), None)
                yield Row(reader.line_num, file, label)
            else:  # without a head all that follows the first comma is the label
                label = between.join(cells[1:]) if len(cells) > 1 else None
                yield Row(reader.line_num, cells[0], label)
    except csv.Error as error:
        raise DataError(f"line {reader.line_num}: no CSV ({error})") from None


def _jsonl(text: Text) -> Iterator[Row]:
    for number, line in text.lines():
        entry = _json(line)
        yield from _entry(entry, number) if isinstance(entry, dict) else [Row(number, line, None)]


def _whole_json(text: Text) -> Iterator[Row]:
    document = _json(text.content)
    if isinstance(document, dict):
        if "anns" in document or {"annotations", "images"} <= document.keys():
            raise DataError(_WHOLE)
        lists = [v for k, v in document.items() if k in ("data_list", "data", "labels", "annotations")]
        document = lists[0] if lists else document
    if isinstance(document, dict):
        for number, (file, label) in enumerate(document.items(), 1):
            yield Row(number, file, label if isinstance(label, str) else None)
    elif isinstance(document, list):
        for number, entry in enumerate(document, 1):
            yield from _entry(entry, number) if isinstance(entry, dict) else [Row(number, str(entry)[:200], None)]
    else:
        raise DataError("no JSON document with pictures and labels")


def _mjsynth(text: Text) -> Iterator[Row]:
    for number, line in text.lines():
        file = line.split()[0]
        yield Row(number, file, name_label(file))


def name_label(file: str) -> str | None:
    """The label in a picture's name: NUMBER_label_NUMBER as MJSynth has it, label_NUMBER as generators do."""
    stem = PurePosixPath(file.replace("\\", "/")).stem
    match = _MJSYNTH.fullmatch(stem) or re.fullmatch(r"(.+)_(\d+)", stem)
    return match[1] if match else None


def _entry(entry: dict[str, Any], number: int) -> Iterator[Row]:
    file = next((entry[name] for name in _FILE if isinstance(entry.get(name), str)), None)
    instances = entry.get("instances")
    if isinstance(instances, list):
        if len(instances) != 1 or not isinstance(instances[0], dict) or {"polygon", "bbox"} & instances[0].keys():
            raise DataError(f"entry {number}: {_WHOLE}")
        entry = instances[0]
    label = next((entry[name] for name in _LABEL if isinstance(entry.get(name), str)), None)
    yield Row(number, json.dumps(entry)[:200], None) if file is None else Row(number, file, label)


def _columns(head: Sequence[str]) -> tuple[int, int] | None:
    """Places of picture and label in a head, None where it is none."""
    file, label = (next((head.index(name) for name in names if name in head), None) for names in (_FILE, _LABEL))
    return None if file is None or label is None else (file, label)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _json_object(text: str) -> dict[str, Any] | None:
    found = _json(text)
    return found if isinstance(found, dict) else None


def _looks_csv(line: str) -> bool:
    cells = [cell.strip(' "') for cell in re.split("[,;]", line)]
    named = any(_PICTURE.fullmatch(cell) for cell in cells)
    return len(cells) > 1 and (named or _columns([cell.lower() for cell in cells]) is not None)


def _looks_mjsynth(line: str) -> bool:
    file, _, index = line.strip().partition(" ")
    match = _MJSYNTH.fullmatch(PurePosixPath(file).stem)
    return bool(match and _PICTURE.fullmatch(file) and index in ("", match[2]))


_LOOKS: dict[str, Callable[[str], bool]] = {
    "mjsynth": _looks_mjsynth,
    "icdar": lambda line: bool(_ICDAR.fullmatch(line)) and ',"' not in line,  # CSV has quotes, too, and no blank before
    "tab": lambda line: "\t" in line,
    "mlt": lambda line: len(parts := line.split(",", 2)) == 3 and parts[1].strip().lower() in _SCRIPTS,
    "csv": _looks_csv,
    "space": lambda line: _SPACE.fullmatch(line) is not None,
}
_PARSERS: dict[str, Callable[[Text], Iterator[Row]]] = {
    "tab": _tab, "space": _matching(_SPACE), "icdar": _icdar, "mlt": _mlt, "csv": _csv, "jsonl": _jsonl,
    "json": _whole_json, "mjsynth": _mjsynth,
}  # fmt: skip
