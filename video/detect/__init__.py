"""Where words are in a frame.

`open_detector("auto")` is PP-OCRv6's network out of the rapidocr wheel, its lines cut into words. A detector of your
own is anything with `detect(frame) -> Detections`: plates, labels, boxes from elsewhere.
"""

from __future__ import annotations

from typing import Any

from clip4str.core.errors import UsageError

from .contract import NOTHING, Detections, Detector

__all__ = ["NOTHING", "Detections", "Detector", "engine_beside", "open_detector"]


def engine_beside(backend: str, dtype: str | None) -> dict[str, Any]:
    """TextDetector's engine and dtype beside a recogniser of this backend and dtype: OpenVINO where that reads."""
    return {"engine": "openvino", "dtype": dtype} if backend == "openvino" else {}


def open_detector(detector: str | Detector, **how: object) -> Detector:
    """ "auto" or "ppocr": TextDetector(**how). A Detector: itself. Raises UsageError for anything else, BackendError
    where its file or library is missing."""
    if isinstance(detector, str):
        if detector not in ("auto", "ppocr"):
            raise UsageError(f"detector is 'auto', 'ppocr' or an object with detect(frame), not {detector!r}")
        from .ppocr import TextDetector

        return TextDetector(**how)  # type: ignore[arg-type]
    if not isinstance(detector, Detector):
        raise UsageError(f"a detector has detect(frame) -> Detections; a {type(detector).__name__} has not")
    return detector
