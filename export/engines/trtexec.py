"""The same engines by NVIDIA's own command: for a look at timings and layers, and for those who trust no wrapper."""

from __future__ import annotations

import shlex
from pathlib import Path

from clip4str.runtime.bundle import STAGES, Manifest

from .options import MIB, EngineOptions
from .shapes import input_shapes

_HARDWARE = {"ampere_plus": "ampere+", "same_compute_capability": "sameComputeCapability"}


def trtexec_commands(folder: Path, manifest: Manifest, options: EngineOptions) -> list[str]:
    """One line a stage. Needs no TensorRT. Raises UsageError for options that cannot be."""
    options.check()
    return [shlex.join(_command(folder, stage, manifest, options)) for stage in STAGES]


def _command(folder: Path, stage: str, manifest: Manifest, options: EngineOptions) -> list[str]:
    rtx = options.target == "tensorrt-rtx"
    words = [
        "tensorrt_rtx" if rtx else "trtexec",
        f"--onnx={folder / manifest.stages[stage]}",
        f"--saveEngine={folder / f'{stage}.plan'}",
    ]
    if not rtx:  # there is no other kind of network in TensorRT-RTX, nor in TensorRT 11
        words.append("--stronglyTyped")
    for size, images in options.profile.items():
        words.append(f"--{size}Shapes={_shapes(manifest, stage, images)}")
    words += ["--profilingVerbosity=detailed", "--skipInference"]
    if options.workspace is not None:
        words.append(f"--memPoolSize=workspace:{options.workspace // MIB}M")
    if options.timing_cache is not None:
        words.append(f"--timingCacheFile={options.timing_cache}")
    if options.hardware_compatibility != "none":
        words.append(f"--hardwareCompatibilityLevel={_HARDWARE[options.hardware_compatibility]}")
    if options.version_compatible:
        words.append("--versionCompatible")
    if options.compute_capabilities:
        words.append(f"--computeCapabilities={','.join(c.replace('.', '') for c in options.compute_capabilities)}")
    return words


def _shapes(manifest: Manifest, stage: str, images: int) -> str:
    """name:1x26,name:1x26x26,..."""
    shapes = input_shapes(manifest, stage)
    return ",".join(f"{name}:{'x'.join(map(str, (images, *shape)))}" for name, shape in shapes.items())
