"""Backends: what runs the four stages of a bundle. Each imports its library only when it is chosen."""

from __future__ import annotations

from collections.abc import Sequence

from ..bundle import Bundle
from ..driver import Stages
from ..errors import BackendError

BACKENDS = ("onnxruntime",)  # best first


def open_stages(
    bundle: Bundle, backend: str, threads: int | None, providers: Sequence[str] | None, visual_only: bool
) -> Stages:
    """The stages of a bundle on a backend ("auto": the best one there is).

    Raises BackendError if the backend is unknown, not installed, or cannot run the bundle.
    """
    name = BACKENDS[0] if backend == "auto" else backend
    if name == "onnxruntime":
        from .ort import OrtStages

        return OrtStages(bundle, threads, providers, visual_only)
    raise BackendError(f"unknown backend {backend!r}; choose one of: auto, {', '.join(BACKENDS)}")
