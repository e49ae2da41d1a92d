"""What a real TensorRT compiler makes of the quantised stages. It needs no GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
from int8_networks import plan_of

from clip4str.export.stage_files import write_stages


@pytest.fixture(scope="module")
def network(random_model):
    return random_model(seed=3)


def test_tensorrt_makes_integer_products_of_them(network, tmp_path):
    """A real compiler, without a GPU: every product of the blocks, queries, keys and values joined to one."""
    trt = pytest.importorskip("tensorrt_rtx")
    plan = plan_of(network, "gpu", 0.5)
    write_stages(network, tmp_path, "fp16", quantization=plan)
    for stage, blocks in (("image", 2), ("text", 1)):
        layers = rtx_layers(trt, tmp_path / f"{stage}.onnx")
        products = [line for line in layers if "LayerType: gemm" in line]
        weights = [line.split("Constants:")[1] for line in products]
        assert sum("Datatype: Int8" in constants for constants in weights) == 4 * blocks, stage
        assert not any("runtime_fusion" in line and "in_proj" in line for line in layers)


def rtx_layers(trt, path: Path) -> list[str]:
    """What the compiler says of its layers, a line each."""
    return rtx_build(trt, path, "SM89")[1]


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
