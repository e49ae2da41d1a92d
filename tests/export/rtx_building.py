"""TensorRT-RTX's compiler on one graph: it needs no GPU."""

from __future__ import annotations

from pathlib import Path


def rtx_build(trt, path: Path, capability: str) -> tuple[bytes, list[str]]:
    """The engine, and what the compiler says of its layers, a line each."""

    class Log(trt.ILogger):
        lines: list[str]

        def __init__(self):
            trt.ILogger.__init__(self)
            self.lines = []

        def log(self, severity, message):
            self.lines += message.splitlines()

    log = Log()
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    assert parser.parse_from_file(str(path)), [str(parser.get_error(i)) for i in range(parser.num_errors)]
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    shape = tuple(network.get_input(0).shape)[1:]
    profile.set_shape(network.get_input(0).name, (1, *shape), (4, *shape), (8, *shape))
    config.add_optimization_profile(profile)
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, capability), 0)
    plan = builder.build_serialized_network(network, config)
    assert plan is not None
    return bytes(plan), [line for line in log.lines if "LayerType" in line]
