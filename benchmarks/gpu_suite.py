"""Tests and times everything on one GPU, in one command: `python benchmarks/gpu_suite.py`.

What would make everything else worthless first: a kernel of each kind, the network's words, the C library, the CUDA
layer; then times, the most wanted first. Weights are random: no checkpoint is needed. Whoever has a GPU should run it
and commit what it writes under benchmarks/results/.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import re
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    sys.path.append(str(Path(__file__).resolve().parent / "gpu" / "bare"))  # after a Pillow that is installed

from clip4str.benchmarks.devices import Device, device_called
from clip4str.benchmarks.gpu.correctness import CUDA, KERNELS, LIBRARY, NETWORK, correctness
from clip4str.benchmarks.gpu.report import summary, targets
from clip4str.benchmarks.gpu.supervisor import Reporter, Section, Store, supervise
from clip4str.core.console import Parser, run_script
from clip4str.core.errors import DeviceError, UsageError
from clip4str.core.output_files import check_output, write_whole
from clip4str.kernels.options import options

PROGRAM = "gpu_suite.py"
BATCHES = (1, 64, 8, 256)  # the most important first
_EPILOG = """\
examples:
  python benchmarks/gpu_suite.py                     on a GPU, ten minutes; writes benchmarks/results/gpu-NAME.json
  python benchmarks/gpu_suite.py --output FOLDER     three files there: figures as they come, a summary, a chart
  python benchmarks/gpu_suite.py --only correctness  one section: those whose names begin so
  python benchmarks/gpu_suite.py --rehearse          every section on a CPU, with tiny networks and a few of the tests
  python benchmarks/gpu_suite.py --dry-run           those of them that need torch, triton and numpy alone
  python benchmarks/gpu_suite.py --chart results.json   draw a PNG beside it, on any machine with matplotlib

Weights are random, so pass counts are forced: 3 visual and 2 cross passes here; the published way reads words of 6
characters. Everything is computed, then the ids are replaced. The exit code is 1 if a test or a part failed or was left
out, 2 if there is no GPU. Each section is a process of its own with its share of the time. Clocks and
power limits are left as they are. What to expect: roofline.py --kernels.

sections:
"""


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=PROGRAM,
        description="Correctness and speed of the kernels and of the whole network on one GPU.",
        epilog=_EPILOG + textwrap.fill(", ".join(_names()), 110, initial_indent="  ", subsequent_indent="  "),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--output", type=Path, metavar="PATH",
        help="FILE.json or a folder, made if need be (default: benchmarks/results/gpu-NAME.json)")  # fmt: skip
    add("--minutes", type=float, default=9.5, metavar="M", help="all the time there is (default: %(default)s)")
    add(
        "--only",
        nargs="+",
        metavar="SECTION",
        help="environment, ceilings, and sections whose names begin so: see below",
    )
    add("--rehearse", action="store_true", help="on a CPU: references, a tiny network, one or two repetitions")
    add("--dry-run", action="store_true", help="the same without what needs more than torch, triton and numpy")
    add("--chart", type=Path, metavar="FILE", help="draw the results in this file, run nothing")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    if args.chart:
        return _chart(args.chart)
    if args.minutes <= 0:
        raise UsageError(f"--minutes is more than 0, not {args.minutes:g}")
    if args.dry_run and args.rehearse:
        raise UsageError("--rehearse is more than --dry-run: name one")
    names = [name for name in _names() if not args.dry_run or name not in NEED_MORE]
    for start in args.only or ():
        if not any(name.startswith(start) for name in names):
            raise UsageError(f"--only: no section begins with {start!r}; there are {', '.join(names)}")
    options()  # of the environment: a wrong name is said now, not by every section
    _need_libraries()
    folder = args.output is not None and (args.output.is_dir() or not args.output.suffix)
    if folder:
        _make(args.output)
        check_output(args.output / "gpu.json")
    else:
        check_output(args.output, (".json",))
    return _run(args, folder)


def _need_libraries() -> None:
    """Also loads torch, once for all sections' processes; CUDA is theirs. Raises DeviceError."""
    try:
        importlib.import_module("torch")
        found = importlib.util.find_spec("triton") is not None
    except ImportError:
        found = False
    if not found:
        raise DeviceError(
            "this suite needs torch and triton: pip install 'clip4str[gpu]'; "
            'a board without them: docs/jetson.md, "How fast"'
        )


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--output {folder}: cannot be made ({error.strerror})") from None


def _run(args: argparse.Namespace, folder: bool) -> int:
    began, on_cpu = time.monotonic(), args.dry_run or args.rehearse
    head = {
        "suite": 2,
        "started": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        "minutes": args.minutes,
        "dry_run": on_cpu,
        "forced": "words of 6 characters in the published way, 3 visual and 2 cross passes in ours; weights are random",
    }
    if folder:
        store = Store(None, head, lambda name: args.output / _name_of(name))
    else:
        default = Path(__file__).parent / "results"
        store = Store(args.output, head, None if on_cpu else lambda name: default / _name_of(name))
    device = _Device(on_cpu)
    chosen = [section for section in _sections(device, on_cpu) if not args.dry_run or section.name not in NEED_MORE]
    if args.only:
        always = ("environment", "ceilings", *args.only)
        chosen = [section for section in chosen if section.name.startswith(always)]
    try:
        supervise(chosen, device.open, device.alive, store, 60 * args.minutes - 5)
    except RuntimeError as error:
        raise DeviceError(str(error)) from None
    store.results["seconds"] = round(time.monotonic() - began, 1)
    if not on_cpu:
        store.results["targets"] = targets(store.results)
    store.write()
    text = summary(store.results)
    if store.path is not None:
        write_whole(store.path.with_suffix(".txt"), f"{text}\n")
    if store.path is not None and not on_cpu:
        try:
            _chart(store.path)
        except Exception as error:  # the figures are there: --chart draws them elsewhere
            print(f"no chart: {error}")
    print(text)
    if store.path is not None:
        print(f"results: {store.path}")
    return 1 if store.results["failures"] or store.results["skipped"] else 0


class _Device:
    """The GPU, opened in the child process that uses it: the parent never touches CUDA."""

    def __init__(self, dry_run: bool) -> None:
        self.dry_run, self.gpu = dry_run, None

    def open(self) -> None:
        import torch

        from clip4str.benchmarks.gpu.device import open_device

        if not self.dry_run and not torch.cuda.is_available():
            raise DeviceError("no GPU that torch can use; --rehearse does without one")
        self.gpu = open_device(self.dry_run)  # type: ignore[assignment]

    def alive(self) -> bool:
        return self.gpu is None or self.gpu.alive()


NEED_MORE = ("network", "library", "cuda_layer", "files", "correctness", "engines")  # than torch, triton and numpy


def _names() -> list[str]:
    return [section.name for section in _sections(_Device(False), False)]


def _sections(device: _Device, on_cpu: bool) -> list[Section]:
    """In order of importance; weights are seconds, of ten minutes where all need theirs."""
    batches = (1, 2) if on_cpu else BATCHES
    others = batches[:1] if on_cpu else batches

    def call(module: str, function: str, **fixed: Any) -> Callable[[Reporter], None]:
        def run(report: Reporter) -> None:
            found = getattr(importlib.import_module(f"clip4str.benchmarks.gpu.{module}"), function)
            later = {name: value(report) for name, value in fixed.items() if callable(value)}
            found(device.gpu, report, **{**fixed, **later})

        return run

    def config(name: str) -> Callable[[Reporter], Any]:
        return lambda report: importlib.import_module("clip4str.benchmarks.gpu.networks").sizes(on_cpu)[name]

    def whole(name: str, batches: Sequence[int]) -> Callable[[Reporter], None]:
        rate = {"rate": lambda report: report.results.get("ceilings", {}).get("fp16_tflops")}
        return call("end_to_end", "end_to_end", config=config(name), batches=batches, device=_as_measured, **rate)

    def tests(which: Sequence[Path]) -> Callable[[Reporter], None]:
        return partial(correctness, tests=which, rehearsal=on_cpu)

    rest = "decode_pass", "linear", "short_attention", "crop_resize", "resize", "thumbnail", "tokenize", "collapse"
    operators: dict[str, Any] = {"operators": rest, "device": _as_measured}
    attention: dict[str, Any] = {"operators": ("cross_attention",), "device": _as_measured}
    every = ("cross_attention", *rest)
    return [
        Section("environment", 6, call("ceilings", "environment")),
        Section("first", 25, call("first", "each_kind")),
        Section("sanitizer", 45, call("first", "sanitizer")),
        Section("warm", 100, call("warm", "warm")),
        Section("network", 50, tests(NETWORK)),
        Section("library", 60 if on_cpu else 20, tests(LIBRARY)),  # a CPU has to build it
        Section("cuda_layer", 10, tests(CUDA)),
        Section("ceilings", 12, call("ceilings", "ceilings")),
        Section("end_to_end_base16", 90, whole("base16", batches)),
        Section("timeline", 25, call("timeline", "timeline", config=config("base16"), batches=batches[:2])),
        Section("files", 30, call("files", "files", config=config("base16"))),
        Section("compiled", 70, call("end_to_end", "compiled", config=config("base16"), batches=others[:2])),
        Section("correctness", 80, tests(KERNELS)),
        Section("options", 50, call("options", "time_options", config=config("base16"), batches=others[:2])),
        Section("attention", 8, call("attention", "attention")),
        Section("cross_attention", 20, call("kernels", "time_kernels", **attention)),
        Section("end_to_end_small", 30, whole("small", others)),
        Section("engines", 70, call("engines", "engines")),
        Section("end_to_end_large", 50, whole("large", others)),
        Section("kernels", 40, call("kernels", "time_kernels", **operators)),
        Section("sweep", 30, call("kernels", "sweep", operators=every)),
    ]


def _as_measured(report: Reporter) -> Device:
    """The table's device of this GPU's name, with the ceilings measured here."""
    found = report.results.get("environment", {})
    return device_called(found.get("name", "")).measured(found, report.results.get("ceilings", {}))


def _chart(path: Path) -> int:
    from clip4str.benchmarks.gpu.chart import save_chart

    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: not results of this suite ({error})") from None
    print(f"chart: {save_chart(results, path.with_suffix('.png'))}")
    return 0


def _name_of(device: str) -> str:
    return f"gpu-{re.sub(r'[^a-z0-9]+', '-', device.lower()).strip('-')}.json"


if __name__ == "__main__":
    sys.exit(run_script(PROGRAM, main))
