"""What the element can be told. Needs nothing: GStreamer looks at it whenever it looks for plugins."""

from __future__ import annotations

from typing import NamedTuple

Value = str | int | float | bool


class Property(NamedTuple):
    """of: str, int, float or bool. An empty string and 0 stand for nothing said."""

    name: str
    of: type
    default: Value
    blurb: str


PROPERTIES = (
    Property("bundle", str, "", "the network's folder; empty: $CLIP4STR_BUNDLE, else the one built last under "
             "./bundles, else the packaged one"),
    Property("backend", str, "auto", "auto, tensorrt, torch, onnxruntime or openvino"),
    Property("dtype", str, "", "of torch and openvino, as of clip4str read; empty: their own"),
    Property("device", str, "", "GPU of the backend, cuda or cuda:N; empty: its own choice"),
    Property("threads", int, 0, "CPU threads of search and reading; 0: all"),
    Property("long-side", int, 640, "pixels that the longer side is shrunk to before words are searched"),
    Property("detector-model", str, "", "ONNX file of another detector of PP-OCR's kind; empty: rapidocr's"),
    Property("lines", bool, False, "do not cut lines of text into words"),
    Property("detect-every", int, 0, "search words in every N-th frame; 0: by motion, and by the time there is"),
    Property("region", str, "", "x,y,width,height in pixels: only words whose middle is in there"),
    Property("pattern", str, "", "only words that this regular expression fits as a whole"),
    Property("lexicon", str, "", "file with a word a line: reads count for the nearest"),
    Property("max-latency", float, 0.0, "milliseconds a frame may take; words are searched less often for it; "
             "0: a frame's own time, or with wait=true no limit"),
    Property("wait", bool, False, "read every frame, and keep the pipeline waiting for it; false: the newest frame, "
             "whatever comes meanwhile passes unread"),
    Property("crops", bool, False, "word-ended messages have the word's best picture"),
    Property("metadata", bool, True, "words in view as GstAnalytics metadata of buffers, from GStreamer 1.24 on"),
)  # fmt: skip
DEFAULTS = {known.name: known.default for known in PROPERTIES}
