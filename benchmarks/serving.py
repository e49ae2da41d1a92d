"""A server under load: what it reads within 100 ms, beside one process in a loop; and with three times too much."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

from clip4str.benchmarks.figures import markdown
from clip4str.benchmarks.serving_load.arrivals import Sample, in_flight, poisson, reads_a_second, recovery
from clip4str.benchmarks.serving_load.load_figures import BAR_MS, OVERLOAD, SHARES, point, within_bar
from clip4str.benchmarks.serving_load.load_target import Setup, Target
from clip4str.benchmarks.serving_load.processor_time import resident_mb, used
from clip4str.benchmarks.serving_load.serving_chart import save_chart
from clip4str.benchmarks.serving_load.targets import TARGETS
from clip4str.core.charts import check_chart
from clip4str.core.console import Parser, run_script
from clip4str.core.cpu import available_threads
from clip4str.core.errors import BackendError, UsageError
from clip4str.core.machine_info import describe, machine_info
from clip4str.core.output_files import check_output, write_json
from clip4str.runtime import Recognizer
from clip4str.runtime.default_bundle import default_bundle

PROGRAM = "benchmarks/serving.py"
CROPS = Path(__file__).resolve().parents[1] / "export" / "sample_crops"
_EPILOG = """\
examples:
  PYTHONPATH=build/serving/site python benchmarks/serving.py --target triton --seconds 20 --json serving.json

Requests come at random times (Poisson), whether or not those before them are answered. First the server is kept busy to
see what it can do; then shares of that are offered, and three times as much. Every word is compared with the bundle's.
Exit code 1 if one is wrong, or a request fails otherwise than by being refused.
"""


def main(argv: Sequence[str] | None = None) -> int:
    o = _parser().parse_args(argv)
    if not 1 <= o.seconds <= 3600 or not 1 <= o.instances <= 64 or not 1 <= o.max_batch <= 4096 or o.queue < 1:
        raise UsageError("--seconds is 1 to 3600, --instances 1 to 64, --max-batch 1 to 4096, --queue 1 or more")
    check_output(o.json)
    check_chart(o.chart)
    bundle, info = o.bundle or default_bundle(), machine_info(available_threads())
    files = [path.read_bytes() for path in sorted(CROPS.glob("*.jpg"))]
    with Recognizer.load(bundle, "onnxruntime") as recognizer:
        words = [word.text for word in recognizer.read(files)]
        loop = {
            name: round(reads_a_second(recognizer.read, files, size, o.seconds / 2), 2)
            for name, size in (("one_by_one", 1), ("batches", o.max_batch))
        }
        name = f"{recognizer.manifest.name} {recognizer.manifest.precision}"
    with tempfile.TemporaryDirectory(prefix="clip4str-serving-") as folder:
        setup = Setup(bundle, Path(folder), o.instances, o.max_batch, o.delay_ms, o.queue)
        found = asyncio.run(_measured(TARGETS[o.target](setup), list(zip(files, words)), o.seconds, setup))
    report = {
        "command": f"python {PROGRAM} --target {o.target} --instances {o.instances} --max-batch {o.max_batch} "
        f"--delay-ms {o.delay_ms:g} --queue {o.queue} --seconds {o.seconds:g}",
        "target": o.target, "bundle": name, "machine": info, "instances": o.instances, "bar_ms": BAR_MS,
        "one_process": loop, **found, "within_bar": within_bar(found["points"]),
    }  # fmt: skip
    print(_table(report))
    if o.json:
        write_json(o.json, report)
    if o.chart:
        save_chart(report, o.chart)
    loads = [report["most"], *report["points"], report["overload"]]
    return int(any(one["wrong"] or one["failed"] for one in loads))


async def _measured(
    target: Target, pictures: list[tuple[bytes, str]], seconds: float, setup: Setup
) -> dict[str, Any]:  # fmt: skip
    async with target:
        await in_flight(target.send, pictures, 4, 1.0)  # warm
        counted = target.counts()

        async def under(load: Coroutine[Any, Any, list[Sample]]) -> tuple[list[Sample], dict[str, float]]:
            """Its samples, and the processor time that it took, by process."""
            start, own = used("server"), time.process_time()
            samples = await load
            own, end = time.process_time() - own, used("server")
            took = {name: end[name] - start[name] for name in sorted(end)}
            return samples, {name: round(each, 2) for name, each in {**took, "generator": own}.items()}

        def taken(samples: list[Sample], took: dict[str, float], offered: float | None) -> dict[str, Any]:
            nonlocal counted
            before, counted = counted, target.counts()
            found = point(samples, offered, seconds, counted[0] - before[0], counted[1] - before[1])
            return {**found, "processor_s": took}

        busy = setup.max_batch * setup.instances + setup.queue // 2
        most = taken(*await under(in_flight(target.send, pictures, busy, seconds)), None)
        if not most["read"]:
            raise BackendError(f"{target.what} read no picture rightly: {most}")
        points = []
        for number, share in enumerate(SHARES):
            rate = share * most["read_a_second"]
            print(f"{rate:.0f} requests a second", file=sys.stderr)
            points.append(taken(*await under(poisson(target.send, pictures, rate, seconds, number)), rate))
        rate = OVERLOAD * most["read_a_second"]
        before = resident_mb()
        samples, took = await under(poisson(target.send, pictures, rate, seconds, len(SHARES)))
        drained = max(0.0, max(each.due + each.late for each in samples) - seconds)
        again = await recovery(target.send, pictures, BAR_MS / 1000)
        overload = {**taken(samples, took, rate), "memory_mb": [before, resident_mb()],
                    "recovered_s": None if again is None else round(drained + again, 2)}  # fmt: skip
        return {"what": target.what, "most": most, "points": points, "overload": overload}


def _table(report: dict[str, Any]) -> str:
    def row(name: str, one: dict[str, Any]) -> list[Any]:
        cells = [
            one[key] for key in ("read_a_second", "p50_ms", "p99_ms", "pictures_a_batch", "refused", "refused_p99_ms")
        ]
        return [name, *("-" if cell is None else cell for cell in cells)]

    heads = ("requests a second", "read a second", "p50 ms", "p99 ms", "a batch", "refused", "their p99 ms")
    rows = [row(f"{one['offered']:.0f}", one) for one in (*report["points"], report["overload"])]
    rows.insert(0, row("as many as it can", report["most"]))
    loop, best = report["one_process"], report["within_bar"]
    said = "no load" if best is None else f"{best['offered']:.0f} requests a second"
    return "\n".join([
        f"{report['bundle']} on {report['what']}, {report['instances']} instances",
        describe(report["machine"]),
        f"one process in a loop: {loop['one_by_one']:.1f} a second one by one, {loop['batches']:.1f} in batches",
        f"within {report['bar_ms']:g} ms in 99 of 100 cases: {said}",
        markdown(heads, rows),
        "overload: {} to {} MB of memory, ".format(*report["overload"]["memory_mb"])
        + f"read in time again after {report['overload']['recovered_s']} s; processor seconds "
        + ", ".join(f"{name} {took:g}" for name, took in report["overload"]["processor_s"].items()),
    ])  # fmt: skip


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog=PROGRAM, description=__doc__, epilog=_EPILOG,
                    formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    add = parser.add_argument
    add("--target", choices=sorted(TARGETS), required=True, help="the server, started here")
    add("--seconds", type=float, default=20, metavar="S", help="each load lasts (default 20)")
    add(
        "--instances", type=int, default=os.cpu_count() or 1, metavar="N", help="processes (default: one for each core)"
    )
    add("--max-batch", type=int, default=16, metavar="N", help="pictures read at once (default 16)")
    add("--delay-ms", type=float, default=2, metavar="MS", help="that a picture waits for others (default 2)")
    add("--queue", type=int, default=16, metavar="N", help="requests that wait; more are refused (default 16)")
    add("--bundle", type=Path, metavar="DIR", help="bundle to read with (default: the newest)")
    add("--json", type=Path, metavar="FILE", help="write all figures as JSON")
    add("--chart", type=Path, metavar="FILE", help="draw latency over load (.png, .svg, .pdf)")
    return parser


if __name__ == "__main__":
    sys.exit(run_script(PROGRAM, main))
