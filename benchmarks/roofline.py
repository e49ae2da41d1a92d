#!/usr/bin/env python3
"""What engines should need on GPUs that nobody has measured them on: `python benchmarks/roofline.py`.

Every kernel of the four engines (engine_launches.py) takes a fixed launch time plus the longest of: its bytes over the
memory's bandwidth; its blocks, wave by wave, over the multiprocessors' arithmetic; what the blocks load over the
second-level cache (gpu/predict.py). A word then takes the image stage, passes of both decoders, text, and the
host between them. Predictions all: a device confirms them or does not.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from clip4str.benchmarks.devices import DEVICES, Device, attainable
from clip4str.benchmarks.engine_launches import PRECISIONS, STAGES, Kernel, floor, stage_kernels
from clip4str.benchmarks.gpu import costs
from clip4str.benchmarks.gpu.predict import BANDWIDTH_SHARE
from clip4str.benchmarks.roofline_chart import save_chart
from clip4str.core.charts import check_chart
from clip4str.core.console import Parser, run_script
from clip4str.core.errors import UsageError
from clip4str.core.output_files import check_output, write_whole
from clip4str.model import Config
from clip4str.runtime.bundle import Bundle
from clip4str.training.start import SIZES

PROGRAM = "roofline.py"
CONFIRM = "predicted, to be confirmed on devices"
# The driver in Python beside the stages: cpu-small.json's "host" is 0.4 to 0.7, 0.9 to 1.1 and 1.9 to 2.3 ms for 1, 8
# and 32 words in 9, 13 and 15 calls.
CALL_US, WORD_US = 40.0, 50.0
PARTS = ("launch_us", "memory_us", "arithmetic_us")  # of the GPU's time; waiting for the cache counts as arithmetic
PASSES = 3, 1
MOST_BATCH, MOST_PASSES = 4096, 26
_EPILOG = """\
examples:
  python benchmarks/roofline.py                                       small and B/16, batch 1 and 32, every device
  python benchmarks/roofline.py --networks l14 bundles/my-fp16 --devices agx-orin thor
  python benchmarks/roofline.py --batch 32 --passes 9 2               a batch goes on until its hardest word is settled
"""


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=PROGRAM,
        description="Predicted latency of TensorRT engines, stage by stage, on Jetson boards and server GPUs.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--networks", nargs="+", default=["small", "b16"], metavar="NAME",
        help=f"of {', '.join(SIZES)}, or bundle folders (default: small b16)")  # fmt: skip
    add("--devices", nargs="+", default=list(DEVICES), metavar="NAME", help=f"of {', '.join(DEVICES)} (default: all)")
    add("--batch", nargs="+", type=int, default=[1, 32], metavar="N", help="words at once (default: 1 32)")
    add("--passes", nargs=2, type=int, default=list(PASSES), metavar=("V", "C"),
        help="visual and cross-modal passes before the refinement of one pass each (default: 3 1)")  # fmt: skip
    add("--json", type=Path, metavar="FILE", help="write everything")
    add("--chart", type=Path, metavar="FILE", help="draw it: .png, .svg or .pdf")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    _check(args)
    networks = {_label(name): network(name) for name in args.networks}
    report = predictions(networks, {name: DEVICES[name] for name in args.devices}, args.batch, args.passes)
    print(table(report))
    if args.json:
        write_whole(args.json, dump(report))
    if args.chart:
        save_chart(report, args.chart)
    return 0


def _check(args: argparse.Namespace) -> None:
    for name in args.devices:
        if name not in DEVICES:
            raise UsageError(f"--devices knows {', '.join(DEVICES)}, not {name!r}")
    for batch in args.batch:
        if not 1 <= batch <= MOST_BATCH:
            raise UsageError(f"--batch is 1 to {MOST_BATCH}, not {batch}")
    if not all(1 <= passes <= MOST_PASSES for passes in args.passes):
        raise UsageError(f"--passes are 1 to {MOST_PASSES}, not {args.passes[0]} and {args.passes[1]}")
    labels = [_label(name) for name in args.networks]
    for label in labels:
        if labels.count(label) > 1:
            raise UsageError(f"--networks: two are called {label}")
    check_output(args.json)
    check_chart(args.chart)


def network(name: str) -> Config:
    """A size that training knows, or what a bundle's manifest says. Raises UsageError, BundleError."""
    if name in SIZES:
        return SIZES[name]
    if not Path(name).is_dir():
        raise UsageError(f"--networks knows {', '.join(SIZES)} and bundle folders, not {name!r}")
    config = Bundle.open(name, verify=False).manifest.config
    values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in config.items()}
    try:
        return Config(**values)
    except TypeError as error:
        raise UsageError(f"{name}: its manifest describes no network that this package knows ({error})") from None


def predictions(
    networks: Mapping[str, Config], devices: Mapping[str, Device], batches: Sequence[int], passes: Sequence[int]
) -> dict[str, Any]:
    """All that the table and the chart show. Times in microseconds, of whole batches."""
    rate, bandwidth = attainable()
    return {
        "status": CONFIRM,
        "assumed": {
            "rate_share": round(rate, 3), "bandwidth_share": round(bandwidth, 3), "visual_passes": passes[0],
            "cross_passes": passes[1], "refine_passes": 2, "text_calls": 1, "host_call_us": CALL_US,
            "host_word_us": WORD_US,
        },
        "devices": {name: asdict(device) for name, device in devices.items()},
        "rows": [
            {"network": name, "batch": batch, "device": key, "precision": precision}
            | predict(device, config, batch, precision, passes)
            for name, config in networks.items()
            for batch in dict.fromkeys(batches)
            for key, device in devices.items()
            for precision in PRECISIONS
        ],
    }  # fmt: skip


def predict(
    device: Device, config: Config, batch: int, precision: str, passes: Sequence[int] = (3, 1)
) -> dict[str, Any]:
    """One batch, prepared pixels in host memory to words."""
    calls = {"image": 1, "visual": passes[0] + 1, "text": 1, "cross": passes[1] + 1}
    stages = {name: stage(device, stage_kernels(config, name, batch, precision)) for name in STAGES}
    copied = 4.0 * batch * 3 * math.prod(config.image_size) / (device.bus * 1e3) if device.bus else 0.0
    host = device.host * (CALL_US * sum(calls.values()) + WORD_US * batch) + copied
    gpu = sum(calls[name] * values["us"] for name, values in stages.items())
    spent = {part: sum(calls[name] * values.pop(part) for name, values in stages.items()) for part in PARTS}
    return {
        "stages": {name: {"calls": calls[name], **values} for name, values in stages.items()},
        "gpu_us": gpu,
        **spent,
        "host_us": host,
        "total_us": gpu + host,
        "floor_us": sum(calls[name] * values["floor_us"] for name, values in stages.items()),
        "words_per_second": 1e6 * batch / (gpu + host),
        "bound_by": max({**spent, "host_us": host}.items(), key=lambda part: part[1])[0].removesuffix("_us"),
    }


def stage(device: Device, kernels: Sequence[Kernel]) -> dict[str, Any]:
    """One call: its time, and how much of it goes into launches, waiting for memory, and arithmetic or cache."""
    spent = dict.fromkeys(PARTS, 0.0)
    for kernel in kernels:
        machine, launch = replace(device.machine(kernel.kind), launch_us=0.0), kernel.launch
        us, memory = machine.us(launch), launch.bytes / (BANDWIDTH_SHARE * machine.bandwidth * 1e3)
        spent["memory_us" if us <= memory else "arithmetic_us"] += launch.count * us
        spent["launch_us"] += launch.count * device.launch_us
    moved, flops = floor(kernels)
    return {
        "us": sum(spent.values()),
        **spent,
        "floor_us": device.floor_us(moved, flops),
        "launches": costs.launches([kernel.launch for kernel in kernels]),
        "mb": moved / 1e6,
        "gflop": sum(flops.values()) / 1e9,
    }


def table(report: dict[str, Any]) -> str:
    """Markdown: what was assumed, the devices, and a table for every network and batch."""
    rows, devices = report["rows"], report["devices"]
    numbers = "SMs | GHz | INT8 TOPS | FP16 TFLOP/s | FP32 TFLOP/s | GB/s | us a launch | host x"
    lines = [assumptions(report), "", *_head("device | mode", numbers)]
    for d in devices.values():
        single = f"{d['fp32']:g}{' (TF32)' if d['tf32'] else ''}"
        cells = (d["name"], d["mode"], d["multiprocessors"], d["clock"], f"{d['int8']:g}", f"{d['fp16']:g}", single,
                 f"{d['bandwidth']:g}", d["launch_us"], d["host"])  # fmt: skip
        lines.append(f"| {' | '.join(map(str, cells))} |")
    numbers = "image | visual pass | text | cross pass | host | whole batch | floor | words/s"
    for name, batch in dict.fromkeys((row["network"], row["batch"]) for row in rows):
        lines += ["", f"{name}, batch {batch}: milliseconds, {report['status']}", ""]
        lines += _head("device | precision | most time in", numbers)
        lines += [_line(row, devices) for row in rows if (row["network"], row["batch"]) == (name, batch)]
    return "\n".join(lines)


def assumptions(report: dict[str, Any]) -> str:
    a = report["assumed"]
    return (
        f"{report['status'].capitalize()}. Assumed: kernels reach {100 * a['rate_share']:.0f} % of the dense peak and "
        f"{100 * a['bandwidth_share']:.0f} % of the bandwidth; nothing stays in a cache between kernels; fp32 is TF32 "
        "where there is TF32; int8 in the towers' blocks, two launches more in each; "
        "fp32 attention as one kernel, which TensorRT-RTX has not: too fast; "
        f"{a['visual_passes']} visual and {a['cross_passes']} cross-modal passes, one more of each to refine, text "
        f"once; host {a['host_call_us']:.0f} us a stage call and {a['host_word_us']:.0f} us a word, times the device's "
        "factor, and copies of float32 pixels over its bus; images are prepared already; clocks hold. Floor: the "
        "datasheet's bandwidth and peaks, nothing else."
    )


def _head(texts: str, numbers: str) -> list[str]:
    """A table's head: columns of text, then of numbers."""
    marks = "---|" * (texts.count("|") + 1) + "---:|" * (numbers.count("|") + 1)
    return [f"| {texts} | {numbers} |", f"|{marks}"]


def _line(row: dict[str, Any], devices: dict[str, Any]) -> str:
    times = [row["stages"][name]["us"] for name in STAGES] + [row["host_us"], row["total_us"], row["floor_us"]]
    cells = " | ".join(digits(us / 1000) for us in times)
    name = devices[row["device"]]["name"]
    return f"| {name} | {row['precision']} | {row['bound_by']} | {cells} | {row['words_per_second']:.0f} |"


def dump(report: dict[str, Any]) -> str:
    """JSON, a prediction a line, five digits."""
    rows = ",\n".join(f"  {json.dumps(_rounded(row))}" for row in report["rows"])
    head = json.dumps({key: value for key, value in report.items() if key != "rows"}, indent=1)
    return f'{head[:-2]},\n "rows": [\n{rows}\n ]\n}}\n'


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return float(f"{value:.5g}") if isinstance(value, float) else value


def digits(value: float) -> str:
    """Three digits, or all before the point: 0.0123, 1.23, 1234."""
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}" if value > 0 else "0"


def _label(name: str) -> str:
    return name if name in SIZES else Path(name).resolve().name


if __name__ == "__main__":
    sys.exit(run_script(PROGRAM, main))
