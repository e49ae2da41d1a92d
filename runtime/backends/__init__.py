"""Backends: what runs the network of a bundle. Each imports its library only when it is chosen."""

from __future__ import annotations

import shlex
import warnings
from pathlib import Path
from typing import Any

from clip4str.core.driver import PredictAndRefine
from clip4str.core.errors import BackendError, UsageError

from ..bundle import WEIGHTS, Bundle
from ..cuda.presence import has_driver, has_gpu
from .contract import Backend, Options

BACKENDS = ("tensorrt", "torch", "onnxruntime", "openvino")  # "auto": the first three, best first


def open_checkpoint(
    path: Path,
    backend: str,
    options: Options,
    verify: bool,
    image_size: tuple[int, int] | None = None,
    charset: str | None = None,
) -> tuple[Bundle, Any]:
    """A checkpoint file in a bundle's place, and its weights for open_backend; torch alone can run one.

    Raises BackendError, CheckpointError, UsageError.
    """
    if backend in ("onnxruntime", "openvino", "tensorrt"):
        raise BackendError(f"{path}: {backend} runs bundles, not checkpoints; build one with: clip4str build {path}")
    return _pytorch(backend).open_checkpoint(path, options, verify, image_size, charset)


def open_backend(
    bundle: Bundle, backend: str, driver: PredictAndRefine, options: Options, source: Any = None
) -> Backend:
    """A bundle on a backend ("auto": the best one that works). source: a checkpoint's weights.

    Raises BackendError if the backend is unknown, not installed, or cannot run the bundle; UsageError for options of
    another backend.
    """
    if backend not in ("auto", *BACKENDS):
        raise _unknown(backend)
    *better, last = _candidates(bundle, options, source) if backend == "auto" else [backend]
    for name in better:
        try:
            return _OPEN[name](bundle, driver, options, source)
        except BackendError as error:
            warnings.warn(f"not using {name}: {error}", RuntimeWarning, stacklevel=3)
    opened = _OPEN[last](bundle, driver, options, source)
    found = backend == "auto" and options.providers is None  # nobody chose it
    if found and not opened.on_gpu and _for_no_gpu(bundle, source) and has_gpu():
        warnings.warn(
            f"{bundle.folder} has neither engines nor weights for torch: read on the CPU, although there is a GPU; "
            f"{_for_gpus(bundle)} (--backend onnxruntime: without this line)",
            RuntimeWarning,
            stacklevel=3,
        )
    return opened


def _for_no_gpu(bundle: Bundle, source: Any) -> bool:
    """Has it nothing that a GPU's backend could run?"""
    return source is None and not bundle.manifest.engines and WEIGHTS not in bundle.manifest.stages


def _for_gpus(bundle: Bundle) -> str:
    """What makes a bundle one for GPUs."""
    return f"clip4str build CHECKPOINT --torch, or clip4str build {shlex.quote(str(bundle.folder))} --target tensorrt"


def _candidates(bundle: Bundle, options: Options, source: Any) -> list[str]:
    """Backends that could run this, best first. Where neither engines nor weights are there, no library is imported.
    Raises UsageError for options that none of them has."""
    if source is not None:
        return ["torch"]
    if options.providers is not None:
        return ["onnxruntime"]
    names = ["tensorrt"] if bundle.manifest.engines and not options.of_torch else []
    if WEIGHTS in bundle.manifest.stages and (options.of_torch or (options.of_gpu and not names) or _torch_has_gpu()):
        names.append("torch")
    if options.of_gpu and not names:
        raise _of_no_backend(bundle, options)
    return names if names and options.of_gpu else [*names, "onnxruntime"]


def _torch_has_gpu() -> bool:
    """Importing torch to ask it takes seconds, so NVIDIA's driver is asked for first."""
    if not has_driver():
        return False
    try:
        from .pytorch import gpu_is_usable
    except ImportError:
        return False
    return gpu_is_usable()


def _open_tensorrt(bundle: Bundle, driver: PredictAndRefine, options: Options, source: Any) -> Backend:
    if options.of_torch or options.providers is not None:
        raise UsageError("dtype and passes are the torch backend's, providers ONNX Runtime's; tensorrt has device")
    if not bundle.manifest.engines:
        raise BackendError(
            f"{bundle.folder}: the bundle has no engines; build them with: clip4str build {bundle.folder} "
            "--target tensorrt"
        )
    from . import trt

    if bundle.manifest.engines.get("parity", {}).get("checked") is False:
        warnings.warn(
            f"the engines of {bundle.folder} were built without a GPU and never compared with the network: "
            f"clip4str build {bundle.folder} --target {bundle.manifest.engines['target']} does it here",
            RuntimeWarning,
            stacklevel=4,
        )
    opened = trt.open_backend(bundle, driver, options)
    if slow := trt.why_stage_by_stage(bundle):
        warnings.warn(slow, RuntimeWarning, stacklevel=4)
    return opened


def _open_torch(bundle: Bundle, driver: PredictAndRefine, options: Options, source: Any) -> Backend:
    pytorch = _pytorch("torch")
    if source is None and WEIGHTS not in bundle.manifest.stages:
        raise BackendError(
            f"{bundle.folder}: the bundle has no weights for torch; rebuild it with: clip4str build --torch, or "
            "load the checkpoint itself"
        )
    return pytorch.open_backend(bundle, driver, options, source)


def _open_onnxruntime(bundle: Bundle, driver: PredictAndRefine, options: Options, source: Any) -> Backend:
    if options.of_gpu:
        raise UsageError(
            "device, graphs, passes are the GPU backends', dtype theirs and openvino's; onnxruntime has providers"
        )
    from .ort import OrtBackend

    visual_only = driver.decoding.branch == "visual"
    return OrtBackend(bundle, options.threads, options.providers, visual_only, options.batch_size)


def _open_openvino(bundle: Bundle, driver: PredictAndRefine, options: Options, source: Any) -> Backend:
    others = (options.device, options.passes, options.providers)
    if not options.graphs or any(each is not None for each in others):
        raise UsageError("device, graphs, passes are the GPU backends', providers ONNX Runtime's; openvino has dtype")
    from .openvino import OpenVinoBackend

    visual_only = driver.decoding.branch == "visual"
    return OpenVinoBackend(bundle, options.threads, options.dtype, visual_only, options.batch_size)


_OPEN = {
    "tensorrt": _open_tensorrt, "torch": _open_torch, "onnxruntime": _open_onnxruntime, "openvino": _open_openvino,
}  # fmt: skip


def _of_no_backend(bundle: Bundle, options: Options) -> UsageError:
    """For options of a GPU's backends, where "auto" finds none of those for this bundle."""
    asked = {"device": options.device is not None, "dtype": options.dtype is not None, "graphs": not options.graphs,
             "passes": options.passes is not None}  # fmt: skip
    names = ", ".join(name for name, given in asked.items() if given)
    if bundle.manifest.engines:  # and dtype or passes are asked for
        lacks, way = (
            "engines, which are as they were built, and no weights for torch",
            "clip4str build CHECKPOINT --torch",
        )
    else:
        lacks, way = "neither engines nor weights for torch, so no GPU reads it", _for_gpus(bundle)
    others = "; openvino, too, has dtype" if asked["dtype"] else ""
    return UsageError(f"{names}: {bundle.folder} has {lacks}: {way}{others}; on ONNX Runtime: without {names}")


def _unknown(backend: object) -> BackendError:
    message = f"unknown backend {backend!r}; choose one of: auto, {', '.join(BACKENDS)}"
    if str(backend).lower().partition(":")[0] in ("cuda", "gpu"):
        message += '; a GPU is chosen by device="cuda", with auto, torch or tensorrt'
    elif str(backend).lower() == "cpu":
        message += '; a CPU is what onnxruntime and openvino use, and torch with device="cpu"'
    return BackendError(message)


def _pytorch(backend: str) -> Any:
    if backend not in ("auto", "torch"):
        raise _unknown(backend)
    try:
        from . import pytorch
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "clip4str":
            raise
        raise BackendError(f"the torch backend needs {error.name}; pip install 'clip4str[gpu]'") from None
    return pytorch
