"""A single file on ONNX Runtime, for checking and timing it; programs of other languages do the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from clip4str.core.errors import BackendError, first_line

from .pixels import INPUT


class SingleFile:
    """threads: of the CPU. Raises BackendError if onnxruntime is missing or cannot run the file."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise BackendError(f"onnxruntime cannot be imported ({error}); pip install onnxruntime") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 3
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exceptions share no base class
            raise BackendError(f"{path}: onnxruntime cannot run it ({first_line(error)})") from None
        self.metadata: dict[str, str] = self.session.get_modelmeta().custom_metadata_map
        self._outputs = [value.name for value in self.session.get_outputs()]

    def read(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        """The file's outputs by name."""
        try:
            return dict(zip(self._outputs, self.session.run(self._outputs, {INPUT: pixels})))
        except Exception as error:
            raise BackendError(f"a single file failed in onnxruntime ({first_line(error)})") from None

    def words(self, pixels: np.ndarray) -> list[str]:
        """Out of `ids` and `length`, by the charset in the file."""
        found, charset = self.read(pixels), self.metadata["charset"]
        return ["".join(charset[i - 1] for i in ids[:n]) for ids, n in zip(found["ids"], found["length"])]
