"""What a server runs before and behind a single file, where one request's pictures are not as large as another's: the
resize by itself, so that the network still reads them together; and texts, for engines, which have no strings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto

from clip4str.export.graph import OPSET, Graph
from clip4str.runtime.bundle import Manifest

from .bodies import FLOAT, INT32
from .passes import first_end
from .pixels import INPUT, pixels_input
from .write import STRINGS_OPSET, spelled

RESIZED = "resized"


def write_resize(path: Path, manifest: Manifest, version: str) -> None:
    """pixels (N, height, width, 3) uint8 of any size -> resized (N, 3, H, W) float32, as a single file takes it; and
    bundle (N,): `version`, for each."""
    g = Graph("clip4str_resize", "fp32", OPSET)
    height, width = manifest.image_size
    pixels = pixels_input(g, manifest.image_size, manifest.normalization, uint8=True, resize=True)
    count = g.op("Shape", INPUT, start=0, end=1)
    zeros = g.op("Expand", g.constant("i64_0_", np.array(0, np.int64)), count)
    named = g.op("Gather", g.constant("version", np.array([version], object)), zeros)
    g.output(g.op("Identity", pixels), RESIZED, FLOAT, ("N", 3, height, width))
    g.output(named, "bundle", TensorProto.STRING, ("N",))
    g.save(path, {"name": manifest.name}, "pictures of any size -> what a single file of clip4str takes")


def write_texts(path: Path, manifest: Manifest) -> None:
    """ids (N, T) int32, as a single file gives them -> text (N,)."""
    steps = manifest.config["steps"]
    g = Graph("clip4str_texts", "fp32", STRINGS_OPSET)
    ids = g.input("ids", INT32, ("N", steps))
    text = spelled(g, manifest.charset, ids, first_end(g, ids, steps), steps)
    g.output(text, "text", TensorProto.STRING, ("N",))
    g.save(path, {"name": manifest.name, "charset": manifest.charset}, "ids of a single file of clip4str -> texts")
