"""The four engines of a bundle, and what the manifest says of them."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clip4str.core.atomic_files import replaced
from clip4str.core.errors import BackendError, BundleError
from clip4str.core.progress import Progress
from clip4str.runtime.backends.trt.library import logger_of
from clip4str.runtime.bundle import STAGES, Manifest

from .build_log import Facts, facts_of
from .library import Tools, check_capabilities, compute_capability, find_library, hardware_level, tools_here
from .listening import Listener, interruptible, monitor_of, one_line
from .options import MIB, EngineOptions
from .shapes import input_shapes, output_shapes
from .timing_cache import TimingCache, default_cache

Say = Callable[[str], object]
_KEY_FORMAT = 1  # of what engine_key covers, and of the code here that decides an engine


def build_engines(
    folder: Path,
    manifest: Manifest,
    options: EngineOptions,
    *,
    say: Say = lambda _: None,
    detail: Say = lambda _: None,
) -> dict[str, Any]:
    """Build STAGE.plan of every stage's ONNX file in `folder`, into `folder`; returns the manifest's "engines".

    Each file is written whole or not at all. say gets a line a stage, detail more; all that TensorRT says if
    options.verbose. Raises UsageError, BackendError, BundleError; KeyboardInterrupt once TensorRT has stopped.
    """
    options.check()
    library = find_library(options.target)
    tools = tools_here(library, options)
    check_capabilities(manifest.precision, tools.compute_capabilities)
    cache = None
    if options.target == "tensorrt":
        cache = TimingCache(options.timing_cache or default_cache(tools), say)
    say(f"building {len(STAGES)} engines with {tools}{f' for {tools.gpu}' if tools.gpu else ''}; "
        "this takes seconds on a large machine, minutes on a board")  # fmt: skip
    files, seconds, layers = {}, {}, {}
    for stage in STAGES:
        start = time.perf_counter()
        name = f"{stage}.plan"
        size, facts = _build_stage(library, tools, folder, stage, name, manifest, options, cache, detail)
        files[stage], seconds[stage] = name, round(time.perf_counter() - start, 1)
        say(f"{stage:7} {size / 1e6:8.1f} MB  {seconds[stage]:5.1f} s")
        if facts is not None:
            layers[stage] = facts.to_dict()
            detail(f"        {facts}")
            for line in facts.doubts(stage, manifest):
                say(f"        {line}")
    return {
        "target": options.target,
        "version": tools.version,
        "gpu": tools.gpu,
        "compute_capabilities": list(tools.compute_capabilities),
        "hardware_compatibility": options.hardware_compatibility,
        "version_compatible": options.version_compatible,
        "profile": options.profile,
        "workspace": options.workspace,
        "precision": manifest.precision,
        "model": model_sha256(manifest),
        "key": _key(manifest, options, tools.version, tools.gpu),
        "files": files,
        "build_seconds": seconds,
        "layers": layers,
        "parity": {"checked": False, "why": "not compared yet"},
        "command": options.command(manifest.name),
    }


def engine_key(manifest: Manifest, options: EngineOptions) -> str:
    """sha256 of all that decides the engines which build_engines would build here. Raises as it does."""
    options.check()
    tools = tools_here(find_library(options.target), options)
    return _key(manifest, options, tools.version, tools.gpu)


def model_sha256(manifest: Manifest) -> str:
    """sha256 over the sha256s of the stage files, weights that lie beside them included."""
    names = [name for stage in STAGES for name in sorted(manifest.files) if _belongs(name, manifest.stages[stage])]
    return hashlib.sha256("\n".join(manifest.files[name]["sha256"] for name in names).encode()).hexdigest()


def _belongs(name: str, stage_file: str) -> bool:
    return name in (stage_file, f"{stage_file}.data")


def _key(manifest: Manifest, options: EngineOptions, version: str, gpu: str) -> str:
    decisive = {
        "format": _KEY_FORMAT,
        "model": model_sha256(manifest),
        "target": options.target,
        "version": version,
        "gpu": gpu,
        "profile": options.profile,
        "workspace": options.workspace,
        "compute_capabilities": sorted(options.compute_capabilities),
        "hardware_compatibility": options.hardware_compatibility,
        "version_compatible": options.version_compatible,
    }
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def _build_stage(
    library: Any,
    tools: Tools,
    folder: Path,
    stage: str,
    name: str,
    manifest: Manifest,
    options: EngineOptions,
    cache: TimingCache | None,
    detail: Say,
) -> tuple[int, Facts | None]:
    """Writes the engine; returns its size in bytes, and what TensorRT told of its layers."""
    listener = Listener(detail if options.verbose else None)
    logger = logger_of(library)
    logger.listener = listener
    try:
        with Progress(100, f"{stage} engine", "%") as bar:
            plan = _Stage(library, logger, listener, options).build(
                folder / manifest.stages[stage], stage, manifest, cache, lambda share: _move(bar, share)
            )
    except BackendError as error:
        hint = _hint(str(error), options)
        option = error.option or ("--workspace" if "--workspace" in hint else "")
        raise BackendError(f"{stage} stage: {tools} built no engine: {error}{hint}", option) from None
    finally:
        logger.listener = None
    with replaced(folder / name, durable=False) as partial, partial.open("wb") as file:
        file.write(plan)
    return (folder / name).stat().st_size, facts_of(listener.layers)


def _move(bar: Any, share: float) -> None:
    bar.update(int(100 * share) - bar.done)


def _hint(reason: str, options: EngineOptions) -> str:
    """What helps against too little memory; TensorRT says it in many ways."""
    words = ("memory", "workspace", "could not find any implementation", "outofmemory")
    if not any(word in reason.lower() for word in words):
        return ""
    if options.workspace is not None:
        return f"; it may use {options.workspace // MIB} MiB of scratch memory, raise --workspace"
    return "; free some memory, or lower --max-batch"


class _Stage:
    """One build: TensorRT's objects, made anew for it."""

    def __init__(self, library: Any, logger: Any, listener: Listener, options: EngineOptions) -> None:
        self.library, self.logger, self.listener, self.options = library, logger, listener, options

    def build(
        self, path: Path, stage: str, manifest: Manifest, cache: TimingCache | None, moved: Callable[[float], object]
    ) -> Any:
        """The serialized engine. Raises BackendError, BundleError, KeyboardInterrupt."""
        trt = self.library
        try:
            builder = trt.Builder(self.logger)
        except (TypeError, RuntimeError):  # a null pointer, as pybind says it
            raise BackendError(self.listener.reason) from None
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = self._parse(network, path)
        config = builder.create_builder_config()
        profile = builder.create_optimization_profile()
        self._pin(network, profile, path, stage, manifest)
        if config.add_optimization_profile(profile) < 0:
            raise BackendError(self.listener.reason)
        self._configure(config)
        monitor = monitor_of(trt, self.listener, moved)
        config.progress_monitor = monitor
        if cache is not None:
            cache.give(config, self.listener)

        def work() -> Any:
            _ = parser, monitor  # TensorRT reads the parser's weights and calls the monitor, and holds on to neither
            return builder.build_serialized_network(network, config)

        try:
            plan = interruptible(work, self.listener)
        finally:
            if cache is not None:
                cache.keep(config)
        if plan is None:
            raise BackendError(self.listener.reason)
        return plan

    def _parse(self, network: Any, path: Path) -> Any:
        """The parser, which has to live until the engine is built. Raises BundleError with its first complaint."""
        parser = self.library.OnnxParser(network, self.logger)
        if parser.parse_from_file(str(path)):
            return parser
        if not parser.num_errors:
            raise BundleError(f"{path}: TensorRT {self.library.__version__} cannot parse it: {self.listener.reason}")
        problem = parser.get_error(0)
        node = f" (node {problem.node_name()}, {problem.node_operator()})" if problem.node_name() else ""
        raise BundleError(
            f"{path}: TensorRT {self.library.__version__} cannot parse it: {one_line(problem.desc())}{node}"
        )

    def _pin(self, network: Any, profile: Any, path: Path, stage: str, manifest: Manifest) -> None:
        """Fix every size but the number of images. Raises BundleError: not the inputs and outputs of this stage."""
        expected = input_shapes(manifest, stage)
        tensors = {tensor.name: tensor for tensor in map(network.get_input, range(network.num_inputs))}
        outputs = {tensor.name for tensor in map(network.get_output, range(network.num_outputs))}
        if tensors.keys() != expected.keys() or outputs != output_shapes(manifest, stage).keys():
            found = f"inputs {', '.join(sorted(tensors))} and outputs {', '.join(sorted(outputs))}"
            raise BundleError(f"{path}: has {found}, not those of the {stage} stage; rebuild the bundle")
        for name, tensor in tensors.items():
            shape, wanted = tuple(tensor.shape), (-1, *expected[name])
            if len(shape) != len(wanted) or any(a not in (-1, b) for a, b in zip(shape, wanted)):
                raise BundleError(f"{path}: {name} has shape {shape}, expected {wanted}; rebuild the bundle")
            tensor.shape = wanted
            sizes = self.options.profile
            profile.set_shape(name, *((sizes[size], *expected[name]) for size in ("min", "opt", "max")))

    def _configure(self, config: Any) -> None:
        trt, options = self.library, self.options
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        if options.workspace is not None:
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace)
        for_graphs = getattr(trt.BuilderFlag, "REQUIRE_USER_ALLOCATION", None)
        if for_graphs is not None:  # TensorRT-RTX: else its engines may allocate in the middle of a capture
            config.set_flag(for_graphs)
        if options.version_compatible:
            config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
        if options.hardware_compatibility != "none":
            config.hardware_compatibility_level = hardware_level(trt, options.hardware_compatibility)
        if options.compute_capabilities:
            config.num_compute_capabilities = len(options.compute_capabilities)
            for index, capability in enumerate(options.compute_capabilities):
                config.set_compute_capability(compute_capability(trt, capability), index)
