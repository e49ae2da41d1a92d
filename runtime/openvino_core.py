"""OpenVINO, set up for one precision and so many threads: what the recogniser's backend and the detector share."""

from __future__ import annotations

from typing import Any

from clip4str.core.errors import BackendError, UsageError

PRECISIONS = {None: "f32", "float32": "f32", "bfloat16": "bf16"}


def open_core(dtype: str | None, threads: int) -> tuple[Any, dict[str, Any]]:
    """An openvino.Core, and the options to compile a model for the CPU with.

    dtype: "float32" (also for None) or "bfloat16", which is OpenVINO's own choice wherever the processor has it, and
    here has to be asked for. threads: 0 for all.

    Raises UsageError for another dtype, BackendError where OpenVINO is missing or the processor has no bfloat16.
    """
    if dtype not in PRECISIONS:
        raise UsageError(f"openvino computes in float32 or bfloat16, not {dtype!r}")
    try:
        import openvino
    except ImportError as error:
        raise BackendError(f"openvino cannot be imported ({error}); pip install 'clip4str[openvino]'") from None
    core = openvino.Core()
    if dtype == "bfloat16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise BackendError("this processor has no bfloat16: leave out dtype")
    return core, {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY",
                  "INFERENCE_PRECISION_HINT": PRECISIONS[dtype]}  # fmt: skip
