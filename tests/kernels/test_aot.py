"""Ahead of time: what is listed covers what is launched, and compiles without spills onto tensor cores."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from dataclasses import replace

import pytest
from golden_weights import GOLDEN

from clip4str.core.errors import BackendError
from clip4str.kernels import lz4
from clip4str.kernels.shared.variants import (
    CAPABILITIES,
    MOST,
    NETWORKS,
    Variant,
    grid_factors,
    grid_size,
    holds,
    ranges,
)
from clip4str.model.checkpoint import BUNDLED
from clip4str.model.config import Config, config_from_shapes

pytest.importorskip("triton")
from compiled_kernels import NETWORK, ROOT, figures, split_figures

from clip4str.kernels import aot
from clip4str.kernels.embed import NAMES, read_names

AOT = ROOT / "kernels" / "aot.py"
PUBLISHED = {"base16": "base16", "base32": "base32", "large": "large", "huge": "huge"}


def config_of(network: str) -> Config:
    if network == "small":
        from safetensors import safe_open

        with safe_open(BUNDLED, "np") as file:
            shapes = {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118
            return config_from_shapes(shapes, json.loads(file.metadata().get("config", "{}")))
    return config_from_shapes(json.loads((GOLDEN / f"keys-{PUBLISHED[network]}.json").read_text()))


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_are_the_bundled_and_the_published_ones(name):
    network, config = NETWORKS[name], config_of(name)
    for field in ("d", "memory_tokens", "image_width", "text_width", "image_size", "decoder_heads", "context", "steps"):
        mine = {"memory_tokens": "memory", "decoder_heads": "heads", "context": "text"}.get(field, field)
        assert getattr(network, mine) == getattr(config, field), field
    assert network.mlp == config.decoder_mlp
    assert (network.classes, network.tokens) == (len(config.charset) + 1, len(config.charset) + 3)


def decode_launches(network, n: int) -> list[tuple[str, dict[str, int]]]:
    """What kernels/library asks for in a pass over n words; the value sets of attention.c and decode.c."""
    d, rows = network.d, n * network.steps
    sizes = {"n": n, "d": d, "heads": network.heads, "classes": network.classes, "tokens": network.tokens}
    sizes |= {"steps": network.steps, "T": network.steps, "M": network.memory}
    linear = {"rows": rows, "normalize": 0, "activation": 0, "has_bias": 1, "has_residual": 1, "K": d, "F": d}
    launches = [("decode_pass.self_attention", {**sizes, "mode": mode}) for mode in range(3)]
    launches += [("linear.linear", linear), ("linear.linear", {**linear, "K": network.mlp})]
    up = {"normalize": 1, "activation": 1, "has_residual": 0, "F": network.mlp}
    launches += [("linear.linear", {**linear, **up})]
    launches += [
        ("decode_pass.head", {**sizes, "has_before": before, "has_logits": logits})
        for before in (0, 1)
        for logits in (0, 1)
    ]
    return launches


@pytest.mark.parametrize("capability", CAPABILITIES, ids=str)
@pytest.mark.parametrize("name", ["small", "base16", "huge"])
def test_every_launch_of_a_pass_has_a_kernel(name, capability):
    network = NETWORKS[name]
    variants = aot.operator_variants(network, "fp16", capability)

    def count(launch, values):
        return sum(v.launch == launch and holds(v.where, values) for v in variants)

    for n in (1, 2, 8, 9, 64, 256, 5000):
        for launch, values in decode_launches(network, n):
            assert count(launch, values) == 1, (launch, values)
        for text in (0, network.text):
            attend = {
                "n": n,
                "d": network.d,
                "heads": network.heads,
                "T": network.steps,
                "M": network.memory,
                "X": text,
            }
            inside = count("cross_attention.attend", {**attend, "has_weight": 1, "has_text": int(text > 0)})
            before = count("cross_attention.attend", {**attend, "has_weight": 0, "has_text": int(text > 0)})
            query = {"rows": n * network.steps, "K": network.d, "F": network.d, "normalize": 1, "activation": 0}
            assert inside + before == 1
            assert inside or count("linear.linear", {**query, "has_bias": 1, "has_residual": 0}) == 1
        for last in (0, 1):
            assert count("tokenize.tokenize", {"n": n, "has_last": last}) == 1
    for frames in (1, 42, 64, 65, 1024):
        assert count("collapse.frames", {"n": 1, "frames": frames}) == 1
    crop = {"n": 1, "height": network.image_size[0], "width": network.image_size[1]}
    for options in range(8):
        bits = {"nv12": options & 1, "normalization": options >> 1 & 1, "out_float32": options >> 2}
        assert count("crop_resize.crop_resize", {**crop, **bits}) == 1
        assert count("resize.resize", {**crop, **bits}) == 1


@pytest.mark.parametrize("name", NETWORKS)
def test_variants_are_written_in_names_that_the_library_knows(name):
    known = read_names(NAMES)
    for v in aot.operator_variants(NETWORKS[name], "fp16", (9, 0)):
        factors = [value for axis in v.grid for value, _ in grid_factors(axis) if isinstance(value, str)]
        assert v.launch in known["LAUNCH"]
        assert {*v.where, *factors, *v.arguments} <= set(known["VALUE"]), v.launch
        assert set(v.arguments) == set(v.types)
        assert set(v.types) | set(v.constexprs) == set(v.kernel.arg_names)


def test_kernels_compile_onto_tensor_cores_without_spills():
    compiled = figures()
    assert {tuple(row["capability"]) for row in compiled} == {(8, 7), (9, 0)}
    assert {row["launch"] for row in compiled} == set(read_names(NAMES)["LAUNCH"])
    for row in compiled:
        what = (row["launch"], row["capability"], row["where"])
        assert row["spills"] == 0, what
        assert bool(row["tensor"]) == row["matrix"], what
        assert 0 < row["registers"] <= 255, what
        assert row["hidden"] == 2, what
    linear = [row for row in compiled if row["launch"] == "linear.linear" and row["capability"] == [9, 0]]
    assert any("HGMMA" in row["tensor"] for row in linear)  # Hopper's own matrix instructions, where rows are many


def test_kernels_that_may_start_early_wait_before_they_touch_memory():
    """Grid dependency control from 9.0 on and not below; few rows' weights are fetched before the wait."""
    as_ever = ("crop_resize.crop_resize", "thumbnail.thumbnail", "resize.resize", "collapse.frames")
    for row in figures():
        hopper = row["capability"] == [9, 0]
        assert row["dependent"] == (hopper and row["launch"] not in as_ever), row["launch"]
        weights = row["launch"] == "decode_pass.head" or row["where"].get("has_weight") == 1
        weights |= row["launch"] == "linear.linear" and row["where"]["rows"][1] <= 32
        assert bool(row["prefetches"]) == (hopper and weights), (row["launch"], row["where"])


def test_products_that_share_a_sum_compile_onto_tensor_cores_without_spills():
    rows = split_figures()
    assert {tuple(row["capability"]) for row in rows} == {(8, 7), (9, 0)}
    for row in rows:
        assert row["spills"] == 0 and row["tensor"]
        assert row["dependent"] == bool(row["prefetches"]) == (row["capability"] == [9, 0])


def test_a_kernel_that_reads_before_it_waits_is_not_shipped():
    from clip4str.kernels.cubin import _waits

    assert _waits(["S2R", "PREEXIT", "CCTL", "ACQBULK", "LDG", "STG"], True, "linear")
    assert not _waits(["S2R", "LDG", "STG"], False, "linear")
    for instructions, wanted, words in (
        (["PREEXIT", "LDGSTS", "ACQBULK"], True, "linear touches memory before it waits for the kernel ahead: LDGSTS"),
        (["PREEXIT", "STG", "ACQBULK"], True, "touches memory"),
        (["PREEXIT", "LDG"], True, "expected grid dependency control"),
        (["LDG"], True, "expected grid dependency control"),
        (["ACQBULK", "LDG", "PREEXIT"], False, "expected no grid dependency control"),
    ):
        with pytest.raises(BackendError, match=words):
            _waits(instructions, wanted, "linear")


@pytest.mark.slow
def test_every_architecture_compiles_without_spills(tmp_path):
    """Ten minutes: all kernels of two networks for all architectures."""
    done = run_aot("--networks", "small,base16", "--output", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "spills:" not in done.stdout
    assert "no tensor cores:" not in done.stdout
    for major, minor in CAPABILITIES:
        assert any(line.startswith(f"{major}{minor}") for line in done.stdout.splitlines())


def run_aot(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, str(AOT), *options]
    return subprocess.run(command, env={**inherited, **environment}, capture_output=True, text=True)


def test_bad_options_are_one_line(tmp_path):
    for options, environment, words in (
        (["--architectures", "75"], {}, "--architectures: '75'"),
        (["--architectures", "orin"], {}, "'orin'"),
        (["--architectures", "87,99"], {}, "--architectures: 99 unknown; there are 80,86,87,89,90,"),
        (["--networks", "small,giant"], {}, "giant unknown"),
        (["--jobs", "0"], {}, "--jobs"),
        (["--network", "small"], {}, "--help"),
        ([], {"TRITON_INTERPRET": "1"}, "TRITON_INTERPRET=1 is set"),
    ):
        done = run_aot(*options, "--output", str(tmp_path), **environment)
        assert done.returncode == 2 and words in done.stderr, (options, done.stderr)
        assert done.stderr.count("\n") == 1 and not done.stdout
    assert not list(tmp_path.iterdir())
    assert "--architectures" in run_aot("--help").stdout


def test_unknown_names_are_refused(tmp_path):
    from clip4str.kernels.embed import _Arrays, _row

    known = read_names(NAMES)
    variant = aot.operator_variants(NETWORKS[NETWORK], "fp16", (9, 0))[0]
    figures = ("hidden", "specific", "dependent", "num_warps", "registers", "shared", "size")
    cubin = type("Cubin", (), dict.fromkeys(figures, 1))()
    cubin.capability, cubin.symbol = (9, 0), "kernel"
    entry = aot.Entry(variant, (9, 0), (NETWORK,), "key")
    assert "LAUNCH_linear" in _row(entry, cubin, (0, 1), [NETWORK], _Arrays(), known)
    for bad in (replace(variant, launch="linear.cubic"), replace(variant, where={"bananas": 3})):
        with pytest.raises(BackendError, match=r"not in kernels/library/names\.def"):
            _row(replace(entry, variant=bad), cubin, (0, 1), [NETWORK], _Arrays(), known)


def test_ranges_find_every_change():
    pairs = ranges(lambda n: "few" if n <= 8 else "some" if n < 300 else "many")
    assert pairs == [((1, 8), "few"), ((9, 299), "some"), ((300, MOST), "many")]
    assert ranges(lambda n: n > 256, 256) == [((1, MOST), False)]
    assert ranges(lambda n: min(n, 3)) == [((1, 1), 1), ((2, 2), 2), ((3, MOST), 3)]


def test_grids():
    assert grid_factors("ceil(rows / 16) * n") == [("rows", 16), ("n", 1)]
    assert grid_size(("ceil(rows / 16) * ceil(F/64)", "3"), {"rows": 33, "F": 64}) == (3, 3, 1)
    assert grid_size(("n * heads",), {"n": 5, "heads": 8}) == (40, 1, 1)
    for bad in ("rows + 1", "ceil(rows / x)", "f(n)", ""):
        with pytest.raises(ValueError, match="is not NAME"):
            grid_factors(bad)


def test_hints_are_about_arguments():
    variant = Variant("linear.linear", type("K", (), {"arg_names": ["x", "rows", "B"]}), {"x": "*fp16", "rows": "i32"},
                      {"B": 16}, {}, ("rows",))  # fmt: skip
    assert variant.arguments == ["x", "rows"]
    assert variant.multiples_of_16 == ["x"]
    assert replace(variant, aligned=("rows",)).multiples_of_16 == ["rows"]


def unpacked(packed: bytes) -> bytes:
    """LZ4's block format, read as its description says."""
    out, at = bytearray(), 0
    while at < len(packed):
        token, at = packed[at], at + 1
        literals, length = token >> 4, token & 15
        if literals == 15:
            while True:
                literals, at = literals + packed[at], at + 1
                if packed[at - 1] != 255:
                    break
        out += packed[at : at + literals]
        at += literals
        if at == len(packed):
            break
        distance, at = int.from_bytes(packed[at : at + 2], "little"), at + 2
        if length == 15:
            while True:
                length, at = length + packed[at], at + 1
                if packed[at - 1] != 255:
                    break
        for _ in range(length + 4):
            out.append(out[-distance])
    return bytes(out)


def test_packing_loses_nothing():
    rng = random.Random(5)
    noise = rng.randbytes(3000)
    far = noise[:500] + bytes(70_000) + noise[:500]
    cases = [b"", b"a", b"abcd" * 3, bytes(12), bytes(13), bytes(100_000), noise, noise * 3, far]
    cases += [bytes(rng.choice(b"ab") for _ in range(rng.randrange(200))) for _ in range(50)]
    for data in cases:
        assert unpacked(lz4.pack(data)) == data
    assert len(lz4.pack(bytes(100_000))) < 500


def test_a_compiler_that_dies_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(aot, "_compile", _dies)
    with pytest.raises(BackendError, match="the compiler ended one of the processes"):
        list(aot._in_parallel([None, None], tmp_path, 2))  # type: ignore[list-item]


def _dies(folder: object, index: int) -> None:
    os._exit(1)
