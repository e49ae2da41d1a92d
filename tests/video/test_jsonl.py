"""JSON lines are as docs/video.md has them."""

import io
import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clip4str.core.errors import UsageError
from clip4str.video.events import VERSION, Gap, Statistics, WordChanged, WordEnded, WordFound
from clip4str.video.outputs import Jsonl

PAGE = Path(__file__).resolve().parents[2] / "docs" / "video.md"
QUAD = np.array([[1, 2], [30.126, 2], [30, 12], [1, 12]], np.float32)
EVENTS = [
    WordFound(0, 1, 0.5, 0.25, "EXIT", 0.9, QUAD, "sign"),
    WordChanged(0, 1, 1.0, "EXIST", "EXIT", 0.8, QUAD),
    Gap(0, 1.0, 2.0, "reconnected"),
    WordEnded(0, 1, "EXIT", 0.97, 0.1234564, 2.0, 1.0, QUAD, 5, 60, "sign", np.zeros((4, 9, 3), np.uint8)),
    Statistics(0, 75, 1, 2, 25, 90, 5, 1, 1, 2.5, {"detect": 12.34567}),
]
KINDS = {
    "integer": lambda v: type(v) is int,
    "number": lambda v: type(v) in (int, float),
    "boolean": lambda v: type(v) is bool,
    "string": lambda v: type(v) is str,
    "list of strings": lambda v: type(v) is list and all(type(each) is str for each in v),
    "4 x 2 numbers": lambda v: np.array(v).shape == (4, 2),
    "object of numbers": lambda v: type(v) is dict and all(type(each) is float for each in v.values()),
}


def schema():
    """{event: {field: what it is}} of the page."""
    found = {}
    for line in PAGE.read_text(encoding="utf-8").split("## JSON lines")[1].splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not line.startswith("|") or cells[0].startswith("-"):
            continue
        names = re.findall(r"`(\w+)`", cells[0])
        if not cells[1]:
            found[names[0]] = fields = {}
        else:
            fields.update(dict.fromkeys(names, cells[1] if cells[1] in KINDS else cells[1].removesuffix("s")))
    return found


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_event_has_the_fields_that_the_page_tells(tmp_path):
    sink = Jsonl(tmp_path / "a.jsonl", ["street.mp4"])
    for event in EVENTS:
        sink.write(event)
    sink.close()
    told, events = schema(), lines(tmp_path / "a.jsonl")
    assert {event["event"] for event in events} == set(told) and f"which is {VERSION}" in PAGE.read_text("utf-8")
    for event in events:
        assert event.pop("version") == VERSION
        fields = told[event.pop("event")]
        assert set(event) == set(fields)
        assert all(KINDS[fields[name]](value) for name, value in event.items()), event
    assert events[0] == {"names": ["street.mp4"]}


def test_times_to_the_microsecond_and_no_label_where_there_is_none(tmp_path):
    sink = Jsonl(tmp_path / "a.jsonl")
    sink.write(replace(EVENTS[3], label=None))
    event = lines(tmp_path / "a.jsonl")[1]
    assert event["start"] == 0.123456 and event["quad"][1] == [30.13, 2.0] and "label" not in event
    sink.close()


def test_a_line_is_there_as_soon_as_it_happened(tmp_path):
    sink = Jsonl(tmp_path / "a.jsonl")
    for number, event in enumerate(EVENTS, 2):
        sink.write(event)
        assert len(lines(tmp_path / "a.jsonl")) == number
    sink.close()
    sink.close()


def test_standard_output_of_any_encoding_stays_open(monkeypatch):
    for encoding, shown in (("ascii", rb"\u8def"), ("utf-8", "路".encode())):
        raw = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding))
        sink = Jsonl("-", ["bad\udcff.mp4"])
        sink.write(replace(EVENTS[0], text="路"))
        sink.close()
        names, event = (json.loads(line) for line in raw.getvalue().decode(encoding).splitlines())
        assert event["text"] == "路" and shown in raw.getvalue() and names["names"] == ["bad\udcff.mp4"]
        print("still open")


def test_a_file_that_cannot_be_written_is_told_before_the_run(tmp_path):
    for path in (tmp_path, tmp_path / "none" / "a.jsonl"):
        with pytest.raises(UsageError):
            Jsonl(path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_full_disk_is_one_line():
    with pytest.raises(UsageError, match="/dev/full: cannot be written"):
        Jsonl("/dev/full")
