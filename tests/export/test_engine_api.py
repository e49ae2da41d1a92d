"""Every name of TensorRT that our code touches, against TensorRT's own bindings from JetPack 6's to the newest.

The names are collected from the source, so that a new use is checked without a line here. The bindings are the real
ones; what they would load stands in as a C file that gives nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tensorrt_names import CALLBACKS, Use, problem, uses

from clip4str.export.engines.options import HARDWARE
from clip4str.runtime.backends.trt.library import MODULES

HERE, ROOT = Path(__file__).parent, Path(__file__).resolve().parents[2]
# `make` puts them there; they come without TensorRT itself
BINDINGS = Path(os.environ.get("CLIP4STR_TENSORRT_BINDINGS", ROOT / ".venv" / "tensorrt-bindings"))
VERSIONS = ("10.3.0", "10.13.3.9", "11.4.0.106")
RTX = "rtx"
OBJECTS = {
    "export/engines/build.py": {
        "builder": "Builder", "network": "INetworkDefinition", "config": "IBuilderConfig", "parser": "OnnxParser",
        "profile": "IOptimizationProfile", "tensor": "ITensor", "problem": "ParserError",
    },
    "export/engines/timing_cache.py": {"config": "IBuilderConfig", "cache": "ITimingCache"},
    "runtime/backends/trt/engines.py": {
        "engine": "ICudaEngine", "context": "IExecutionContext", "config": "IRuntimeConfig", "runtime": "Runtime",
        "kinds": "DynamicShapesKernelSpecializationStrategy",
    },
    "runtime/backends/trt/session.py": {"runtime": "Runtime"},
    "runtime/backends/trt/library.py": {"severity": "ILogger.Severity"},
}  # fmt: skip
# the kernels' library
NOT_TENSORRT = {f"runtime/backends/trt/{name}.py" for name in ("fused", "one_launch", "crops")}
BY_NAME = {  # reached by getattr
    *(Use("HardwareCompatibilityLevel", name.upper()) for name in HARDWARE),
    Use("BuilderFlag", "REQUIRE_USER_ALLOCATION"),
    *(Use("ComputeCapability", name) for name in ("SM86", "SM89", "SM120")),
}
ONLY_RTX = {
    Use("BuilderFlag", "REQUIRE_USER_ALLOCATION"),
    Use("", "ComputeCapability"), Use("ComputeCapability", "SM86"), Use("ComputeCapability", "SM89"),
    Use("ComputeCapability", "SM120"), Use("IBuilderConfig", "num_compute_capabilities"),
    Use("IBuilderConfig", "set_compute_capability", 2),
}  # fmt: skip
# TensorRT-RTX's own way to make a context, where the backend has seen that it is there
RTX_ENUMS = ("CudaGraphStrategy", "DynamicShapesKernelSpecializationStrategy")
RTX_CONTEXTS = {Use("", name) for name in RTX_ENUMS} | {Use("ICudaEngine", "create_runtime_config", 0)}
NEWER = {"10.3.0": {Use("HardwareCompatibilityLevel", "SAME_COMPUTE_CAPABILITY")}}


def our_uses() -> set[Use]:
    found = set(BY_NAME)
    for folder in ("export/engines", "runtime/backends/trt"):
        for path in sorted((ROOT / folder).glob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            if name not in NOT_TENSORRT:
                found |= uses(path.read_text(encoding="utf-8"), OBJECTS.get(name, {}))
    return found


def problems(version: str, asked: set[Use], stub: Path) -> dict[Use, str]:
    """{use: why it cannot be} of one library, looked at in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE)])}
    module = MODULES["tensorrt-rtx"]
    if version != RTX:
        module = "tensorrt_bindings"
        environment["PYTHONPATH"] += os.pathsep + str(BINDINGS / version)
        environment["LD_LIBRARY_PATH"] = str(stub)
    command = (
        "import importlib, json, sys; from tensorrt_names import Use, problem;"
        f"library = importlib.import_module({module!r});"
        "asked = [Use(*use) for use in json.load(sys.stdin)];"
        "print(json.dumps([library.__version__, [problem(library, use) for use in asked]]))"
    )
    ordered = sorted(asked, key=str)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", command], input=json.dumps(ordered), env=environment, text=True,
        capture_output=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found, answers = json.loads(done.stdout)
    assert version == RTX or found == version
    return {use: answer for use, answer in zip(ordered, answers) if answer is not None}


@pytest.fixture(scope="module")
def stub(tmp_path_factory) -> Path:
    """A folder with what the bindings load."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("stub")
    built = folder / "stub.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", built, HERE / "c" / "tensorrt_stub.c"], check=True)
    for major in {version.partition(".")[0] for version in VERSIONS}:
        for name in ("nvinfer", "nvinfer_plugin", "nvonnxparser"):
            shutil.copy(built, folder / f"lib{name}.so.{major}")
    return folder


@pytest.fixture(params=[*VERSIONS, RTX])
def version(request) -> str:
    if request.param == RTX:
        pytest.importorskip(MODULES["tensorrt-rtx"])
    elif not (BINDINGS / request.param).is_dir():
        missing = f"no bindings of TensorRT {request.param} in {BINDINGS}; make puts them there"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)
    return request.param


def test_every_name_exists(version, stub):
    asked = our_uses()
    found = problems(version, asked, stub)
    if version == RTX:
        assert found == {}
    else:
        contexts = {use for use in asked if use.owner in ("IRuntimeConfig", *RTX_ENUMS) or use in RTX_CONTEXTS}
        assert set(found) - contexts == (ONLY_RTX & asked) | NEWER.get(version, set()), found


def test_an_invented_name_is_found(version, stub):
    invented = {
        Use("", "Bilder"), Use("BuilderFlag", "FASTER"), Use("IBuilderConfig", "set_everything", 1),
        Use("IBuilderConfig", "set_flag", 3), Use("ILogger.Severity", "LOUD"), Use("Builder", "create_network", 2),
    }  # fmt: skip
    real = {
        Use("", "Builder"), Use("BuilderFlag", "VERSION_COMPATIBLE"), Use("IBuilderConfig", "set_flag", 1),
        Use("ILogger.Severity", "ERROR"), Use("Builder", "create_network", 1), Use("Builder", "create_network", 0),
    }  # fmt: skip
    assert set(problems(version, invented | real, stub)) == invented


def test_what_version_11_dropped_is_found(version, stub):
    dropped = {Use("BuilderFlag", "FP16"), Use("", "IInt8Calibrator"), Use("BuilderFlag", "INT8")}
    assert set(problems(version, dropped, stub)) == (set() if version.startswith("10") else dropped)


def test_uses_are_collected_from_source():
    source = """
def build(self, options):
    network = trt.Builder(logger).create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    config.set_flag(self.library.BuilderFlag.MADE_UP)
    self._config.progress_monitor = monitor
    profile.set_shape(name, *shapes)
    options.config.other()
class Logger(library.ILogger):
    def log(self, severity, msg):
        pass
    def since(self):
        pass
"""
    assert uses(source, {"config": "IBuilderConfig", "profile": "IOptimizationProfile"}) == {
        Use("", "Builder", 1), Use("Builder", "create_network", 1), Use("", "NetworkDefinitionCreationFlag"),
        Use("NetworkDefinitionCreationFlag", "STRONGLY_TYPED"), Use("IBuilderConfig", "set_flag", 1),
        Use("", "BuilderFlag"), Use("BuilderFlag", "MADE_UP"), Use("IBuilderConfig", "progress_monitor"),
        Use("IOptimizationProfile", "set_shape"), Use("", "ILogger"), Use("ILogger", "log", 2),
    }  # fmt: skip


def test_what_we_use_is_what_we_know_of():
    """The variables that the table names are still there, and the most important calls are found by it."""
    found = our_uses()
    for name, objects in OBJECTS.items():
        source = (ROOT / name).read_text(encoding="utf-8")
        for variable, owner in objects.items():
            assert any(use.owner == owner for use in uses(source, {variable: owner})), f"{name} has no {variable} now"
    assert {
        Use("Builder", "build_serialized_network", 2), Use("OnnxParser", "parse_from_file", 1),
        Use("IBuilderConfig", "set_timing_cache", 2), Use("BuilderFlag", "VERSION_COMPATIBLE"),
        Use("INetworkDefinition", "get_input"),
        Use("Runtime", "deserialize_cuda_engine", 1), Use("IExecutionContext", "execute_async_v3", 1),
    } <= found  # fmt: skip
    for owner, names in CALLBACKS.items():
        assert names <= {use.name for use in found if use.owner == owner}


def test_problem_looks_into_classes():
    class Box:
        def put(self, thing):
            """put(self: Box, thing: int, where: str = 'here') -> None"""

    class Library:
        Box = None

    Library.Box = Box
    assert problem(Library, Use("Box", "put", 1)) is None and problem(Library, Use("Box", "put", 2)) is None
    assert "takes [(1, 2)]" in problem(Library, Use("Box", "put", 3))
    assert "no take" in problem(Library, Use("Box", "take", 0))
