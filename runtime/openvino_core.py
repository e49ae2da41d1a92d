"""OpenVINO, set up for one precision and so many threads: what the recogniser's backend and the detector share."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
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
    core, has_bfloat16 = _made_aside(openvino)
    core.set_property({"ENABLE_MMAP": False})  # else it reads weights after loading, too: SIGBUS once the file shrinks
    if dtype == "bfloat16" and not has_bfloat16:
        raise BackendError("this processor has no bfloat16: leave out dtype")
    return core, {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY",
                  "INFERENCE_PRECISION_HINT": PRECISIONS[dtype]}  # fmt: skip


def has_bfloat16() -> bool:
    """Has this processor instructions for it, as far as OpenVINO uses them?"""
    import openvino

    return _made_aside(openvino)[1]


def _made_aside(openvino: Any) -> tuple[Any, bool]:
    """A Core with its CPU plugin, and whether that computes in bfloat16. On a thread that ends at once: the plugin
    gives the thread that makes it a stack for signals, and frees the stack when it is dropped, on whatever thread that
    is. Where the maker still lived, the next Ctrl-C was a segmentation fault (OpenVINO 2026.4)."""

    def make() -> tuple[Any, bool]:
        core = openvino.Core()
        return core, "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")

    with ThreadPoolExecutor(1) as aside:
        return aside.submit(make).result()


def reason(error: Exception) -> str:
    """What an error of OpenVINO says: its first lines tell where in OpenVINO's own source it was raised."""
    lines = [line for line in str(error).splitlines() if line and not line.startswith(("Exception from", "Check '"))]
    return first_line(lines[0] if lines else error)
