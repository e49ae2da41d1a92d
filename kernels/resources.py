"""Registers, spills, shared memory of kernels that only a switch asks for: `python kernels/resources.py`."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":  # a script's folder comes first: here `tokenize` would hide the standard library's
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from clip4str.core.console import Parser, run_script
from clip4str.kernels.cubin import compile_variant
from clip4str.kernels.linear.aot import descriptor_variants, many_rows_variant, split_variants
from clip4str.kernels.options import Options, using
from clip4str.kernels.shared.variants import NETWORKS, Variant
from clip4str.kernels.short_attention import aot as short_attention

CAPABILITIES = ((8, 0), (8, 7), (8, 9), (9, 0), (10, 0), (12, 0))
CASES = {
    "as it is": Options(),
    "three_stages": Options(three_stages=True),
    "wide_tiles": Options(wide_tiles=True),
    "descriptors": Options(descriptors=True),
    "split_k": Options(split_k=True),
    "short_attention": Options(short_attention=True),
}


def variants(options: Options, capability: tuple[int, int]) -> list[Variant]:
    with using(options):
        if options.split_k:
            return split_variants(NETWORKS["large"], "fp16", capability)
        if options.short_attention:
            found = [short_attention.variants(NETWORKS[name], "fp16", capability) for name in ("base16", "small")]
            return [variant for part in found for variant in part]
        if options.descriptors:
            return descriptor_variants(NETWORKS["base16"], "fp16", capability)
        return [many_rows_variant(NETWORKS["base16"], "fp16", capability)]


def main(argv: Sequence[str] | None = None) -> int:
    Parser(prog="kernels/resources.py", description=__doc__).parse_args(argv)
    print(f"{'':16}{'sm':>4}{'registers':>11}{'spills':>8}{'shared KB':>11}")
    with tempfile.TemporaryDirectory() as folder:
        for name, options in CASES.items():
            for capability in CAPABILITIES:
                for variant in variants(options, capability):
                    cubin = compile_variant(variant, capability, Path(folder))
                    figures = f"{cubin.registers:>11}{cubin.spills:>8}{cubin.shared // 1024:>11}"
                    print(f"{name:16}{10 * capability[0] + capability[1]:>4}{figures}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(run_script("kernels/resources.py", main))
