"""TensorRT or TensorRT-RTX, whichever a bundle's engines are for, and whether they can run here at all.

Engines bind to the library's exact version and to the GPU. TensorRT's own words on a mismatch are poor, and some
mismatches crash: so everything that the manifest tells is checked before the library sees a file.
"""

from __future__ import annotations

import importlib
import shlex
import threading
import warnings
from collections import deque
from collections.abc import Callable
from functools import cache
from typing import Any

from clip4str.core.errors import BackendError, first_line

from ...bundle import Bundle, why_too_old
from ...cuda import Device

MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
NAMES = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}
_INSTALL = {
    "tensorrt": "it comes with JetPack; on a server: pip install tensorrt",
    "tensorrt-rtx": "pip install tensorrt-rtx",
}
_MOST_LINES = 32


def find_library(target: str) -> Any:
    """The module that runs engines of this target. Raises BackendError."""
    if target not in MODULES:
        raise BackendError(f"engines for {target[:60]!r}: this clip4str knows {', '.join(MODULES)}; update it")
    try:
        return importlib.import_module(MODULES[target])
    except Exception as error:  # besides ImportError, OSError and RuntimeError of libraries that do not fit each other
        raise BackendError(f"{NAMES[target]} cannot be imported ({first_line(error)}); {_INSTALL[target]}") from None


def check_library(bundle: Bundle, version: str) -> None:
    """Can this version run the bundle's engines? Raises BackendError."""
    engines = bundle.manifest.engines
    built, here = _numbers(engines["version"]), _numbers(version)
    length = min(len(built), len(here))
    if built[:length] == here[:length] and length:
        return
    if engines.get("version_compatible") and built[:1] == here[:1] and built[:length] <= here[:length]:
        return
    name = NAMES[engines["target"]]
    raise BackendError(
        f"{bundle.folder}: its engines were built by {name} {first_line(engines['version'], 40)}, here is {version}; "
        f"rebuild them: {rebuild_command(bundle)}"
    )


def check_gpu(bundle: Bundle, device: Device) -> None:
    """Can this GPU run the bundle's engines? Raises BackendError; warns where they merely were not tuned for it."""
    engines = bundle.manifest.engines
    if why := why_too_old(bundle.manifest.precision, device.capability):
        raise BackendError(f"{bundle.folder}: {why}")
    built = [str(capability) for capability in engines.get("compute_capabilities", ())]
    if not built:
        return
    level, here = engines.get("hardware_compatibility", "none"), device.compute_capability
    fits = here in built or (level == "ampere_plus" and device.capability >= (8, 0))
    where = first_line(f"{engines['gpu'] or 'a GPU'} (compute capability {', '.join(built)})")
    if not fits:
        raise BackendError(
            f"{bundle.folder}: its engines were built for {where}, here is {device.name} ({here}); "
            f"rebuild them: {rebuild_command(bundle)}"
        )
    if level == "none" and engines["target"] == "tensorrt" and engines["gpu"] not in ("", device.name):
        warnings.warn(
            f"{bundle.folder}: its engines were tuned for {where}, here is {device.name}; they may be slow or fail: "
            f"rebuild them: {rebuild_command(bundle)}",
            RuntimeWarning,
            stacklevel=6,
        )


def rebuild_command(bundle: Bundle) -> str:
    """What makes these engines anew, of what was checked: a manifest's own words are not for a user's shell."""
    target, profile = bundle.manifest.engines["target"], bundle.manifest.engines["profile"]
    sizes = " ".join(f"--{name}-batch {profile[name]}" for name in ("min", "opt", "max"))
    known = target if target in MODULES else "tensorrt"
    return f"clip4str build {shlex.quote(str(bundle.folder))} --target {known} {sizes}"


@cache
def logger_of(library: Any) -> Any:
    """One for the whole process: TensorRT keeps a pointer to the first that it is given, for good."""
    return make_logger(library)


def make_logger(library: Any) -> Any:
    """Keeps what TensorRT complains of; `since(mark)` is the last complaint of this thread after mark()."""

    class Logger(library.ILogger):
        def __init__(self) -> None:
            library.ILogger.__init__(self)
            severity = library.ILogger.Severity
            self._kept = (severity.INTERNAL_ERROR, severity.ERROR, severity.WARNING)
            self._lines: deque[tuple[int, int, bool, str]] = deque(maxlen=_MOST_LINES)
            self._count = 0
            self.listener: Any = None  # of a build that goes on

        def log(self, severity: Any, msg: str) -> None:
            if (listener := self.listener) is not None:
                listener.hear(severity.name, msg)
            if severity in self._kept:
                self._count += 1
                self._lines.append((self._count, threading.get_ident(), severity is not self._kept[2], msg))

        def mark(self) -> int:
            return self._count

        def since(self, mark: int) -> str:
            """Errors before warnings, this thread's before another's; TensorRT has threads of its own."""
            lines = [line for line in list(self._lines) if line[0] > mark]
            lines.sort(key=lambda line: (line[1] == threading.get_ident(), line[2], line[0]))
            return first_line(lines[-1][3]) if lines else "it does not say why"

    return Logger()


class Complaints:
    """What TensorRT said since this was made."""

    def __init__(self, logger: Any) -> None:
        self._logger, self._mark = logger, logger.mark()

    def __str__(self) -> str:
        return self._logger.since(self._mark)

    @property
    def of_memory(self) -> bool:
        text = str(self).lower()
        return "out of memory" in text or "outofmemory" in text or "failed to allocate" in text


def refused(what: str, complaints: Complaints, kind: Callable[[str], Exception] = BackendError) -> Exception:
    return kind(f"{what} failed in TensorRT: {complaints}")


def _numbers(version: str) -> tuple[int, ...]:
    """(10, 3, 0, 26) of "10.3.0.26"; what follows a part that is no number is left out."""
    numbers = []
    for part in version.split(".")[:6]:
        if not part.isdecimal():
            break
        numbers.append(int(part[:9]))
    return tuple(numbers)
