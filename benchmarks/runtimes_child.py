"""One single file on one runtime, in a process that sees no other version: runtimes.py starts it. numpy and the runtime
alone.

    python benchmarks/runtimes_child.py onnxruntime|openvino FILE CROPS.npz      # a line of JSON for each crop
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

Run = Callable[[np.ndarray], Any]  # pixels -> outputs by name


def onnxruntime_run(file: str) -> tuple[Run, str, str]:
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    charset = session.get_modelmeta().custom_metadata_map["charset"]
    return lambda pixels: dict(zip(names, session.run(names, {"pixels": pixels}))), charset, onnxruntime.__version__


def openvino_run(file: str) -> tuple[Run, str, str]:
    import openvino

    core = openvino.Core()
    model = core.read_model(file)
    charset = model.get_rt_info(["framework", "charset"]).astype(str)
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return compiled, charset, openvino.__version__.split("-")[0]


if __name__ == "__main__":
    run, charset, version = {"onnxruntime": onnxruntime_run, "openvino": openvino_run}[sys.argv[1]](sys.argv[2])
    with np.load(sys.argv[3]) as crops:
        for name in crops.files:
            found = run(crops[name][None])
            word = "".join(charset[i - 1] for i in found["ids"][0][: found["length"][0]])
            print(json.dumps({
                "word": word, "confidence": float(found["confidence"][0]), "settled": bool(found["settled"][0]),
                "version": version,
            }))  # fmt: skip
