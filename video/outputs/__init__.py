"""What becomes of events: JSON lines, subtitles, tables, a contact sheet, an annotated video."""

from ..events import Shown
from .base import Sink
from .csv import Csv, LiveCsv
from .drawing import annotated, save_photo
from .jsonl import Jsonl
from .metrics import Metrics
from .mqtt import Mqtt
from .overlay import Overlay
from .queue import Queued
from .sheet import Sheet
from .srt import Srt
from .table import Table, table
from .vtt import Vtt

__all__ = [
    "Csv", "Jsonl", "LiveCsv", "Metrics", "Mqtt", "Overlay", "Queued", "Sheet", "Shown", "Sink", "Srt", "Table", "Vtt",
    "annotated", "save_photo", "table",
]  # fmt: skip
