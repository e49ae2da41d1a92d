"""The towers by OpenVINO, which computes them in bfloat16 where the processor has instructions for it (AMX, AVX-512).

Decoders' passes are ONNX Runtime's: they are small, of changing lengths, and three times as fast there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clip4str.core.errors import BackendError, BundleError

from ..bundle import Bundle, stage_shapes
from ..openvino_core import open_core, reason
from .ort import OrtBackend, fits


class OpenVinoBackend(OrtBackend):
    """threads, visual_only, batch_size: as OrtBackend takes them. dtype: what the towers compute in, "float32" (also
    for None) or "bfloat16". OpenVINO's own choice is bfloat16 wherever the processor has it; here it has to be asked
    for, since it moves words: `clip4str eval` tells how many. Threads that read at the same time wait for one another
    in the towers: give one of them the cores.

    Raises BackendError (OpenVINO missing, a processor without bfloat16), BundleError (a graph it does not take),
    UsageError, and what OrtBackend does.
    """

    name = "openvino"
    elsewhere = ("image", "text")
    parallel = False

    def __init__(
        self,
        bundle: Bundle,
        threads: int | None = None,
        dtype: str | None = None,
        visual_only: bool = False,
        batch_size: int | None = None,
    ) -> None:
        super().__init__(bundle, threads, ["CPU"], visual_only, batch_size)
        core, how = open_core(dtype, self.threads or 0)
        self.survives_fork = False
        towers = self.elsewhere[:1] if visual_only else self.elsewhere
        self._towers = {stage: _compiled(core, bundle, stage, how) for stage in towers}
        self._idle: dict[str, list[Any]] = {stage: [] for stage in towers}

    def _run(self, stage: str, outputs: Sequence[str], feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        tower, idle = self._towers.get(stage), self._idle.get(stage)
        if tower is None or idle is None:
            return super()._run(stage, outputs, feed)
        try:  # each thread has a request of its own: setting its inputs and running it are two steps
            request = idle.pop()
        except IndexError:
            request = tower.create_infer_request()
        try:
            found = request.infer(feed)
        except RuntimeError as error:
            raise BackendError(f"the {stage} stage failed in openvino ({reason(error)})") from None
        answers = [found[name] for name in outputs]
        idle.append(request)
        return answers

    def close(self) -> None:
        super().close()
        self._towers = {}
        self._idle = {}


def _compiled(core: Any, bundle: Bundle, stage: str, how: dict[str, Any]) -> Any:
    path = bundle.path(stage)
    if path.suffix != ".onnx":  # OpenVINO goes by names: of image.pdmodel it would read image.pdiparams, too
        raise BundleError(f"{path}: openvino takes files called .onnx alone")
    with bundle.graph(stage) as (_, tensors):  # every file that it names is one of the bundle's
        names = [path.name, *{tensor.location for tensor in tensors}]
        before = [_state(bundle.folder / name) for name in names]
        for name in names:
            bundle.check(name, again=True)
    try:  # by its path: tensors in other files are found beside it
        compiled = core.compile_model(core.read_model(path), "CPU", how)
    except RuntimeError as error:
        raise BundleError(f"{path}: openvino cannot run it ({reason(error)})") from None
    if before != [_state(bundle.folder / name) for name in names]:
        raise BundleError(f"{bundle.folder}: it changed while it was read; try again")
    found = {
        name: [side.get_length() if side.is_static else "?" for side in value.partial_shape]
        for value in (*compiled.inputs, *compiled.outputs)
        for name in value.get_names()
    }
    for name, shape in stage_shapes(bundle.manifest)[stage].items():
        if not fits(found.get(name), shape):
            raise BundleError(f"{path}: {name} is {found.get(name)}, the manifest means {list(shape)}")
    if len(compiled.inputs) != 1:
        raise BundleError(f"{path}: has {len(compiled.inputs)} inputs, expected one")
    return compiled


def _state(path: Path) -> tuple[int, ...]:
    """Of a file that OpenVINO opens itself: another one under its name, or a change, is another state."""
    try:
        found = path.lstat()
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror})") from None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
