"""Everything there is to know of one GPU, in one command: `python benchmarks/gpu_suite.py`.

Needs torch, triton, numpy and this checkout, no checkpoint and no installation. Whoever has a GPU runs it and commits
what it writes under benchmarks/results/.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import re
import sys
import time
import types
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path.insert(0, str(_ROOT))
try:
    import PIL  # noqa: F401
except ImportError:  # the package reads image files with Pillow; the suite reads none, it needs no more than the names
    _image = type("Image", (), {"Image": type("Image", (), {})})
    sys.modules["PIL"] = types.ModuleType("PIL")
    vars(sys.modules["PIL"]).update(Image=_image, ImageOps=None, UnidentifiedImageError=OSError)

from clip4str.benchmarks.gpu.report import summary, targets  # noqa: E402
from clip4str.benchmarks.gpu.supervisor import Reporter, Section, Store, supervise  # noqa: E402
from clip4str.core.console import Parser, run_script  # noqa: E402
from clip4str.core.errors import DeviceError, UsageError  # noqa: E402

PROGRAM = "gpu_suite.py"
BATCHES = (1, 64, 8, 256)  # the most wanted first
_EPILOG = """\
examples:
  python benchmarks/gpu_suite.py                     on a GPU, nine minutes; writes benchmarks/results/gpu-NAME.json
  python benchmarks/gpu_suite.py --only check        correctness alone: sections whose names begin so
  python benchmarks/gpu_suite.py --predict           what to expect of an H100, from launches, bytes and arithmetic
  python benchmarks/gpu_suite.py --predict orin --launch-us 4
  python benchmarks/gpu_suite.py --dry-run           all of it but CUDA, on a CPU, with a tiny network
  python benchmarks/gpu_suite.py --chart results.json   draw a PNG beside it, on any machine with matplotlib

Weights are random, so pass counts are forced: 3 visual and 2 cross passes here; the published way reads words of 6
characters. Everything is computed, then the ids are replaced. The exit code is 1 if any answer was wrong or any part
failed, 2 if there is no GPU. Clocks and power limits are left as they are.
"""


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=PROGRAM,
        description="Correctness and speed of the kernels and of the whole network on one GPU.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--output", type=Path, metavar="FILE", help="results (default: benchmarks/results/gpu-NAME.json)")
    add("--minutes", type=float, default=9, metavar="M", help="all the time there is (default: 9)")
    add("--only", nargs="+", metavar="SECTION", help="environment, ceilings, and sections whose names begin so")
    add("--dry-run", action="store_true", help="on a CPU: references, a tiny network, one or two repetitions")
    add("--chart", type=Path, metavar="FILE", help="draw the results in this file, run nothing")
    add = parser.add_argument_group("predictions").add_argument
    add("--predict", nargs="?", const="h100", metavar="GPU", help="h100 (default), h200, l4, orin, thor; run nothing")
    for name in ("multiprocessors", "bandwidth", "rate", "rate32", "launch-us", "host-us", "cache-gbs", "block-gbs"):
        add(f"--{name}", type=float, metavar="X", help=argparse.SUPPRESS)
    add("--warm-shard", type=int, nargs=2, help=argparse.SUPPRESS)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    if args.predict:
        print(_predict(args))
        return 0
    if args.chart:
        return _chart(args.chart)
    if args.warm_shard:
        return _warm_shard(args)
    if args.minutes <= 0:
        raise UsageError(f"--minutes is more than 0, not {args.minutes:g}")
    if args.output and not args.output.parent.is_dir():
        raise UsageError(f"{args.output}: its folder does not exist")
    return _run(args)


def _run(args: argparse.Namespace) -> int:
    began = time.monotonic()
    head = {
        "suite": 1,
        "started": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        "minutes": args.minutes,
        "dry_run": args.dry_run,
        "forced": "words of 6 characters in the published way, 3 visual and 2 cross passes in ours; weights are random",
    }
    store = Store(args.output, head, None if args.dry_run else _default_output)
    device = _Device(args.dry_run)
    chosen = _sections(device, args.dry_run)
    if args.only:
        always = ("environment", "ceilings", *args.only)
        chosen = [section for section in chosen if section.name.startswith(always)]
    try:
        supervise(chosen, device.open, device.alive, store, 60 * args.minutes - 5)
    except RuntimeError as error:
        raise DeviceError(str(error)) from None
    store.results["seconds"] = round(time.monotonic() - began, 1)
    store.results["targets"] = targets(store.results)
    store.write()
    if store.path is not None and not args.dry_run:
        try:
            _chart(store.path)
        except Exception as error:  # the figures are there: --chart draws them elsewhere
            print(f"no chart: {error}")
    print(summary(store.results))
    if store.path is not None:
        print(f"results: {store.path}")
    return 1 if store.results["failures"] else 0


class _Device:
    """The GPU, opened in the child process that uses it: the parent never touches CUDA."""

    def __init__(self, dry_run: bool) -> None:
        self.dry_run, self.gpu = dry_run, None

    def open(self) -> None:
        import torch

        from clip4str.benchmarks.gpu.device import open_device

        if not self.dry_run:
            if not torch.cuda.is_available():
                raise DeviceError("no GPU that torch can use; --dry-run does without one, --predict needs none")
            if importlib.util.find_spec("triton") is None:
                raise DeviceError("the kernels need triton; pip install triton")
        self.gpu = open_device(self.dry_run)  # type: ignore[assignment]

    def alive(self) -> bool:
        return self.gpu is None or self.gpu.alive()


def _sections(device: _Device, dry_run: bool) -> list[Section]:
    """In order of importance; weights are seconds of nine minutes."""
    batches = (1, 2) if dry_run else BATCHES
    pair, others = batches[:2], batches[:1] if dry_run else batches

    def call(module: str, function: str, **fixed: Any) -> Callable[[Reporter], None]:
        def run(report: Reporter) -> None:
            found = getattr(importlib.import_module(f"clip4str.benchmarks.gpu.{module}"), function)
            later = {name: value(report) for name, value in fixed.items() if callable(value)}
            found(device.gpu, report, **{**fixed, **later})

        return run

    def config(name: str) -> Callable[[Reporter], Any]:
        return lambda report: importlib.import_module("clip4str.benchmarks.gpu.networks").sizes(dry_run)[name]

    def whole(name: str, batches: Sequence[int]) -> Callable[[Reporter], None]:
        rate = {"rate": lambda report: report.results.get("ceilings", {}).get("fp16_tflops")}
        return call("end_to_end", "end_to_end", config=config(name), batches=batches, machine=_machine, **rate)

    others_than_attention = ("decode_pass", "linear", "crop_resize", "tokenize", "collapse")
    operators: dict[str, Any] = {"operators": others_than_attention, "machine": _machine}
    attention: dict[str, Any] = {"operators": ("cross_attention",), "machine": _machine}
    every = ("cross_attention", *others_than_attention)
    return [
        Section("environment", 8, call("ceilings", "environment")),
        Section("ceilings", 14, call("ceilings", "ceilings")),
        Section("predictions", 6, lambda report: _predictions(report, dry_run)),
        Section("warm", 60, call("kernels", "warm", script=Path(__file__), processes=1 if dry_run else None)),
        *(Section(f"check_{name}", 15, call("checks", "check", operator=name)) for name in every),
        Section("check_whole", 55, call("whole", "whole")),
        Section("end_to_end_b16", 110, whole("b16", batches)),
        Section("cross_attention", 25, call("kernels", "time_kernels", **attention)),
        Section("profile", 15, call("end_to_end", "profiles", config=config("b16"), batches=pair)),
        Section("end_to_end_small", 40, whole("small", others)),
        Section("engines", 60, call("engines", "engines")),
        Section("end_to_end_l14", 70, whole("l14", others)),
        Section("kernels", 50, call("kernels", "time_kernels", **operators)),
        Section("compiled", 70, call("end_to_end", "compiled", config=config("b16"), batches=others[:2])),
        Section("sweep", 40, call("kernels", "sweep", operators=every)),
    ]


def _machine(report: Reporter) -> Any:
    """The prediction's machine: an H100 with the ceilings that were measured here."""
    from clip4str.benchmarks.gpu.predict import MACHINES, as_measured

    found = report.results.get("environment", {})
    name, count = found.get("name", "unknown"), int(found.get("multiprocessors", 132))
    return as_measured(MACHINES["h100"], name, count, report.results.get("ceilings", {}))


def _predictions(report: Reporter, dry_run: bool) -> None:
    """As --predict prints them, from the defaults and again from the measured ceilings."""
    from clip4str.benchmarks.gpu.networks import sizes
    from clip4str.benchmarks.gpu.predict import MACHINES, predictions

    configs = sizes(dry_run)
    for name, machine in (("defaults", MACHINES["h100"]), ("measured", _machine(report))):
        report.values[name] = predictions(machine, configs, sorted(BATCHES))


def _predict(args: argparse.Namespace) -> str:
    from clip4str.benchmarks.gpu.networks import sizes
    from clip4str.benchmarks.gpu.predict import MACHINES, predictions, table

    if args.predict not in MACHINES:
        raise UsageError(f"--predict knows {', '.join(MACHINES)}, not {args.predict!r}; give figures for another")
    machine = MACHINES[args.predict]
    given = {f.name: getattr(args, f.name, None) for f in fields(machine)}
    machine = replace(machine, **{name: value for name, value in given.items() if value is not None})
    return table(predictions(machine, sizes(False), sorted(BATCHES)))


def _chart(path: Path) -> int:
    from clip4str.benchmarks.gpu.chart import save_chart

    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: not results of this suite ({error})") from None
    print(f"chart: {save_chart(results, path.with_suffix('.png'))}")
    return 0


def _warm_shard(args: argparse.Namespace) -> int:
    from clip4str.benchmarks.gpu.device import open_device
    from clip4str.benchmarks.gpu.kernels import warm_shard

    warm_shard(open_device(args.dry_run), *args.warm_shard)
    return 0


def _default_output(device: str) -> Path:
    return _ROOT / "benchmarks" / "results" / f"gpu-{re.sub(r'[^a-z0-9]+', '-', device.lower()).strip('-')}.json"


if __name__ == "__main__":
    sys.exit(run_script(PROGRAM, main))
