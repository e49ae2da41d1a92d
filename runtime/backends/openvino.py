"""The towers by OpenVINO, which computes them in bfloat16 where the processor has instructions for it (AMX, AVX-512).

Decoders' passes are ONNX Runtime's: they are small, of changing lengths, and three times as fast there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from clip4str.core.errors import BackendError, BundleError, first_line

from ..bundle import Bundle, stage_shapes
from ..openvino_core import open_core
from .ort import OrtBackend


class OpenVinoBackend(OrtBackend):
    """threads, visual_only, batch_size: as OrtBackend takes them. dtype: what the towers compute in, "float32" (also
    for None) or "bfloat16". OpenVINO's own choice is bfloat16 wherever the processor has it; here it has to be asked
    for, since it moves words: `clip4str eval` tells how many.

    Raises BackendError (OpenVINO missing, a processor without bfloat16), BundleError (a graph it does not take),
    UsageError, and what OrtBackend does.
    """

    elsewhere = ("image", "text")

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
        tower = self._towers.get(stage)
        if tower is None:
            return super()._run(stage, outputs, feed)
        try:  # threads may read beside each other, each with a request of its own
            request = self._idle[stage].pop()
        except IndexError:
            request = tower.create_infer_request()
        try:
            found = request.infer(feed)
        except RuntimeError as error:
            raise BackendError(f"the {stage} stage failed in openvino ({first_line(error)})") from None
        answers = [found[name] for name in outputs]
        self._idle[stage].append(request)
        return answers

    def close(self) -> None:
        super().close()
        self._towers = {}
        self._idle = {}


def _compiled(core: Any, bundle: Bundle, stage: str, how: dict[str, Any]) -> Any:
    path = bundle.path(stage)
    with bundle.graph(stage) as (_, tensors):  # every file that it names is one of the bundle's
        for location in {tensor.location for tensor in tensors}:
            bundle.check(location)
    try:  # by its path: tensors in other files are found beside it
        compiled = core.compile_model(core.read_model(path), "CPU", how)
    except RuntimeError as error:
        raise BundleError(f"{path}: openvino cannot run it ({first_line(error)})") from None
    names = {name for value in (*compiled.inputs, *compiled.outputs) for name in value.get_names()}
    if missing := set(stage_shapes(bundle.manifest)[stage]) - names:
        raise BundleError(f"{path}: has no {', '.join(sorted(missing))}, which the manifest means")
    return compiled
