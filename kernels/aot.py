"""Compile every kernel ahead of time, for GPUs that this machine need not have: `python kernels/aot.py`.

Writes cubins and the C table that CMakeLists.txt builds libclip4str_kernels.so from, and prints what each kernel
needs: registers, shared memory, spills, tensor-core instructions.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # a script's folder comes first: here `tokenize` would hide the standard library's
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import argparse
import concurrent.futures
import importlib
import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from typing import TYPE_CHECKING

from tqdm import tqdm

from clip4str.core.console import Parser, one_line
from clip4str.core.errors import BackendError, Clip4StrError, UsageError
from clip4str.kernels.shared.variants import CAPABILITIES, MOST, NETWORKS, Entry, Network, Variant

if TYPE_CHECKING:
    from clip4str.kernels.cubin import Cubin

OPERATORS = ("linear", "cross_attention", "decode_pass", "crop_resize", "resize", "thumbnail", "tokenize", "collapse")
DTYPE = "fp16"
PROGRAM = "kernels/aot.py"
HEAD = ("sm", "kernel", "networks", "for", "warps", "registers", "shared", "local", "spills", "tensor cores", "bytes")
Source = Callable[[Network, str, tuple[int, int]], list[Variant]]


def operator_variants(network: Network, dtype: str, capability: tuple[int, int]) -> list[Variant]:
    """Every operator's variants, in OPERATORS' order."""
    modules = [importlib.import_module(f"clip4str.kernels.{name}.aot") for name in OPERATORS]
    return [variant for module in modules for variant in module.variants(network, dtype, capability)]


def plan(
    networks: Iterable[str],
    capabilities: Iterable[tuple[int, int]],
    source: Source = operator_variants,
) -> list[Entry]:
    """Everything to compile; variants that several networks share occur once."""
    from clip4str.kernels.cubin import key

    entries: dict[tuple[object, ...], Entry] = {}
    for capability in capabilities:
        for network in networks:
            for variant in source(NETWORKS[network], DTYPE, capability):
                hashed = key(variant, capability)
                same = (hashed, variant.launch, tuple(sorted(variant.where.items())), variant.grid)
                known = entries.get(same, Entry(variant, capability, (), hashed))
                if network not in known.networks:
                    entries[same] = replace(known, networks=(*known.networks, network))
    return list(entries.values())


def compile_all(entries: Sequence[Entry], folder: Path, jobs: int) -> dict[str, Cubin]:
    """The cubin of every entry by key; those already in the folder are kept. Raises BackendError."""
    from clip4str.kernels.cubin import load

    folder.mkdir(parents=True, exist_ok=True)
    wanted = {entry.key: entry for entry in entries}
    done = {key: cubin for key in wanted if (cubin := load(folder, key))}
    missing = [entry for key, entry in wanted.items() if key not in done]
    with tqdm(total=len(wanted), initial=len(done), unit="kernel", disable=not sys.stderr.isatty()) as bar:
        for cubin in _in_parallel(missing, folder, jobs):
            done[cubin.key] = cubin
            bar.update()
    return done


_work: Sequence[Entry] = ()  # inherited by forked workers: a @triton.jit function cannot be pickled


def _in_parallel(entries: Sequence[Entry], folder: Path, jobs: int) -> Iterable[Cubin]:
    global _work
    _work = entries
    if jobs == 1 or len(entries) < 2:
        yield from (_compile(folder, i) for i in range(len(entries)))
        return
    context = multiprocessing.get_context("fork")
    with concurrent.futures.ProcessPoolExecutor(jobs, context, initializer=_quiet) as pool:
        pending = [pool.submit(_compile, folder, i) for i in range(len(entries))]
        try:
            for future in concurrent.futures.as_completed(pending):
                yield future.result()
        except BrokenProcessPool:
            pool.shutdown(wait=False, cancel_futures=True)
            raise BackendError("the compiler ended one of the processes; --jobs 1 shows at which kernel") from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _quiet() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent tells, once


def _compile(folder: Path, index: int) -> Cubin:
    from clip4str.kernels.cubin import compile_variant

    return compile_variant(_work[index].variant, _work[index].capability, folder)


def table(entries: Sequence[Entry], cubins: dict[str, Cubin]) -> str:
    """One line per kernel; the number of spilling instructions must be 0."""
    rows: list[tuple[str, ...]] = [HEAD]
    for e in entries:
        c = cubins[e.key]
        tensor = " ".join(f"{n}x{name}" for name, n in c.tensor.items()) or "-"
        networks = "all" if len(e.networks) == len(NETWORKS) else ",".join(e.networks)
        numbers = (c.num_warps, c.registers, c.shared, c.local, c.spills)
        sm = f"{10 * e.capability[0] + e.capability[1]}{'a' if c.specific else ''}"
        rows.append((sm, e.variant.launch, networks, _conditions(e.variant), *map(str, numbers), tensor, str(c.size)))
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEAD))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip() for row in rows)


def _conditions(variant: Variant) -> str:
    ranges = {k: (w, w) if isinstance(w, int) else w for k, w in variant.where.items()}
    ends = {k: f"{a}" if a == b else f"{a}.." if b == MOST else f"{a}..{b}" for k, (a, b) in ranges.items()}
    return " ".join(f"{k}={v}" for k, v in ends.items())


def summary(entries: Sequence[Entry], cubins: dict[str, Cubin]) -> str:
    spilling = [e for e in entries if cubins[e.key].spills]
    without = [e for e in entries if e.variant.matrix and not cubins[e.key].tensor]
    size = sum(cubins[key].size for key in {e.key for e in entries})
    count = Counter(e.capability for e in entries)
    lines = [f"{len({e.key for e in entries})} kernels for {len(count)} architectures, {size / 1e6:.1f} MB"]
    lines += [f"spills: {e.variant.launch} {e.capability} {dict(e.variant.where)}" for e in spilling]
    lines += [f"no tensor cores: {e.variant.launch} {e.capability} {dict(e.variant.where)}" for e in without]
    return "\n".join(lines)


def _capability(text: str) -> tuple[int, int]:
    digits = text.strip().removeprefix("sm_").replace(".", "")
    if not digits.isdigit() or len(digits) < 2 or int(digits) < 80:
        raise UsageError(f"--architectures: {text!r} is not one like 87 or 9.0; 80 is the least")
    found = int(digits[:-1]), int(digits[-1])
    if found not in CAPABILITIES:  # the compiler dies of those that it does not know
        raise UsageError(f"--architectures: {text.strip()} unknown; there are {_numbers()}")
    return found


def _numbers() -> str:
    return ",".join(f"{major}{minor}" for major, minor in CAPABILITIES)


def add_options(parser: argparse.ArgumentParser) -> None:
    """What to compile, and with how many processes."""
    default = _numbers()
    parser.add_argument(
        "--architectures", "--arch", default=default, metavar="LIST", help=f"compute capabilities ({default})"
    )
    parser.add_argument(
        "--networks", default=",".join(NETWORKS), metavar="LIST", help=f"sizes to compile for ({','.join(NETWORKS)})"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (one per core: %(default)s)")


def write_cubins(options: argparse.Namespace, folder: Path) -> tuple[list[Entry], dict[str, Cubin]]:
    """Compile what add_options' options ask for; cubins and the C table into the folder. Raises UsageError for a wrong
    option, BackendError where something cannot be compiled."""
    networks = list(dict.fromkeys(options.networks.split(",")))
    if unknown := [n for n in networks if n not in NETWORKS]:
        raise UsageError(f"--networks: {', '.join(unknown)} unknown; there are {', '.join(NETWORKS)}")
    if options.jobs < 1:
        raise UsageError(f"--jobs: at least 1, not {options.jobs}")
    capabilities = sorted({_capability(text) for text in options.architectures.split(",")})
    _need_triton()
    from clip4str.kernels.embed import write_sources

    entries = plan(networks, capabilities)
    cubins = compile_all(entries, folder / "cache", options.jobs)
    write_sources(entries, cubins, networks, folder)
    return entries, cubins


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog=PROGRAM, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--output", type=Path, default=Path("build/cubins"), help="folder for cubins (%(default)s)")
    parser.add_argument("--no-table", action="store_true", help="print the summary only")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    try:
        options = _parser().parse_args(argv)
        entries, cubins = write_cubins(options, options.output)
        print(summary(entries, cubins) if options.no_table else f"{table(entries, cubins)}\n{summary(entries, cubins)}")
        return 0
    except (Clip4StrError, OSError) as error:
        print(f"{PROGRAM}: error: {one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; what was compiled is kept", file=sys.stderr)
        return 130


def _need_triton() -> None:
    """Raises BackendError."""
    if os.environ.get("TRITON_INTERPRET", "0") == "1":
        raise BackendError("TRITON_INTERPRET=1 is set: kernels are interpreted, not compiled; unset it")
    try:
        importlib.import_module("triton")
    except ImportError as e:
        raise BackendError(f"compiling kernels needs triton: pip install 'clip4str[gpu]' ({e})") from None


if __name__ == "__main__":
    sys.exit(main())
