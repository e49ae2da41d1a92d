"""All that a recogniser holds on a GPU, and in which order it is let go of.

Session    the context, the stream, the engines, the slots for captions: for as long as the recogniser lives
Pipeline   buffers, scratch memory, contexts and graphs: sized for the largest batch, made anew for a smaller one
"""

from __future__ import annotations

from contextlib import ExitStack, suppress
from typing import Any

import numpy as np

from clip4str.core.driver import PredictAndRefine
from clip4str.core.errors import BackendError, BundleError
from clip4str.kernels import options as switches

from ...bundle import STAGES, Bundle
from ...cuda import CudaLayer, CudaOutOfMemory, open_cuda
from ...staging import Stager
from ..contract import Options
from ..memory_limits import ladder, padded, warn_of_fewer
from .crops import Opening
from .engines import EngineStage, Loaded, Tensor, load_engine
from .fused import Decoders, open_decoders
from .library import check_gpu, check_library, find_library, logger_of
from .memory import Buffer, Memory, Scratch, Stream
from .one_launch import OneLaunch, open_one_launch
from .program import Program
from .replay import Graphs
from .rows import Slots

_ON_HOST = {"pixels", "draft", "tokens", "attend", "bpe", "ids", "probs"}  # the rest never leaves the device


class Pipeline:
    """buffers: by "stage.tensor"; the decoders share theirs. stages: what runs over them."""

    def __init__(self, session: Session, largest: int) -> None:
        self.largest = largest
        self.buckets = ladder(largest, session.least)
        self._stream, self._memory = session.stream, Memory(session.stream)
        self._graphs = Graphs(session.stream, session.graphs)
        self.buffers: dict[str, Buffer] = {}
        self.stages: dict[str, EngineStage] = {}
        self.decoders: Decoders | None = None
        self.program: Program | None = None
        self._uploads: dict[str, int] = {}
        self._quads: Buffer | None = None
        try:
            self._build(session)
        except BaseException:
            self.close()
            raise

    def _build(self, session: Session) -> None:
        rows, scratch = self.buckets[-1], Scratch(self._memory)
        shared: dict[str, Buffer] = {}
        for stage, loaded in session.engines.items():
            mine: dict[str, Buffer] = {}
            for tensor in loaded.tensors.values():
                # The cross-modal decoder's text_kv is gathered from slots: not what the text stage writes.
                key = f"{stage}.text_kv" if tensor.name == "text_kv" else tensor.name
                if key not in shared:
                    shared[key] = self._buffer(tensor, rows)
                mine[tensor.name] = shared[key]
            self.buffers |= {f"{stage}.{name}": buffer for name, buffer in mine.items()}
            self.stages[stage] = EngineStage(loaded, self._stream, scratch, self._graphs, mine)
        if session.weights is not None:
            # The image stage's outputs are the decoders' memory.
            own = {f"{branch}.{branch}_kv": shared[f"{branch}_kv"] for branch in session.weights.decoders}
            self.decoders = Decoders(session.weights, self._stream, self._memory, self._graphs, own, rows)
            self.buffers |= {name: own[name] for name in session.weights.shapes}
        if session.one_launch is not None and self.decoders is not None:
            shown = session.one_launch, self._stream, self._memory, self._graphs
            self.program = Program(*shown, self.stages, self.decoders, self.buffers, self.buckets)
        for ready in self.stages.values():
            ready.prepare(rows)  # the largest first: its scratch memory serves all, and what does not fit shows now

    def _buffer(self, tensor: Tensor, rows: int) -> Buffer:
        return Buffer(self._stream, self._memory, tensor.shape, tensor.dtype, rows, tensor.name in _ON_HOST)

    @property
    def quads(self) -> Buffer:
        """Room for the corners of a batch's words."""
        if self._quads is None:
            rows = self.buckets[-1]
            self._quads = Buffer(self._stream, self._memory, (4, 2), np.dtype(np.float32), rows, True)
        return self._quads

    def bucket(self, n: int) -> int:
        """Rows that n images are padded to. Raises BackendError if they are too many."""
        if n <= self.buckets[-1]:
            return padded(n, self.buckets)
        raise BackendError(f"{n} images at once: these engines take up to {self.buckets[-1]}; call read, which splits")

    def upload_area(self, name: str) -> int:
        """Where keys and values from the host go: the engines' own would be overwritten by them."""
        if name not in self._uploads:
            buffer = self.buffers[name]
            self._uploads[name] = self._memory.on_device(buffer.rows * buffer.row_bytes)
        return self._uploads[name]

    def close(self) -> None:
        with suppress(BackendError):
            self._stream.synchronise()
        self._graphs.close()
        self.stages.clear()
        self.decoders = self.program = None
        self.buffers.clear()
        self._memory.close()


class Session:
    """Opened at once or not at all. All calls but close need `cuda.current()`.

    Raises BackendError, BundleError, UsageError for switches of the compiled kernels that there are not.
    """

    def __init__(self, bundle: Bundle, driver: PredictAndRefine, options: Options) -> None:
        switches.options()  # the library itself passes over names that it does not know
        engines = bundle.manifest.engines
        self.profile, self.graphs = engines["profile"], options.graphs
        self.least = self.profile["min"]
        self.pipeline: Pipeline | None = None
        self.engines: dict[str, Loaded] = {}
        self.slots: Slots | None = None
        self.weights: Any = None
        self.one_launch: OneLaunch | None = None
        self.cropping = Opening()
        self.pictures: Stager | None = None
        self.stack = ExitStack()
        self._library = find_library(engines["target"])
        check_library(bundle, str(self._library.__version__))
        self.cuda: CudaLayer = open_cuda(options.device)
        try:
            check_gpu(bundle, self.cuda.device)
            with self.cuda.current():
                self._open(bundle, driver, min(options.batch_size or self.profile["max"], self.profile["max"]))
        except BaseException:
            self.close()
            raise

    def _open(self, bundle: Bundle, driver: PredictAndRefine, largest: int) -> None:
        self.stream = Stream(self.cuda)
        self.stack.callback(self.stream.close)
        logger = logger_of(self._library)
        runtime = self._library.Runtime(logger)
        if bundle.manifest.engines.get("version_compatible"):
            runtime.engine_host_code_allowed = True  # such engines bring a part of TensorRT along
        self.stack.callback(self.engines.clear)
        visual_only = driver.decoding.branch == "visual"
        decoders = open_decoders(bundle, visual_only, self.stack, self.stream)
        for stage in ("image", "visual") if visual_only else STAGES:
            if decoders is None or stage not in ("visual", "cross"):
                self.engines[stage] = load_engine(self._library, runtime, logger, bundle, stage)
        self.weights = decoders
        self.one_launch = open_one_launch(bundle, driver, decoders, self.graphs, self.stack, self.stream)
        self._check_memory(bundle)
        self.stack.callback(self._close_pipeline)
        if not visual_only:
            memory, tensor = Memory(self.stream), self.engines["text"].tensors["text_kv"]
            self.stack.callback(memory.close)
            # Captions that the cache keeps, and those of a batch in all its rounds.
            count = max(1, driver.cache.size + (driver.decoding.refine + 1) * largest)
            self.slots = Slots(self.stream, memory, tensor.shape, tensor.dtype, count)
        self.build(largest)

    @property
    def kernels(self) -> Any:
        """The library that decodes, None where the engines do."""
        return None if self.weights is None else self.weights.library

    def _check_memory(self, bundle: Bundle) -> None:
        """Keys and values are handed on as they are: all stages must mean the same type."""
        found = {t.dtype.name: f"{s}.{t.name}" for s, e in self.engines.items() for t in e.tensors.values()
                 if t.name.endswith("_kv")}  # fmt: skip
        if len(found) > 1:
            kinds = " but ".join(f"{where} is {kind}" for kind, where in found.items())
            raise BundleError(f"{bundle.folder}: {kinds}; rebuild its engines")

    def stage(self, stager: Stager) -> None:
        """Where pictures are decoded to, from now on; its threads end before anything else is given back."""
        self.pictures = stager
        self.stack.callback(stager.close)

    def build(self, largest: int) -> Pipeline:
        """A pipeline for batches of up to `largest`, or with a warning for less where the memory does not suffice.

        Raises BackendError if it does not for one image.
        """
        sizes = [size for size in ladder(self.profile["max"], self.least) if size < largest]
        name = self.cuda.device.name
        self._close_pipeline()
        while True:
            try:
                self.pipeline = Pipeline(self, largest)
                return self.pipeline
            except CudaOutOfMemory as error:
                if not sizes:
                    raise BackendError(f"out of memory on {name} even for the smallest batch ({error})") from None
                smaller = sizes.pop()
            warn_of_fewer(name, largest, smaller, stacklevel=7)
            largest = smaller

    def _close_pipeline(self) -> None:
        pipeline, self.pipeline = self.pipeline, None
        if pipeline is not None:
            pipeline.close()

    def close(self) -> None:
        """Twice is allowed, from any thread that no other uses this session in."""
        with suppress(BackendError), self.cuda.current():
            self.stack.close()
        self.engines.clear()
        self.cuda.close()
