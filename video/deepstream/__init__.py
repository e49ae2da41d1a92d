"""Words in NVIDIA DeepStream: probes that read the objects of a pipeline, and write their words back as metadata.

docs/deepstream.md has the pipelines. Importing this loads neither pyds nor GStreamer.
"""

from __future__ import annotations

from .text_probe import TextProbe
from .word_probe import WordProbe

__all__ = ["TextProbe", "WordProbe"]
