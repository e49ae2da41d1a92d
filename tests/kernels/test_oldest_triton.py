"""Kernels under the oldest Triton that setup.py allows, which `make setup` installs aside.

As a script it compiles, in a process that imports that Triton.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "build" / "tests" / "oldest-triton"
NETWORK, CAPABILITIES = "base16", ((8, 7), (9, 0))


def one_of_each() -> list:
    """The first kernel of every launch, and all of crop_resize, whose registers are limited; of switches, those that
    load by descriptors, and attention over few tokens."""
    from clip4str.kernels import aot
    from clip4str.kernels.linear.aot import descriptor_variants
    from clip4str.kernels.short_attention.aot import variants as short_attention_variants

    found = {}
    described = aot.plan([NETWORK], ((9, 0), (10, 0)), descriptor_variants)
    for entry in (*aot.plan([NETWORK], CAPABILITIES), *described):
        launch = entry.variant.launch
        every = launch == "crop_resize.crop_resize" and entry.variant.where["normalization"] == 0
        found.setdefault((launch, entry.capability, entry.key if every else ""), entry)
    return [*found.values(), *aot.plan([NETWORK, "small"], CAPABILITIES, short_attention_variants)]


def main() -> None:
    import triton

    from clip4str.kernels.aot import compile_all

    entries = one_of_each()
    cubins = compile_all(entries, KEPT, os.cpu_count() or 1)
    rows = [{"launch": e.variant.launch, "matrix": e.variant.matrix, **asdict(cubins[e.key])} for e in entries]
    print(json.dumps({"triton": triton.__version__, "rows": rows}))


@pytest.fixture(scope="module")
def compiled(oldest_triton) -> dict:
    path = os.pathsep.join((str(oldest_triton), os.environ.get("PYTHONPATH", str(ROOT))))
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | {"PYTHONPATH": path}
    done = subprocess.run([sys.executable, __file__], env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_it_is_the_oldest_triton_that_compiled(compiled, oldest_triton):
    assert compiled["triton"] == oldest_triton.name


def test_every_kernel_compiles_without_spills_onto_tensor_cores(compiled):
    launches = {row["launch"] for row in compiled["rows"]}
    assert {"linear.linear", "cross_attention.attend", "decode_pass.head", "tokenize.tokenize"} <= launches
    spilling = {(row["launch"], *row["capability"]): row["spills"] for row in compiled["rows"] if row["spills"]}
    limited = ("crop_resize.crop_resize", 9, 0)  # see its config.py
    assert spilling.keys() <= {limited} and spilling.get(limited, 0) <= 12
    assert all(row["tensor"] for row in compiled["rows"] if row["matrix"])
    described = [row for row in compiled["rows"] if row["launch"] == "linear.descriptors"]
    assert len(described) == 2 and all(row["described"].keys() == {"UTMALDG", "UTMASTG"} for row in described)


if __name__ == "__main__":
    main()
