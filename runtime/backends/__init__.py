"""Backends: what runs the network of a bundle. Each imports its library only when it is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..bundle import WEIGHTS, Bundle
from ..driver import PredictAndRefine, Stages
from ..errors import BackendError, UsageError

BACKENDS = ("torch", "onnxruntime")  # best first


@dataclass(frozen=True)
class Options:
    """What Recognizer.load was asked for: threads and batch_size of any backend, providers of onnxruntime, the rest
    of torch."""

    threads: int | None = None
    batch_size: int | None = None
    providers: Sequence[str] | None = None
    device: Any = None
    dtype: Any = None
    graphs: bool = True
    passes: Sequence[int] | None = None

    @property
    def of_torch(self) -> bool:
        """Is anything asked for that only torch has?"""
        return (self.device, self.dtype, self.graphs, self.passes) != (None, None, True, None)


def open_checkpoint(path: Path, backend: str, options: Options, verify: bool) -> tuple[Bundle, Any]:
    """A checkpoint file in a bundle's place, and its weights for open_stages; torch alone can run one.

    Raises BackendError, CheckpointError, UsageError.
    """
    if backend == "onnxruntime":
        raise BackendError(f"{path}: onnxruntime runs bundles, not checkpoints; build one with: clip4str build {path}")
    return _pytorch(backend).open_checkpoint(path, options, verify)


def open_stages(bundle: Bundle, backend: str, driver: PredictAndRefine, options: Options, source: Any = None) -> Stages:
    """The stages of a bundle on a backend ("auto": the best one there is). source: a checkpoint's weights.

    Raises BackendError if the backend is unknown, not installed, or cannot run the bundle; UsageError for options of
    another backend.
    """
    name = _best(bundle, options, source) if backend == "auto" else backend
    if name == "torch":
        pytorch = _pytorch(name)
        if source is None and WEIGHTS not in bundle.manifest.stages:
            raise BackendError(
                f"{bundle.folder}: the bundle has no weights for torch; rebuild it with: clip4str build --torch, or "
                "load the checkpoint itself"
            )
        return pytorch.open_backend(bundle, driver, options, source)
    if name == "onnxruntime":
        if options.of_torch:
            raise UsageError("device, dtype, graphs and passes are the torch backend's; onnxruntime has providers")
        from .ort import OrtStages

        visual_only = driver.decoding.branch == "visual"
        return OrtStages(bundle, options.threads, options.providers, visual_only)
    raise BackendError(f"unknown backend {backend!r}; choose one of: auto, {', '.join(BACKENDS)}")


def _best(bundle: Bundle, options: Options, source: Any) -> str:
    """torch for a checkpoint, and where there are weights and a GPU; without weights it is not even imported."""
    if source is not None:
        return "torch"
    if WEIGHTS in bundle.manifest.stages and options.providers is None:
        if options.of_torch:
            return "torch"
        try:
            from .pytorch import gpu_is_usable
        except ImportError:
            return "onnxruntime"
        if gpu_is_usable():
            return "torch"
    return "onnxruntime"


def _pytorch(backend: str) -> Any:
    if backend not in ("auto", "torch"):
        raise BackendError(f"unknown backend {backend!r}; choose one of: auto, {', '.join(BACKENDS)}")
    try:
        from . import pytorch
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "clip4str":
            raise
        raise BackendError(f"the torch backend needs {error.name}; pip install 'clip4str[gpu]'") from None
    return pytorch
