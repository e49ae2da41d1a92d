#!/usr/bin/env python3
"""How large engines are, how long their builds take, what TensorRT makes of them: `python benchmarks/engine_sizes.py`.

TensorRT-RTX builds them here, without a GPU, for one compute capability. Sizes and counts do not depend on what the
weights are: B/16 and larger have random ones, and 8-bit graphs quantise every block, with ranges that nobody measured.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from clip4str.benchmarks.figures import markdown
from clip4str.benchmarks.random_weights import random_network
from clip4str.core.console import Parser, run_script
from clip4str.core.machine_info import busy, describe, machine_info
from clip4str.core.output_files import check_output, write_json
from clip4str.export.bundles import BUNDLED
from clip4str.export.engines import EngineOptions, build_engines, find_library
from clip4str.export.quantization import Quantization
from clip4str.export.quantization.arithmetic import Range
from clip4str.export.quantization.plan import products_of, units_of
from clip4str.export.stage_files import write_stages
from clip4str.model import Clip4Str, load_checkpoint
from clip4str.model.sizes import SIZES, size_name
from clip4str.runtime.bundle import (
    EIGHT_BITS,
    PRECISIONS,
    STAGES,
    Bundle,
    Manifest,
    describe_file,
    why_too_old,
    write_manifest,
)

PROGRAM = "engine_sizes.py"
TARGET = "tensorrt-rtx"


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=PROGRAM,
        description="Sizes, build times and fused layers of engines in every precision, built by TensorRT-RTX.",
    )
    add = parser.add_argument
    add("--networks", nargs="+", default=["small", "base16"], metavar="NAME", type=size_name, choices=list(SIZES),
        help=f"of {', '.join(SIZES)}; all but small have random weights (default: small base16)")  # fmt: skip
    add("--precisions", nargs="+", metavar="NAME", choices=PRECISIONS,
        help=f"of {', '.join(PRECISIONS)} (default: all that the GPU has)")  # fmt: skip
    add("--compute-capability", default="8.6", metavar="CC", help="GPU to build for (default: 8.6)")
    add("--json", type=Path, metavar="FILE", help="write all figures as JSON")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    options = EngineOptions(TARGET, compute_capabilities=(args.compute_capability,))
    options.check()
    check_output(args.json)
    capability = [int(number) for number in args.compute_capability.split(".")]
    precisions = args.precisions or [name for name in PRECISIONS if not why_too_old(name, capability)]
    version = find_library(TARGET).__version__
    info = machine_info()
    print(f"TensorRT-RTX {version}, compute capability {args.compute_capability}, {describe(info)}")
    rows = []
    for name in args.networks:
        for precision in precisions:
            with tempfile.TemporaryDirectory() as folder:
                bundle = write_bundle(Path(folder), network(name), precision)
                engines = build_engines(bundle.folder, bundle.manifest, options)
                rows += [_row(name, bundle, stage, engines) for stage in STAGES]
        network.cache_clear()
    print(table(rows))
    if busy(info):
        print(f"taken while other work ran (load {info['load_before']}): build times are too long")
    if args.json:
        write_json(args.json, {"tensorrt_rtx": version, "compute_capability": args.compute_capability, "rows": rows,
                               "machine": info})  # fmt: skip
    return 0


@cache
def network(name: str) -> Clip4Str:
    """The bundled network, "small", or one of a size with random weights."""
    return load_checkpoint(BUNDLED) if name == "small" else random_network(SIZES[name]).requires_grad_(False)


def quantization(model: Clip4Str, precision: str = "int8", kept: frozenset[str] = frozenset()) -> Quantization:
    """A plan for GPUs with ranges that nobody measured: which kernels TensorRT takes does not depend on them."""
    products = [product for unit in units_of(model.config) for product in products_of(unit)]
    ranges = {product: Range(-4.0, 4.0) for product in products}
    return Quantization(target="gpu", weights="e4m3" if precision == "fp8" else "s8", ranges=ranges, kept=kept)


def write_bundle(folder: Path, model: Clip4Str, precision: str, kept: frozenset[str] = frozenset()) -> Bundle:
    """The stage files for GPUs, compared with nothing. kept: units of 8-bit bundles that stay in half precision."""
    folder.mkdir(parents=True, exist_ok=True)
    plan = quantization(model, precision, kept) if precision in EIGHT_BITS else None
    files = write_stages(model, folder, precision if plan is None else plan.precision, quantization=plan)
    manifest = Manifest(
        name=folder.name,
        config=model.config.to_dict(),
        charset=model.charset.characters,
        charset_test=model.charset.test,
        normalization="half",
        precision=precision,
        max_batch=32,
        files={path.name: describe_file(path) for path in files},
        stages={stage: f"{stage}.onnx" for stage in STAGES},
    )
    write_manifest(folder, manifest)
    return Bundle.open(folder, verify=False)


def _row(name: str, bundle: Bundle, stage: str, engines: dict[str, Any]) -> dict[str, Any]:
    onnx = [bundle.path(stage), bundle.folder / f"{bundle.path(stage).name}.data"]
    return {
        "network": name,
        "precision": bundle.manifest.precision,
        "stage": stage,
        "onnx_bytes": sum(path.stat().st_size for path in onnx if path.is_file()),
        "engine_bytes": (bundle.folder / engines["files"][stage]).stat().st_size,
        "seconds": engines["build_seconds"][stage],
        **engines["layers"].get(stage, {}),
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    lines = []
    for row in rows:
        products = ", ".join(f"{count} {kind.lower()}" for kind, count in row.get("products", {}).items())
        megabytes = (f"{row[name] / 1e6:.1f}" for name in ("onnx_bytes", "engine_bytes"))
        names, counts = (row[key] for key in ("network", "precision", "stage")), ("launches", "attentions")
        lines.append([*names, *megabytes, row["seconds"], *(row.get(key, "?") for key in counts), products])
    heads = ("network", "precision", "stage", "ONNX, MB", "engine, MB", "build, s", "launches", "fused attentions",
             "products")  # fmt: skip
    return markdown(heads, lines, texts=3)


if __name__ == "__main__":
    sys.exit(run_script(PROGRAM, main))
