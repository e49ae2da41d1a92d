"""The reader that the element's properties describe."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from clip4str.core.errors import UsageError
from clip4str.runtime import Recognizer

from ..detect import engine_beside
from ..detect.ppocr import TextDetector
from ..options import region_of
from ..reader import VideoReader, read_lexicon
from ..vote import compiled
from .properties import Value


def open_reader(values: Mapping[str, Value]) -> VideoReader:
    """values: of all PROPERTIES. Raises Clip4StrError."""
    text = {name: str(value) for name, value in values.items()}
    threads, latency = int(values["threads"]), float(values["max-latency"])
    if not 0 <= threads <= 1024:
        raise UsageError(f"threads is 1 to 1024, or 0 for all, not {threads}")
    if not 0 <= latency < 3_600_000:
        raise UsageError(f"max-latency is a time in milliseconds, or 0, not {latency:g}")
    if (model := text["detector-model"]) and not Path(model).is_file():
        raise UsageError(f"detector-model: there is no file {model}")
    pattern = compiled(text["pattern"] or None)
    region = region_of(text["region"] or None, "region")
    lexicon = read_lexicon(Path(text["lexicon"])) if text["lexicon"] else None
    recognizer = Recognizer.load(
        text["bundle"] or None, text["backend"], threads=threads or None, device=text["device"] or None,
        dtype=text["dtype"] or None,
    )  # fmt: skip
    detector = TextDetector(
        int(values["long-side"]), not values["lines"], Path(model) if model else None, recognizer.backend.threads or 1,
        **engine_beside(text["backend"], text["dtype"] or None),
    )  # fmt: skip
    return VideoReader(
        recognizer, detector, detect_every=int(values["detect-every"]) or None, pattern=pattern, lexicon=lexicon,
        region=region, budget=latency or None, crops=bool(values["crops"]),
    )  # fmt: skip
