"""trtexec's lines, read back as trtexec reads them, against the ONNX files and the profile; and our own command."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from clip4str.core.errors import UsageError
from clip4str.export import build_engine
from clip4str.export.build_options import build_parser
from clip4str.export.engines import EngineOptions, trtexec_commands
from clip4str.runtime.bundle import STAGES, Bundle

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = EngineOptions("tensorrt", min_batch=2, opt_batch=8, max_batch=16)


def options_of(line: str) -> tuple[str, dict[str, str]]:
    """(program, {flag: value}); a flag without a value has ''."""
    program, *words = shlex.split(line)
    assert all(word.startswith("--") for word in words)
    pairs = [word[2:].partition("=")[::2] for word in words]
    assert len(dict(pairs)) == len(pairs)
    return program, dict(pairs)


def shapes(text: str) -> dict[str, tuple[int, ...]]:
    return {
        name: tuple(int(size) for size in sizes.split("x"))
        for name, _, sizes in (part.partition(":") for part in text.split(","))
    }


@pytest.mark.parametrize("target", ["tensorrt", "tensorrt-rtx"])
def test_shapes_are_those_of_the_files_and_the_profile(half_bundle, target):
    bundle = Bundle.open(half_bundle)
    lines = trtexec_commands(half_bundle, bundle.manifest, replace(OPTIONS, target=target))
    assert len(lines) == len(STAGES)
    for stage, line in zip(STAGES, lines):
        program, flags = options_of(line)
        assert program == {"tensorrt": "trtexec", "tensorrt-rtx": "tensorrt_rtx"}[target]
        assert ("stronglyTyped" in flags) == (target == "tensorrt")
        assert flags["onnx"] == str(bundle.path(stage)) and Path(flags["onnx"]).is_file()
        assert flags["saveEngine"] == str(half_bundle / f"{stage}.plan")
        assert flags["profilingVerbosity"] == "detailed" and flags["skipInference"] == ""
        for flag, images in (("minShapes", 2), ("optShapes", 8), ("maxShapes", 16)):
            found = shapes(flags[flag])
            symbols = {"N": images, "T": 26, "S": 26}
            inputs = onnx.load(bundle.path(stage)).graph.input
            assert found == {
                value.name: tuple(d.dim_value or symbols[d.dim_param] for d in value.type.tensor_type.shape.dim)
                for value in inputs
            }
        assert not flags.keys() & {"fp16", "int8", "best"}  # the file says it, and TensorRT 11 knows none of them


def test_every_option_has_its_flag(half_bundle, tmp_path):
    manifest = Bundle.open(half_bundle).manifest
    plain = options_of(trtexec_commands(half_bundle, manifest, OPTIONS)[0])[1]
    full = replace(OPTIONS, workspace=512 << 20, timing_cache=tmp_path / "a b.cache", version_compatible=True,
                   hardware_compatibility="ampere_plus")  # fmt: skip
    for line in trtexec_commands(half_bundle, manifest, full):
        flags = options_of(line)[1]
        assert {k: v for k, v in flags.items() if k not in plain} == {
            "memPoolSize": "workspace:512M", "timingCacheFile": str(tmp_path / "a b.cache"), "versionCompatible": "",
            "hardwareCompatibilityLevel": "ampere+",
        }  # fmt: skip
    same = replace(OPTIONS, hardware_compatibility="same_compute_capability")
    flags = options_of(trtexec_commands(half_bundle, manifest, same)[0])[1]
    assert flags["hardwareCompatibilityLevel"] == "sameComputeCapability"
    rtx = replace(OPTIONS, target="tensorrt-rtx", compute_capabilities=("8.6", "12.0"))
    assert options_of(trtexec_commands(half_bundle, manifest, rtx)[0])[1]["computeCapabilities"] == "86,120"
    with pytest.raises(UsageError):
        trtexec_commands(half_bundle, manifest, replace(OPTIONS, workspace=3))


def test_lines_survive_a_shell(half_bundle, tmp_path):
    folder = tmp_path / "it's a $HOME; folder"
    folder.symlink_to(half_bundle)
    line = trtexec_commands(folder, Bundle.open(half_bundle).manifest, OPTIONS)[0]
    shown = subprocess.run(["sh", "-c", line.replace("trtexec", "printf '%s\\n'", 1)], capture_output=True, text=True)
    assert f"--onnx={folder / 'image.onnx'}" in shown.stdout.splitlines()


def test_no_tensorrt_is_needed(half_bundle):
    script = (
        "import sys\n"
        "for name in ('torch', 'onnx', 'tensorrt', 'tensorrt_rtx', 'cuda', 'pycuda'): sys.modules[name] = None\n"
        "from clip4str.export.build_engine import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", script, str(half_bundle), "--target", "tensorrt", "--trtexec", "--max-batch", "4"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert run.returncode == 0, run.stderr
    lines = [line for line in run.stdout.splitlines() if line.startswith("trtexec ")]
    assert [options_of(line)[1]["maxShapes"].partition(":")[0] for line in lines] == [
        "pixels", "tokens", "bpe", "tokens"
    ]  # fmt: skip


@pytest.mark.parametrize(
    "options",
    [
        OPTIONS,
        EngineOptions("tensorrt", opt_batch=64, max_batch=4),
        replace(OPTIONS, workspace=100 << 20, hardware_compatibility="ampere_plus", version_compatible=True),
        EngineOptions("tensorrt-rtx", compute_capabilities=("8.6", "8.9")),
    ],
)
def test_the_command_that_rebuilds_asks_for_the_same(options):
    program, verb, *words = shlex.split(options.command("my bundle"))
    assert (program, verb) == ("clip4str", "build")
    parsed = build_parser().parse_args(words)
    assert parsed.checkpoint == "my bundle" and parsed.target == options.target
    again = build_engine._engine_options(parsed, parsed.target)
    assert replace(again, opt_batch=again.profile["opt"]) == replace(options, opt_batch=options.profile["opt"])
