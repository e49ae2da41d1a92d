"""A TensorRT that builds nothing, for what no real one does without a GPU: too little workspace, a timing cache that
grows, a build that is stopped half way. Calls and settings are kept; the plan is a line of text.
"""

from __future__ import annotations

import enum
import weakref
from types import SimpleNamespace
from typing import Any

import onnx

_COMPLAINT = "UNSUPPORTED_STATE: Skipping tactic 0x1 due to insufficient memory on requested size of 73400320 detected"


class FakeTensorRT:
    """Stands for the module. needs: bytes of workspace without which no engine is built. fail_at: the build (from 0)
    that gives nothing, with `words` as the error. on_step: called at every step of every build."""

    __version__ = "10.3.0"
    NetworkDefinitionCreationFlag = enum.IntEnum("NetworkDefinitionCreationFlag", {"STRONGLY_TYPED": 1})
    ProfilingVerbosity = enum.Enum("ProfilingVerbosity", "LAYER_NAMES_ONLY NONE DETAILED")
    MemoryPoolType = enum.Enum("MemoryPoolType", "WORKSPACE TACTIC_DRAM")
    BuilderFlag = enum.Enum("BuilderFlag", "DEBUG VERSION_COMPATIBLE")
    HardwareCompatibilityLevel = enum.Enum("HardwareCompatibilityLevel", "NONE AMPERE_PLUS")
    Severity = enum.IntEnum("Severity", {"INTERNAL_ERROR": 0, "ERROR": 1, "WARNING": 2, "INFO": 3, "VERBOSE": 4})

    class ILogger:
        Severity = enum.Enum("Severity", "INTERNAL_ERROR ERROR WARNING INFO VERBOSE")

    class IProgressMonitor:
        pass

    def __init__(self, needs: int = 0, fail_at: int | None = None, words: str = "", on_step: Any = None) -> None:
        self.needs, self.fail_at, self.words, self.on_step = needs, fail_at, words, on_step
        self.builds: list[Config] = []
        self.builderless = False

    def Builder(self, logger: Any) -> Builder:
        if self.builderless:
            logger.log(self.Severity.ERROR, "CUDA initialization failure with error: 35\nmore")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        return Builder(self, logger)

    def OnnxParser(self, network: Network, logger: Any) -> Parser:
        parser = Parser(network)
        network.parser = weakref.ref(parser)
        return parser


class Builder:
    def __init__(self, library: FakeTensorRT, logger: Any) -> None:
        self.library, self.logger = library, logger

    def create_network(self, flags: int) -> Network:
        assert flags == 1 << int(self.library.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        return Network()

    def create_builder_config(self) -> Config:
        return Config()

    def create_optimization_profile(self) -> SimpleNamespace:
        shapes: dict[str, Any] = {}
        return SimpleNamespace(shapes=shapes, set_shape=lambda name, *sizes: shapes.update({name: sizes}))

    def build_serialized_network(self, network: Network, config: Config) -> bytes | None:
        assert network.parser() is not None, "the network's weights are the parser's, which is gone"
        library, number = self.library, len(self.library.builds)
        library.builds.append(config)
        monitor = config.progress_monitor
        monitor.phase_start("Building engine", None, 4)
        for step in range(4):
            if config.cache is not None:
                config.cache.entries += f"{number}.{step};"
            if library.on_step is not None:
                library.on_step(number, step)
            if not monitor.step_complete("Building engine", step):
                self.logger.log(library.Severity.ERROR, "Error Code 7: BuildCanceled")
                return None
        monitor.phase_finish("Building engine")
        if config.workspace is not None and config.workspace < library.needs:
            self.logger.log(library.Severity.WARNING, _COMPLAINT)
            self.logger.log(library.Severity.ERROR, "Error Code 10: Could not find any implementation for node {x}.")
            return None
        if library.fail_at == number:
            self.logger.log(library.Severity.ERROR, library.words)
            return None
        return f"plan {number} of {[t.name for t in network.inputs]}".encode()


class Network:
    def __init__(self) -> None:
        self.inputs: list[SimpleNamespace] = []
        self.outputs: list[SimpleNamespace] = []
        self.parser: Any = None

    num_inputs = property(lambda self: len(self.inputs))
    num_outputs = property(lambda self: len(self.outputs))

    def get_input(self, index: int) -> SimpleNamespace:
        return self.inputs[index]

    def get_output(self, index: int) -> SimpleNamespace:
        return self.outputs[index]


class Parser:
    num_errors = 0

    def __init__(self, network: Network) -> None:
        self.network = network

    def parse_from_file(self, model: str) -> bool:
        graph = onnx.load(model, load_external_data=False).graph
        for values, into in ((graph.input, self.network.inputs), (graph.output, self.network.outputs)):
            for value in values:
                shape = tuple(d.dim_value or -1 for d in value.type.tensor_type.shape.dim)
                into.append(SimpleNamespace(name=value.name, shape=shape))
        return True


class Cache:
    """entries: text. Whatever does not begin with its magic word is refused."""

    MAGIC = "timings:"

    def __init__(self, entries: str) -> None:
        self.entries = entries

    def serialize(self) -> bytes:
        return (self.MAGIC + self.entries).encode()


class Config:
    def __init__(self) -> None:
        self.cache: Cache | None = None
        self.given = ""
        self.workspace: int | None = None
        self.flags: list[Any] = []
        self.profile: Any = None
        self.progress_monitor: Any = None

    def create_timing_cache(self, data: bytes) -> Cache | None:
        if not data:
            return Cache("")
        text = data.decode(errors="replace")
        return Cache(text.removeprefix(Cache.MAGIC)) if text.startswith(Cache.MAGIC) else None

    def set_timing_cache(self, cache: Cache, ignore_mismatch: bool) -> bool:
        assert ignore_mismatch is False
        self.cache, self.given = cache, cache.entries
        return True

    def get_timing_cache(self) -> Cache | None:
        return self.cache

    def set_memory_pool_limit(self, pool: Any, size: int) -> None:
        assert pool is FakeTensorRT.MemoryPoolType.WORKSPACE
        self.workspace = size

    def set_flag(self, flag: Any) -> None:
        self.flags.append(flag)

    def add_optimization_profile(self, profile: Any) -> int:
        self.profile = profile
        return 0
