#!/usr/bin/env python3
"""Predicts times on GPUs that were not measured, from launches, bytes and arithmetic: `python benchmarks/roofline.py`.

For TensorRT engines, stage by stage (engine_launches.py), or with --kernels for the one-shot program over our kernels
(kernel_launches.py), on the devices of devices.py, which also has the model of a launch's time; with --one-launch, what
engines gain by reading a batch in one graph (one_launch.py); with --switches, that and what our kernels' switches gain
(switches.py); with --streams, how many videos they follow and read at
once (streams.py). gpu_suite.py prints the predictions beside what it measures.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from clip4str.benchmarks.devices import DEVICES
from clip4str.benchmarks.engine_launches import STAGES
from clip4str.benchmarks.figures import digits, markdown
from clip4str.benchmarks.one_launch import one_launch_predictions, one_launch_table
from clip4str.benchmarks.predictions import PASSES, kernel_predictions, predictions
from clip4str.benchmarks.roofline_chart import save_chart
from clip4str.benchmarks.streams import stream_predictions, stream_table
from clip4str.core.charts import check_chart
from clip4str.core.console import Parser, run_script
from clip4str.core.errors import BackendError, UsageError
from clip4str.core.output_files import check_output, write_whole
from clip4str.model import Config
from clip4str.model.sizes import SIZES, size_name
from clip4str.runtime.bundle import Bundle
from clip4str.video.detect.ppocr import installed_model

PROGRAM = "roofline.py"
MOST_BATCH, MOST_PASSES = 4096, 26
BATCHES = [1, 32]
_EPILOG = """\
examples:
  python benchmarks/roofline.py                                       small and B/16, batch 1 and 32, every device
  python benchmarks/roofline.py --networks large bundles/my-fp16 --devices agx-orin thor
  python benchmarks/roofline.py --batch 32 --passes 9 2               a batch goes on until its hardest word is settled
  python benchmarks/roofline.py --kernels --networks base16 --devices h100 --batch 1 64
                                                                      our kernels; of one device, launch by launch
  python benchmarks/roofline.py --one-launch --batch 1 8 32           engines stage by stage, and in one launch
  python benchmarks/roofline.py --switches --devices agx-orin h100    before and after, and each switch of the kernels
  python benchmarks/roofline.py --streams                             1080p streams a device can follow and read
"""


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=PROGRAM,
        description="Predicted latency of TensorRT engines, or of our kernels, on Jetson boards and server GPUs.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--kernels", action="store_true", help="the one-shot program over our kernels instead of TensorRT's engines")
    add("--one-launch", action="store_true", help="TensorRT's engines stage by stage, and all of a batch in one launch")
    add("--switches", action="store_true", help="both ways before and after, and what each switch of the kernels gains")
    add("--streams", action="store_true", help="how many 1080p streams are followed and read at once")
    add("--networks", nargs="+", default=["small", "base16"], metavar="NAME",
        help=f"of {', '.join(SIZES)}, or bundle folders (default: small base16)")  # fmt: skip
    add("--devices", nargs="+", default=list(DEVICES), metavar="NAME", help=f"of {', '.join(DEVICES)} (default: all)")
    add("--batch", nargs="+", type=int, default=BATCHES, metavar="N", help="words at once (default: 1 32)")
    add("--passes", nargs=2, type=int, default=list(PASSES), metavar=("V", "C"),
        help="engines: visual and cross-modal passes before refinement by one pass each (default: 3 1)")  # fmt: skip
    add("--json", type=Path, metavar="FILE", help="write all figures as JSON")
    add("--chart", type=Path, metavar="FILE", help="draw the engines' predictions: .png, .svg or .pdf")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    _check(args)
    try:
        report, text = _report(args)
    except ModuleNotFoundError as error:  # torch for the switches, onnx for the streams' detector
        raise BackendError(
            f"this report needs {error.name}: pip install 'clip4str[gpu]'; without options none is needed"
        ) from None
    print(text)
    if args.json:
        write_whole(args.json, dump(report))
    if args.chart:
        save_chart(report, args.chart)
    return 0


def _report(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """As data and as markdown."""
    networks = {_label(name): network(name) for name in args.networks}
    chosen = {name: DEVICES[name] for name in args.devices}
    if args.streams:
        report = stream_predictions(networks, chosen, installed_model())
        return report, stream_table(report)
    if args.one_launch:
        report = one_launch_predictions(networks, chosen, args.batch)
        return report, one_launch_table(report)
    if args.switches:
        from clip4str.benchmarks import switches  # the kernels' own configurations, which need torch

        report = switches.switch_predictions(networks, chosen, args.batch)
        return report, switches.switch_table(report)
    if args.kernels:
        report = kernel_predictions(networks, chosen, args.batch)
        return report, kernel_table(report)
    report = predictions(networks, chosen, args.batch, args.passes)
    return report, table(report)


def _check(args: argparse.Namespace) -> None:
    for name in args.devices:
        if name not in DEVICES:
            raise UsageError(f"--devices knows {', '.join(DEVICES)}, not {name!r}")
    for batch in args.batch:
        if not 1 <= batch <= MOST_BATCH:
            raise UsageError(f"--batch is 1 to {MOST_BATCH}, not {batch}")
    if not all(1 <= passes <= MOST_PASSES for passes in args.passes):
        raise UsageError(f"--passes are 1 to {MOST_PASSES}, not {args.passes[0]} and {args.passes[1]}")
    own = [name for name in ("kernels", "one_launch", "switches", "streams") if getattr(args, name)]
    if len(own) > 1:
        raise UsageError("--kernels, --one-launch, --switches and --streams are four reports: name one of them")
    if own and own != ["streams"] and (args.chart or args.passes != list(PASSES)):
        name = f"--{own[0].replace('_', '-')}"
        raise UsageError(f"{name} has its own passes and no chart: leave out --passes and --chart")
    if args.streams and (args.chart or args.passes != list(PASSES) or args.batch != BATCHES):
        raise UsageError("--streams has its own batches and passes and no chart: only --networks, --devices and --json")
    labels = [_label(name) for name in args.networks]
    for label in labels:
        if labels.count(label) > 1:
            raise UsageError(f"--networks: two are called {label}")
    check_output(args.json)
    check_chart(args.chart)


def network(name: str) -> Config:
    """The config of a known size, or of a bundle's manifest. Raises UsageError, BundleError."""
    if (size := size_name(name)) in SIZES:
        return SIZES[size]
    if not Path(name).is_dir():
        raise UsageError(f"--networks knows {', '.join(SIZES)} and bundle folders, not {name!r}")
    config = Bundle.open(name, verify=False).manifest.config
    values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in config.items()}
    try:
        return Config(**values)
    except TypeError as error:
        raise UsageError(f"{name}: its manifest describes no network that this package knows ({error})") from None


def table(report: dict[str, Any]) -> str:
    """Markdown: assumptions, devices, and a table for every network and batch."""
    rows, names = report["rows"], {key: device["name"] for key, device in report["devices"].items()}
    parts = [assumptions(report), device_table(report["devices"])]
    for network_name, batch in dict.fromkeys((row["network"], row["batch"]) for row in rows):
        lines = [
            [names[row["device"]], row["precision"], row["bound_by"],
             *(digits(row["stages"][name]["us"] / 1000) for name in STAGES),
             *(digits(row[key] / 1000) for key in ("host_us", "total_us", "floor_us")),
             f"{row['words_per_second']:.0f}"]
            for row in rows if (row["network"], row["batch"]) == (network_name, batch)
        ]  # fmt: skip
        parts.append(f"{network_name}, batch {batch}: milliseconds, {report['status']}")
        heads = ("device", "precision", "most time in", "image", "visual pass", "text", "cross pass", "host",
                 "whole batch", "floor", "words/s")  # fmt: skip
        parts.append(markdown(heads, lines, texts=3))
    return "\n\n".join(parts)


def kernel_table(report: dict[str, Any]) -> str:
    """Markdown: devices, a row for every prediction, and launches where the report has them."""
    lines = [
        [row["network"], report["devices"][row["device"]]["name"], row["batch"], row["launches"],
         *(digits(row[key] / 1000) for key in ("tower_us", "total_us", "bound_us")), f"{row['times_tower']:.2f}",
         *(f"{100 * row[key]:.0f}" for key in ("after_share", "rate_share"))]
        for row in report["rows"]
    ]  # fmt: skip
    heads = ("network", "device", "batch", "launches", "image tower, ms", "whole, ms", "bound, ms", "x tower",
             "after it, %", "of the rate, %")  # fmt: skip
    parts = [
        f"{report['status'].capitalize()}. Our kernels in half precision, {report['assumed']['graph_us']:.0f} us times "
        f"the device's factor for the host. {_reach(report['assumed'])}.",
        device_table(report["devices"]),
        markdown(heads, lines, texts=2),
    ]
    for row in (row for row in report["rows"] if "parts" in row):
        parts.append(f"{row['network']}, batch {row['batch']}, launch by launch: microseconds, {report['status']}")
        cells = [
            [p["name"], p["count"], *(f"{p[key]:.2f}" for key in ("us", "bound_us", "mb")), f"{p['gflop']:.3f}",
             f"{p['count'] * p['us']:.1f}"]
            for p in row["parts"]
        ]  # fmt: skip
        parts.append(markdown(("launch", "count", "us each", "bound", "MB", "GFLOP", "us in all"), cells))
    return "\n\n".join(parts)


def device_table(chosen: Mapping[str, Mapping[str, Any]]) -> str:
    heads = ("device", "mode", "SMs", "GHz", "INT8 TOPS", "FP16 TFLOP/s", "GB/s", "us a launch", "host x")
    keys = ("name", "mode", "multiprocessors", "clock", "int8", "fp16", "bandwidth", "launch_us", "host")
    cells = [[f"{d[k]:g}" if isinstance(d[k], float) else d[k] for k in keys] for d in chosen.values()]
    return "\n".join([markdown(heads, cells, texts=2), "", *(f"{d['name']}: {d['source']}" for d in chosen.values())])


def assumptions(report: dict[str, Any]) -> str:
    a = report["assumed"]
    return (
        f"{report['status'].capitalize()}. {_reach(a)}; int8 in the towers' blocks, or fp8, one launch less in "
        f"each, where there is such; "
        f"{a['visual_passes']} visual and {a['cross_passes']} cross-modal passes, one more of each to refine, text "
        f"once; host {a['host_call_us']:.0f} us a stage call and {a['host_word_us']:.0f} us a word, times the device's "
        "factor, and copies of float32 pixels over its bus; images are prepared already. Floor: the data sheet's "
        "bandwidth and peaks, nothing else."
    )


def _reach(a: Mapping[str, float]) -> str:
    return (
        f"Assumed: kernels reach {100 * a['rate_share']:.0f} % of the dense peak and {100 * a['bandwidth_share']:.0f} "
        "% of the bandwidth; nothing stays in a cache between kernels; clocks hold"
    )


def dump(report: dict[str, Any]) -> str:
    """JSON, one prediction per line, five significant digits."""
    rows = ",\n".join(f"  {json.dumps(_rounded(row))}" for row in report["rows"])
    head = json.dumps({key: value for key, value in report.items() if key != "rows"}, indent=1)
    return f'{head[:-2]},\n "rows": [\n{rows}\n ]\n}}\n'


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def _label(name: str) -> str:
    size = size_name(name)
    return size if size in SIZES else Path(name).resolve().name


if __name__ == "__main__":
    sys.exit(run_script(PROGRAM, main))
