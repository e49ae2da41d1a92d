"""PP-OCRv6's text detector (Apache-2.0), read out of the installed rapidocr wheel: neither imported nor copied."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock

import numpy as np

from clip4str.core.errors import BackendError, BundleError, UsageError, first_line
from clip4str.runtime.onnx_files import external_tensors, without_denormals
from clip4str.runtime.openvino_core import open_core, reason

from ..frames import Frame, rgb
from .contract import Detections

MODEL = "models/PP-OCRv6_det_small.onnx"
MULTIPLE = 32
LONG_SIDE = 640
FOLDER = "session.model_external_initializers_file_folder_path"  # of files beside a model given as bytes
Run = Callable[[np.ndarray], np.ndarray]  # (1, 3, h, w) float32 -> (1, 1, h, w) float32


class TextDetector:
    """Words of a frame: PP-OCRv6 small's lines, cut into words.

    long_side: pixels that the longer side of a frame is shrunk to before it is searched, never enlarged; time grows
    with its square, and letters lower than some 8 pixels of it are not found. words=False: lines as they are found.
    model: an ONNX file of the kind, instead of rapidocr's. threads: of the CPU. engine: "onnxruntime", or "openvino",
    which computes in bfloat16 where dtype says so and the processor has it: half the time on a Xeon with AMX.

    Raises BackendError where something is not installed, UsageError for a size or an engine that cannot be.
    """

    def __init__(
        self,
        long_side: int = LONG_SIDE,
        words: bool = True,
        model: Path | None = None,
        threads: int = 1,
        engine: str = "onnxruntime",
        dtype: str | None = None,
    ) -> None:
        if not 64 <= long_side <= 4096:
            raise UsageError(f"long_side is 64 to 4096 pixels, not {long_side}")
        if engine not in ENGINES:
            raise UsageError(f"a detector's engine is {' or '.join(ENGINES)}, not {engine!r}")
        try:
            import cv2  # noqa: F401
        except ImportError as error:
            raise BackendError(f"searching words needs {error.name}: pip install 'clip4str[video]'") from None
        self._map = ENGINES[engine](model or installed_model(), threads, dtype)
        self.long_side, self.splitter = long_side, None
        if words:
            from .words import Splitter

            self.splitter = Splitter(threads=threads)

    def detect(self, frame: Frame) -> Detections:
        from .boxes import boxes

        pixels = rgb(frame)
        quads, scores = boxes(self.probabilities(pixels), frame.size)
        if self.splitter is not None and len(quads):
            quads, origin = self.splitter.split(pixels, quads)
            scores = scores[origin]
        return Detections(quads, scores)

    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        """(h, w) float32: of text, pixel by pixel of the shrunken frame. pixels: uint8 (H, W, 3) RGB.

        Raises BackendError."""
        import cv2

        height, width = pixels.shape[:2]
        scale = min(1.0, self.long_side / max(height, width))
        size = tuple(max(MULTIPLE, round(side * scale / MULTIPLE) * MULTIPLE) for side in (width, height))
        shrunk = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        blob = np.empty((1, 3, *size[::-1]), np.float32)  # the network takes BGR, -1 to 1
        for channel, plane in enumerate(reversed(cv2.split(shrunk))):
            np.divide(plane, np.float32(127.5), out=blob[0, channel])
        blob -= 1
        try:
            return self._map(blob)[0, 0]
        except Exception as error:  # onnxruntime has many kinds
            raise BackendError(f"searching words failed ({reason(error)})") from None


def _by_onnxruntime(path: Path, threads: int, dtype: str | None) -> Run:
    try:
        import onnxruntime
    except ImportError as error:
        raise BackendError(f"searching words needs {error.name}: pip install 'clip4str[video]'") from None
    if dtype not in (None, "float32"):
        raise UsageError(f"onnxruntime searches in float32, not {dtype!r}; openvino also in bfloat16")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    try:
        # Six of ten weights of PP-OCRv6's last layers are denormal: on a Xeon a search took 320 ms, without 90.
        content = without_denormals(path.read_bytes(), path)
        options.add_session_config_entry(FOLDER, str(path.parent))
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has many kinds
        raise BackendError(f"{path}: is no detector that ONNX Runtime loads ({first_line(error)})") from None
    taken, given = session.get_inputs(), session.get_outputs()
    _check_kind(path, [value.shape for value in taken], [value.shape for value in given])
    return lambda blob: session.run(None, {taken[0].name: blob})[0]


def _by_openvino(path: Path, threads: int, dtype: str | None) -> Run:
    core, how = open_core(dtype, threads)
    try:
        content = without_denormals(path.read_bytes(), path)
        if external_tensors(content, path):  # of bytes, OpenVINO would look for them where the process stands
            raise BackendError(f"{path}: its weights lie beside it, where engine onnxruntime finds them, not openvino")
        compiled = core.compile_model(core.read_model(content), "CPU", how)
    except (OSError, RuntimeError, BundleError) as error:
        raise BackendError(f"{path}: is no detector that OpenVINO loads ({reason(error)})") from None
    _check_kind(path, *(
        [[side.get_length() if side.is_static else None for side in value.partial_shape] for value in values]
        for values in (compiled.inputs, compiled.outputs)
    ))  # fmt: skip
    request, turn = compiled.create_infer_request(), Lock()

    def run(blob: np.ndarray) -> np.ndarray:
        with turn:  # setting a request's input and running it are two steps
            return request.infer({0: blob})[0]

    return run


def _check_kind(path: Path, inputs: Sequence[Sequence[object]], outputs: Sequence[Sequence[object]]) -> None:
    """Raises BackendError for what takes no picture of any size, or gives no map."""
    sides = inputs[0][2:] if len(inputs) == 1 and len(inputs[0]) == 4 else (0, 0)
    if any(isinstance(side, int) for side in sides) or not outputs or len(outputs[0]) not in (0, 4):  # 0: not told
        raise BackendError(f"{path}: is no detector of PP-OCR's kind: (1, 3, height, width) of any size to a map")


ENGINES: dict[str, Callable[[Path, int, str | None], Run]] = {
    "onnxruntime": _by_onnxruntime, "openvino": _by_openvino,
}  # fmt: skip


def installed_model() -> Path:
    """PP-OCRv6's file in the rapidocr wheel. Raises BackendError."""
    found = importlib.util.find_spec("rapidocr")
    if found is None or not found.submodule_search_locations:
        raise BackendError(
            "searching words needs the detector in the rapidocr wheel: pip install 'clip4str[video]', "
            "or bring a detector of your own"
        )
    path = Path(found.submodule_search_locations[0]) / MODEL
    if not path.is_file():
        raise BackendError(f"the installed rapidocr has no {MODEL}: pip install 'rapidocr>=3.10'")
    return path
