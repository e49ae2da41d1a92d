"""Engine files: read, checked against the manifest tensor by tensor, and put to work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from clip4str.core.errors import BackendError, BundleError

from ...bundle import OUTPUTS, Bundle, stage_shapes
from ...cuda import CudaOutOfMemory
from .library import Complaints, rebuild_command, refused
from .memory import Buffer, Scratch, Stream
from .replay import Graphs, Replay

_TYPES = {"pixels": "FLOAT", "draft": "INT32", "tokens": "INT32", "bpe": "INT32", "attend": "BOOL", "ids": "INT32",
          "probs": "FLOAT", "logits": "FLOAT"}  # fmt: skip
_NUMPY = {"FLOAT": np.float32, "HALF": np.float16, "INT32": np.int32, "BOOL": np.bool_}


@dataclass(frozen=True)
class Tensor:
    """One of an engine's: shape is that of a row, without the batch dimension."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    is_input: bool


@dataclass(frozen=True)
class Loaded:
    """A deserialised engine whose tensors are what the manifest means."""

    stage: str
    library: Any
    logger: Any
    engine: Any
    tensors: dict[str, Tensor]

    @property
    def on_rtx(self) -> bool:
        return hasattr(self.library, "DynamicShapesKernelSpecializationStrategy")

    def context(self, fixed: bool) -> Any:
        """An execution context that is given its scratch memory. fixed: for one shape only. Raises CudaOutOfMemory,
        BackendError."""
        complaints = Complaints(self.logger)
        strategy = self.library.ExecutionContextAllocationStrategy.USER_MANAGED
        if self.on_rtx:
            # Kernels for the shape are compiled at once: later, in the background, would be in the middle of a capture.
            # Where shapes change from call to call, the ones that fit any shape run instead.
            kinds = self.library.DynamicShapesKernelSpecializationStrategy
            config = self.engine.create_runtime_config()
            config.set_execution_context_allocation_strategy(strategy)
            config.dynamic_shapes_kernel_specialization_strategy = kinds.EAGER if fixed else kinds.NONE
            config.cuda_graph_strategy = self.library.CudaGraphStrategy.DISABLED  # we make our own, copies included
            context = self.engine.create_execution_context(config)
        else:
            context = self.engine.create_execution_context(strategy)
        if context is None:
            raise refused(f"making a context for the {self.stage} stage", complaints, _kind(complaints))
        return context


def load_engine(library: Any, runtime: Any, logger: Any, bundle: Bundle, stage: str) -> Loaded:
    """Raises BundleError (not the engine that the manifest means), BackendError (TensorRT refuses it)."""
    path = bundle.engine(stage)
    complaints = Complaints(logger)
    try:
        engine = runtime.deserialize_cuda_engine(bundle.content(path.name))
    except (RuntimeError, TypeError, ValueError) as error:
        raise refused(f"{path}: loading it ({str(error)[:200]})", complaints) from None
    if engine is None:
        if complaints.of_memory:
            raise BackendError(f"{path}: there is not enough GPU memory for the engine ({complaints})")
        raise BackendError(f"{path}: TensorRT cannot load it ({complaints}); rebuild it: {rebuild_command(bundle)}")
    return Loaded(stage, library, logger, engine, _checked(library, engine, bundle, stage))


def _checked(library: Any, engine: Any, bundle: Bundle, stage: str) -> dict[str, Tensor]:
    """The engine's tensors. Raises BundleError at the first that is not what the manifest means."""
    manifest, path = bundle.manifest, bundle.engine(stage)
    profile = manifest.engines["profile"]

    def check(what: str, found: Any, expected: Any) -> None:
        if found != expected:
            raise BundleError(f"{path}: {what} is {found}, the manifest means {expected}; rebuild it: "
                              f"{rebuild_command(bundle)}")  # fmt: skip

    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    shapes = stage_shapes(manifest)[stage]
    check("the set of its tensors", sorted(names), sorted(shapes))
    tensors = {}
    for name, shape in shapes.items():
        is_input = name not in OUTPUTS[stage]
        row = tuple(manifest.config["steps"] if size in ("T", "S") else int(size) for size in shape[1:])
        found = tuple(int(size) for size in engine.get_tensor_shape(name))
        check(f"{name}'s shape", found, (-1 if profile["min"] < profile["max"] else found[0], *row))
        mode = library.TensorIOMode.INPUT if is_input else library.TensorIOMode.OUTPUT
        check(f"{name}'s mode", engine.get_tensor_mode(name), mode)
        kind = engine.get_tensor_dtype(name)
        kinds = [_TYPES[name]] if name in _TYPES else kv_types(manifest)
        if kind not in [getattr(library.DataType, k) for k in kinds]:
            check(f"{name}'s type", getattr(kind, "name", kind), " or ".join(kinds))
        # In another order or place than this the answers would be nonsense, and nothing else would show it.
        check(f"{name}'s memory", engine.get_tensor_location(name), library.TensorLocation.DEVICE)
        check(f"{name}'s format", engine.get_tensor_format(name), library.TensorFormat.LINEAR)
        if is_input:
            sizes = [int(dims[0]) for dims in engine.get_tensor_profile_shape(name, 0)]
            check(f"{name}'s profile", sizes, [profile[k] for k in ("min", "opt", "max")])
        dtype = next(_NUMPY[k] for k in _NUMPY if getattr(library.DataType, k) == kind)
        tensors[name] = Tensor(name, row, np.dtype(dtype), is_input)
    return tensors


def kv_types(manifest: Any) -> list[str]:
    """What keys and values may be, by the manifest."""
    rest = {"fp16": "fp16", "fp32": "fp32"}.get(manifest.precision, manifest.quantization.get("rest"))
    return {"fp16": ["HALF"], "fp32": ["FLOAT"]}.get(str(rest), ["HALF", "FLOAT"])


def _kind(complaints: Complaints) -> type[BackendError]:
    return CudaOutOfMemory if complaints.of_memory else BackendError


class EngineStage:
    """An engine over buffers: one context and one graph for each number of rows that batches are padded to.

    buffers: by tensor name. They stay where they are; run_at() takes tensors from elsewhere, by a further context that
    is told all addresses anew and has no graph.
    """

    def __init__(
        self, loaded: Loaded, stream: Stream, scratch: Scratch, graphs: Graphs, buffers: dict[str, Buffer]
    ) -> None:
        self.loaded, self._stream, self._scratch, self._graphs, self.buffers = loaded, stream, scratch, graphs, buffers
        self._contexts: dict[int, Any] = {}
        self._runs: dict[tuple[int, bool], Replay] = {}
        self._loose: Any = None
        self._inputs = [buffers[t.name] for t in loaded.tensors.values() if t.is_input]
        self._inputs = [buffer for buffer in self._inputs if buffer.host is not None]
        outputs = (buffers[t.name] for t in loaded.tensors.values() if not t.is_input)
        self._outputs = [buffer for buffer in outputs if buffer.host is not None]

    def prepare(self, rows: int, filled: bool = False) -> Replay:
        """What runs that many rows. filled: all inputs are on the device already. Raises CudaOutOfMemory,
        BackendError."""
        if (rows, filled) not in self._runs:
            self._context(rows)
            self._runs[rows, filled] = Replay(
                self._stream, self._graphs, self.loaded.stage, lambda: self.send(rows, filled)
            )
        return self._runs[rows, filled]

    def send(self, rows: int, filled: bool, fetched: bool = True) -> None:
        """The work itself, without a graph: to be captured with what goes before and after it. used() is the caller's
        to call. fetched: are outputs wanted on the host? Raises as prepare."""
        context = self._context(rows)
        for buffer in () if filled else self._inputs:
            buffer.send(rows)
        self._enqueue(context)
        for buffer in self._outputs if fetched else ():
            buffer.fetch(rows)

    def run(self, rows: int, filled: bool = False) -> None:
        """Sends the stage's work over the first rows of its buffers."""
        self.prepare(rows, filled)()
        self.used()

    def run_at(self, rows: int, elsewhere: dict[str, int]) -> None:
        """The same, with some tensors at other addresses."""
        if self._loose is None:
            self._loose = self.loaded.context(fixed=False)
        addresses = {name: buffer.address for name, buffer in self.buffers.items()}
        self._bind(self._loose, rows, {**addresses, **elsewhere})
        for buffer in self._inputs:
            if not any(self.buffers[name] is buffer for name in elsewhere):
                buffer.send(rows)
        self._enqueue(self._loose)
        for buffer in self._outputs:
            buffer.fetch(rows)
        self.used()

    def used(self) -> None:
        """Host memory of its inputs and outputs is read or written by what was sent."""
        for buffer in (*self._inputs, *self._outputs):
            buffer.used()

    def _context(self, rows: int) -> Any:
        if rows not in self._contexts:
            context = self.loaded.context(fixed=True)
            self._bind(context, rows, {name: buffer.address for name, buffer in self.buffers.items()})
            self._contexts[rows] = context
        return self._contexts[rows]

    def _bind(self, context: Any, rows: int, addresses: dict[str, int]) -> None:
        complaints = Complaints(self.loaded.logger)
        tensors = self.loaded.tensors.values()
        told = all(context.set_input_shape(t.name, (rows, *t.shape)) for t in tensors if t.is_input)
        size = context.update_device_memory_size_for_shapes() if told else 0
        if size:
            context.set_device_memory(*self._scratch.at_least(size))
        if not (told and all(context.set_tensor_address(t.name, addresses[t.name]) for t in tensors)):
            raise refused(f"setting up the {self.loaded.stage} stage for {rows} images", complaints)

    def _enqueue(self, context: Any) -> None:
        complaints = Complaints(self.loaded.logger)
        if not context.execute_async_v3(self._stream.handle):
            raise refused(f"the {self.loaded.stage} stage", complaints, _kind(complaints))
