"""Pipelines of real GStreamer that run to their end, and what came over their bus and out of their element."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

pytest.importorskip("gi", reason="needs GStreamer for Python: make test-live")
pytest.importorskip("rapidocr", reason="needs the detector's network: pip install rapidocr")

from clip4str.video.gstreamer import register
from clip4str.video.gstreamer.introspection import Gst, GstVideo

__all__ = [
    "NEEDED", "Gst", "GstVideo", "Outcome", "buffer", "drawn", "parse", "play", "push", "source", "take", "words",
]  # fmt: skip
NEEDED = pytest.mark.debian("gstreamer1.0-plugins-base", "gstreamer1.0-plugins-good", "gstreamer1.0-x")
PATIENCE = 120 * Gst.SECOND
KINDS = Gst.MessageType.EOS | Gst.MessageType.ERROR | Gst.MessageType.ELEMENT
register()


@dataclass
class Outcome:
    """messages: (name, fields) of the element's in their order, then "eos" or "error". before, after: the element's
    buffers at its two pads: time stamp and hash of the bytes."""

    messages: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    before: list[tuple[int, str]] = field(default_factory=list)
    after: list[tuple[int, str]] = field(default_factory=list)
    kept: list[Gst.Message] = field(default_factory=list)  # what fields lie in

    def all(self, name: str) -> list[dict[str, Any]]:
        return [fields for each, fields in self.messages if each == f"clip4str-{name}"]

    def texts(self) -> list[str]:
        """Of the words that ended, sorted."""
        return sorted(fields["text"] for fields in self.all("word-ended"))

    @property
    def last(self) -> str:
        return self.messages[-1][0]


def words(text: str, more: str = "") -> str:
    """White on black, as textoverlay draws it."""
    return f'textoverlay text="{text}" font-desc="DejaVu Sans 40" {more}'


def source(frames: int, format: str = "NV12", size: str = "width=640,height=360", more: str = "") -> str:
    return f"videotestsrc num-buffers={frames} pattern=black {more} ! video/x-raw,format={format},{size},framerate=25/1"


def parse(description: str) -> tuple[Gst.Pipeline, Outcome]:
    """A pipeline with `clip4strreader name=reader`, and what will have been seen."""
    pipeline, outcome = Gst.parse_launch(description), Outcome()
    reader = pipeline.get_by_name("reader")
    for pad, seen in (("sink", outcome.before), ("src", outcome.after)):
        reader.get_static_pad(pad).add_probe(Gst.PadProbeType.BUFFER, _noting(seen))
    return pipeline, outcome


def _noting(seen: list[tuple[int, str]]) -> Callable[..., Gst.PadProbeReturn]:
    def note(_: Gst.Pad, info: Gst.PadProbeInfo) -> Gst.PadProbeReturn:
        buffer = info.get_buffer()
        with buffer.map(Gst.MapFlags.READ) as mapped:
            seen.append((buffer.pts, hashlib.sha256(mapped.data).hexdigest()))
        return Gst.PadProbeReturn.OK

    return note


def take(pipeline: Gst.Pipeline, outcome: Outcome, until: str = "eos", patience: int = PATIENCE) -> None:
    """Messages up to one of that name, or the end."""
    bus = pipeline.get_bus()
    while not outcome.messages or outcome.last not in {until, "eos", "error"}:
        message = bus.timed_pop_filtered(patience, KINDS)
        assert message is not None, f"nothing more came after {outcome.messages[-1:]}"
        if message.type == Gst.MessageType.EOS:
            outcome.messages.append(("eos", {}))
        elif message.type == Gst.MessageType.ERROR:
            error, details = message.parse_error()
            outcome.messages.append(("error", {"line": error.message, "details": details, "domain": error.domain}))
        else:
            outcome.kept.append(message)
            structure = message.get_structure()
            fields = {structure.nth_field_name(n): None for n in range(structure.n_fields())}
            outcome.messages.append((structure.get_name(), {name: structure.get_value(name) for name in fields}))


def play(description: str) -> Outcome:
    """To its end, or to an error."""
    pipeline, outcome = parse(description)
    pipeline.set_state(Gst.State.PLAYING)
    try:
        take(pipeline, outcome)
    finally:
        pipeline.set_state(Gst.State.NULL)
    return outcome


def drawn(text: str, format: str) -> tuple[Gst.Caps, bytes]:
    """One picture with a text, 640 x 360."""
    pipeline = Gst.parse_launch(f"{source(1, format)} ! {words(text)} ! appsink name=sink sync=false")
    pipeline.set_state(Gst.State.PLAYING)
    sample = pipeline.get_by_name("sink").emit("pull-sample")
    pipeline.set_state(Gst.State.NULL)
    with sample.get_buffer().map(Gst.MapFlags.READ) as mapped:
        return sample.get_caps(), bytes(mapped.data)


def buffer(data: bytes, start: int, duration: int = Gst.SECOND // 25) -> Gst.Buffer:
    made = Gst.Buffer.new_wrapped(data)
    made.pts, made.duration = start, duration
    return made


def push(caps: Gst.Caps, buffers: Sequence[Gst.Buffer], reader: str) -> Outcome:
    """These buffers, then the end."""
    pipeline, outcome = parse(f"appsrc name=source format=time ! {reader} ! fakesink")
    given = pipeline.get_by_name("source")
    given.set_property("caps", caps)
    pipeline.set_state(Gst.State.PLAYING)
    for each in buffers:
        given.emit("push-buffer", each)
    given.emit("end-of-stream")
    try:
        take(pipeline, outcome)
    finally:
        pipeline.set_state(Gst.State.NULL)
    return outcome
