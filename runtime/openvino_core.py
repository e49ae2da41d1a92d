"""OpenVINO, set up for one precision and so many threads: what the recogniser's backend and the detector share."""

from __future__ import annotations

from typing import Any

from clip4str.core.errors import BackendError, UsageError, first_line

PRECISIONS = {None: "f32", "float32": "f32", "bfloat16": "bf16"}


def open_core(dtype: str | None, threads: int) -> tuple[Any, dict[str, Any]]:
    """An openvino.Core, and the options to compile a model for the CPU with.

    dtype: "float32" (also for None) or "bfloat16", which is OpenVINO's own choice wherever the processor has it, and
    here has to be asked for. threads: 0 for all.

    Raises UsageError for another dtype, BackendError where OpenVINO is missing or the processor has no bfloat16.
    """
    if not isinstance(dtype, (str, type(None))) or dtype not in PRECISIONS:
        raise UsageError(f"openvino computes in float32 or bfloat16, not {dtype!r}")
    try:
        import openvino
    except ImportError as error:
        raise BackendError(f"openvino cannot be imported ({error}); pip install 'clip4str[openvino]'") from None
    core = openvino.Core()
    core.set_property({"ENABLE_MMAP": False})  # else it reads weights after loading, too: SIGBUS once the file shrinks
    if dtype == "bfloat16" and not has_bfloat16():
        raise BackendError("this processor has no bfloat16: leave out dtype")
    return core, {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY",
                  "INFERENCE_PRECISION_HINT": PRECISIONS[dtype]}  # fmt: skip


def has_bfloat16() -> bool:
    """Has this processor instructions for it, as far as OpenVINO uses them?"""
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def reason(error: Exception) -> str:
    """What an error of OpenVINO says: its first lines tell where in OpenVINO's own source it was raised."""
    lines = [line for line in str(error).splitlines() if line and not line.startswith(("Exception from", "Check '"))]
    return first_line(lines[0] if lines else error)
