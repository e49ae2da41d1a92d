"""A few kernels compiled, and the C library built from them, once: kept in build/, where later runs find them.

As a script it compiles: kernels are interpreted in the tests' own process, so this must be another. One process of
tests at a time compiles; others wait, and find everything there.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from clip4str.kernels.aot import compile_all, plan
from clip4str.kernels.embed import write_sources
from clip4str.kernels.linear.aot import descriptor_variants, split_variants
from clip4str.kernels.loader import NAME, KernelLibrary
from clip4str.kernels.shared.variants import Network, Variant
from clip4str.kernels.short_attention.aot import variants as short_attention_variants

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "build" / "tests"
NETWORK = "small"
FEW, MANY = 2, 40  # words: queries projected inside and before
CAPABILITIES = ((8, 7), (9, 0))
BESIDE = COLLAPSE, SPLIT, DESCRIPTORS, SHORT = (
    "collapse.collapse", "linear.split", "linear.descriptors", "short_attention.short_attention",
)  # fmt: skip


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """No other process of tests is inside."""
    KEPT.mkdir(parents=True, exist_ok=True)
    with (KEPT / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@functools.cache
def compiled() -> list[dict[str, Any]]:
    """All that was compiled: launch, where, and the cubin's figures."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    with alone():
        done = subprocess.run([sys.executable, __file__], env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def figures() -> list[dict[str, Any]]:
    """Of the library's kernels."""
    return [row for row in compiled() if row["launch"] not in BESIDE]  # which are not in it


def collapse_figures() -> list[dict[str, Any]]:
    """Of the kernel that is not in the library."""
    return [row for row in compiled() if row["launch"] == COLLAPSE]


def split_figures() -> list[dict[str, Any]]:
    """Of the product whose K several programs share."""
    return [row for row in compiled() if row["launch"] == SPLIT]


def short_attention_figures() -> list[dict[str, Any]]:
    """Of towers' attention over few tokens, projected."""
    return [row for row in compiled() if row["launch"] == SHORT]


def descriptor_figures() -> list[dict[str, Any]]:
    """Of the product whose tiles the tensor memory accelerator loads."""
    return [row for row in compiled() if row["launch"] == DESCRIPTORS]


@functools.cache
def library() -> Path:
    """The folder with libclip4str_kernels.so, libfake_cuda.so and the C test, built."""
    if not (shutil.which("cmake") and shutil.which("gcc")):
        pytest.skip("building the C library needs cmake and gcc")
    figures()
    with alone():
        for command in (
            ["cmake", "-S", ROOT, "-B", KEPT / "library", f"-DCLIP4STR_CUBINS={KEPT / 'cubins'}"],
            ["cmake", "--build", KEPT / "library"],
        ):
            done = subprocess.run(command, capture_output=True, text=True, timeout=300)
            assert done.returncode == 0, done.stdout + done.stderr
    return KEPT / "library"


@contextlib.contextmanager
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[KernelLibrary]:
    """A handle on the stand-in for a 9.0."""
    monkeypatch.setenv("FAKE_CUDA_CAPABILITY", "90")
    folder = library()
    with KernelLibrary(folder / NAME, libcuda=folder / "libfake_cuda.so") as handle:
        yield handle


def serves(where: dict[str, Any], words: int, steps: int = 26) -> bool:
    ranges = {"n": words, "rows": words * steps}
    return all(where[name][0] <= n <= where[name][1] for name, n in ranges.items() if name in where)


def wanted(launch: str, where: dict[str, Any], capability: tuple[int, int]) -> bool:
    """Enough to launch every operator on a 9.0, and one of each matrix kernel for an 8.7."""
    hopper = capability == (9, 0)
    if launch in ("crop_resize.crop_resize", "resize.resize"):
        return hopper and where["out_float32"] == 1 and where["normalization"] == 0
    if launch in ("thumbnail.thumbnail", "collapse.frames"):
        return hopper
    if launch == "tokenize.tokenize":
        return hopper and where["has_last"] == 0 and serves(where, MANY)
    if launch == "decode_pass.head":
        return where["has_before"] + where["has_logits"] <= hopper
    if launch == "decode_pass.self_attention":
        return (where["mode"] == 2 and serves(where, MANY)) or (serves(where, FEW) and hopper)
    if hopper:
        return serves(where, FEW) or serves(where, MANY)
    return serves(where, FEW) and (
        where["has_residual"] and where["K"] > where["F"] if "K" in where else where["X"] > 0
    )


def collapse_variants(network: Network, dtype: str, capability: tuple[int, int]) -> list[Variant]:
    """For the published networks' frames, and the most there may be."""
    from clip4str.kernels.collapse import aot as collapse_aot

    return [
        variant
        for frames in ((42, 1024) if capability == (9, 0) else (42,))
        for variant in collapse_aot.logits_variants(network, dtype, capability, frames)
    ]


def main() -> None:
    entries = [
        entry
        for entry in plan([NETWORK], CAPABILITIES)
        if wanted(entry.variant.launch, dict(entry.variant.where), entry.capability)
    ]
    beside = plan([NETWORK], CAPABILITIES, collapse_variants) + plan(["large"], CAPABILITIES, split_variants)
    beside += plan([NETWORK, "base16"], CAPABILITIES, short_attention_variants)
    beside += plan(["base16"], ((9, 0), (10, 0), (12, 0)), descriptor_variants)
    cubins = compile_all([*entries, *beside], KEPT / "cubins" / "cache", os.cpu_count() or 1)
    write_sources(entries, cubins, [NETWORK], KEPT / "cubins")
    rows = [
        {
            "launch": entry.variant.launch,
            "where": dict(entry.variant.where),
            "matrix": entry.variant.matrix,
            **asdict(cubins[entry.key]),
        }
        for entry in (*entries, *beside)
    ]
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
