"""What a build of engines may be asked for."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from clip4str.core.errors import UsageError

TARGETS = ("tensorrt", "tensorrt-rtx")
HARDWARE = ("none", "ampere_plus", "same_compute_capability")
MIB = 1 << 20
_MOST_IMAGES = 4096  # as many as a manifest may say


@dataclass(frozen=True)
class EngineOptions:
    """Of a build of engines.

    min_batch, opt_batch, max_batch: images a call, fewest, tuned for, most. workspace: bytes of scratch memory that
    TensorRT may use, None for all there is. timing_cache: file of what it measured, None for one in the user's cache
    folder. compute_capabilities: of TensorRT-RTX, the GPUs to build for, such as ("8.6", "8.9"); none for all it knows.
    hardware_compatibility, version_compatible: of TensorRT, which other GPUs and versions may load the engines.
    """

    target: str = "tensorrt"
    min_batch: int = 1
    opt_batch: int = 8
    max_batch: int = 32
    workspace: int | None = None
    timing_cache: Path | None = None
    compute_capabilities: tuple[str, ...] = ()
    hardware_compatibility: str = "none"
    version_compatible: bool = False
    verbose: bool = False

    @property
    def profile(self) -> dict[str, int]:
        """{"min", "opt", "max"}: opt is kept between the other two."""
        opt = max(self.min_batch, min(self.opt_batch, self.max_batch))
        return {"min": self.min_batch, "opt": opt, "max": self.max_batch}

    def check(self) -> None:
        """Raises UsageError for whatever cannot be, or cannot be together."""
        if self.target not in TARGETS:
            raise UsageError(f"unknown target {self.target!r}; engines are for {' or '.join(TARGETS)}")
        for flag, value in (("--min-batch", self.min_batch), ("--opt-batch", self.opt_batch)):
            if value < 1:
                raise UsageError(f"{flag} is {value}, expected at least 1")
        if not self.min_batch <= self.max_batch <= _MOST_IMAGES:
            raise UsageError(f"--max-batch is {self.max_batch}, expected {self.min_batch} to {_MOST_IMAGES}")
        if self.workspace is not None and self.workspace < MIB:
            raise UsageError(f"--workspace is {self.workspace} bytes, expected at least 1 MiB")
        if self.timing_cache is not None and self.timing_cache.is_dir():
            raise UsageError(f"--timing-cache {self.timing_cache}: is a folder; name a file")
        if self.hardware_compatibility not in HARDWARE:
            choice = ", ".join(HARDWARE)
            raise UsageError(f"--hardware-compatibility is {self.hardware_compatibility!r}, expected one of {choice}")
        self._check_rtx() if self.target == "tensorrt-rtx" else self._check_tensorrt()

    def _check_rtx(self) -> None:
        if self.hardware_compatibility != "none":
            raise UsageError("--hardware-compatibility is TensorRT's; tensorrt-rtx has --compute-capability")
        if self.version_compatible:
            raise UsageError("--version-compatible is TensorRT's; tensorrt-rtx engines need their own version")
        if self.timing_cache is not None:
            raise UsageError("--timing-cache is TensorRT's; tensorrt-rtx measures nothing while it builds")
        for capability in self.compute_capabilities:
            if not re.fullmatch(r"\d{1,2}\.\d", capability):
                raise UsageError(f"--compute-capability has {capability!r}, expected numbers such as 8.6,8.9")
        if len(set(self.compute_capabilities)) < len(self.compute_capabilities):
            raise UsageError(f"--compute-capability {','.join(self.compute_capabilities)}: one of them twice")

    def _check_tensorrt(self) -> None:
        if self.compute_capabilities:
            raise UsageError("--compute-capability is tensorrt-rtx's; TensorRT builds for the GPU that is here")

    def command(self, bundle: str) -> str:
        """The command that builds the engines of a bundle with these options."""
        words = ["clip4str", "build", bundle, "--target", self.target]
        for name, size in self.profile.items():
            words += [f"--{name}-batch", str(size)]
        if self.workspace is not None:
            words += ["--workspace", str(self.workspace // MIB)]
        if self.compute_capabilities:
            words += ["--compute-capability", ",".join(self.compute_capabilities)]
        if self.hardware_compatibility != "none":
            words += ["--hardware-compatibility", self.hardware_compatibility]
        if self.version_compatible:
            words.append("--version-compatible")
        return shlex.join(words)
