"""Which TensorRT and which GPU are here."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from clip4str.core.errors import BackendError
from clip4str.runtime import cuda
from clip4str.runtime.backends.trt.library import MODULES, NAMES, find_library
from clip4str.runtime.bundle import why_too_old
from clip4str.runtime.cuda import Device

from .options import EngineOptions

__all__ = ["Tools", "choose_target", "find_library", "tools_here"]

_OLDEST = {"tensorrt": (10, 3), "tensorrt-rtx": (1, 0)}  # JetPack 6 has 10.3


@dataclass(frozen=True)
class Tools:
    """What builds the engines, as the manifest will say. gpu: "" where none has a part in it."""

    target: str
    version: str
    gpu: str = ""
    compute_capabilities: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{NAMES[self.target]} {self.version}"


def choose_target(target: str, precision: str | None, finishing: bool = False) -> str:
    """What `auto` stands for: the TensorRT that is here, where there is a GPU, for fp16, int8, fp8 and bundles that
    are there already (`finishing`); else "onnx". Other targets stand for themselves."""
    if target != "auto":
        return target
    if not finishing and precision in (None, "fp32"):
        return "onnx"
    here = [name for name, module in MODULES.items() if importlib.util.find_spec(module) is not None]
    return here[0] if here and cuda.why_unusable() is None else "onnx"


def why_no_engines() -> str:
    """What `auto` lacks here, in words."""
    if not any(importlib.util.find_spec(module) is not None for module in MODULES.values()):
        return "TensorRT is not installed (pip install tensorrt; a board has it from JetPack)"
    return cuda.why_unusable() or "TensorRT is there"


def tools_here(library: Any, options: EngineOptions) -> Tools:
    """Raises BackendError: this TensorRT is too old, there is no GPU where one is needed."""
    version = str(library.__version__)
    numbers = tuple(int(n) for n in re.findall(r"\d+", version)[:2])
    if numbers < _OLDEST[options.target]:
        oldest = ".".join(map(str, _OLDEST[options.target]))
        raise BackendError(f"{NAMES[options.target]} {version} is too old; {oldest} or newer is needed")
    if options.target == "tensorrt-rtx":  # builds on the CPU, and gives the same wherever it does
        return Tools(options.target, version, "", options.compute_capabilities)
    if (why := cuda.why_unusable()) is not None:
        raise BackendError(f"TensorRT builds engines on the GPU that will run them, and none can be used: {why}")
    device = _gpu_here()
    return Tools(options.target, version, device.name, (device.compute_capability,))


def _gpu_here() -> Device:
    layer = cuda.open_cuda()
    try:
        return layer.device
    finally:
        layer.close()


def check_precision(precision: str, options: EngineOptions, here: bool) -> None:
    """Raises BackendError, before anything is built: the GPUs that engines are for cannot run them. here: is this
    machine's the one, where it has one and the options name none?"""
    capabilities = options.compute_capabilities
    if here and options.target == "tensorrt" and cuda.why_unusable() is None:
        capabilities = (_gpu_here().compute_capability,)
    check_capabilities(precision, capabilities)


def check_capabilities(precision: str, capabilities: Iterable[str]) -> None:
    """Raises BackendError: GPUs of one of these, such as "8.7", cannot run engines of this precision."""
    for capability in capabilities:
        if why := why_too_old(precision, [int(number) for number in capability.split(".")]):
            raise BackendError(why)


def compute_capability(library: Any, capability: str) -> Any:
    """8.6 -> ComputeCapability.SM86. Raises BackendError, naming those that this library builds for."""
    known = library.ComputeCapability.__members__
    name = f"SM{capability.replace('.', '')}"
    if name not in known:
        others = ", ".join(f"{n[2:-1]}.{n[-1]}" for n in known if n.startswith("SM"))
        raise BackendError(
            f"TensorRT-RTX {library.__version__} does not build for {capability}; it knows {others}",
            "--compute-capability",
        )
    return known[name]


def hardware_level(library: Any, name: str) -> Any:
    """A member of HardwareCompatibilityLevel, by HARDWARE's name. Raises BackendError if this TensorRT lacks it."""
    level = getattr(library.HardwareCompatibilityLevel, name.upper(), None)
    if level is None:
        raise BackendError(f"TensorRT {library.__version__} has no --hardware-compatibility {name}; 10.13 has")
    return level
