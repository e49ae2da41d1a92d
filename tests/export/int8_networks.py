"""What the tests of eight bits share: calibrated plans of small networks, and what ONNX Runtime makes of a file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from PIL import Image

from clip4str.core.cpu import cpu_flags, weight_type
from clip4str.export.quantization.build import Calibration, calibrate
from clip4str.export.quantization.plan import TOWERS, Quantization
from clip4str.export.quantization.samples import Sample
from clip4str.export.quantization.smoothing import with_ranges

HERE = weight_type(cpu_flags())  # weights that this machine multiplies exactly


def noise(count: int, seed: int = 0) -> list[Sample]:
    random = np.random.default_rng(seed)
    return [Sample(Image.fromarray(random.integers(0, 256, (32, 64, 3), dtype=np.uint8)), None) for _ in range(count)]


def plan_of(
    model, target: str = "cpu", smoothing: float | None = None, scheme: str = "qdq", precision: str = "int8"
) -> Quantization:
    weights = "e4m3" if precision == "fp8" else "s8" if target == "gpu" else HERE
    plan = Quantization(target=target, weights=weights)
    calibration = calibration_of(model)
    return replace(with_ranges(plan, model, calibration.watched, dict.fromkeys(TOWERS, smoothing)), scheme=scheme)


def calibration_of(model) -> Calibration:
    return calibrate(model, noise(8), "half")


def session(path: Path, folder: Path | None = None, e4m3: bool = False) -> onnxruntime.InferenceSession:
    """folder: where the optimised graph goes, as optimised.onnx. e4m3: is it of an fp8 bundle?"""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    if e4m3:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    if folder is not None:
        options.optimized_model_filepath = str(folder / "optimised.onnx")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def optimised_kinds(path: Path, folder: Path) -> list[str]:
    """The operators that ONNX Runtime really runs."""
    session(path, folder)
    return [node.op_type for node in onnx.load(folder / "optimised.onnx").graph.node]
