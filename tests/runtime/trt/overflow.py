"""Bundles with a decoder whose numbers overflow."""

from __future__ import annotations

import json
import shutil

import numpy as np
import onnx
from onnx import numpy_helper

from clip4str.runtime.bundle import describe_file


def overflowing(bundle, folder, stage, factor):
    """A copy of a bundle whose stage multiplies its last normalised rows by a large, finite factor."""
    shutil.copytree(bundle, folder)
    path = folder / f"{stage}.onnx"
    model = onnx.load(path)
    (weight,) = (w for w in model.graph.initializer if w.name == f"{stage}_decoder.norm.weight")
    values = numpy_helper.to_array(weight)
    weight.CopyFrom(numpy_helper.from_array((values * np.float64(factor)).astype(values.dtype), weight.name))
    onnx.save(model, path)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][path.name] = describe_file(path)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder
