#!/usr/bin/env python3
"""Eight bits beside float32 on this CPU: word accuracy, size, and time side by side: `python benchmarks/int8.py`."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from clip4str.benchmarks.figures import between, markdown, quartiles
from clip4str.benchmarks.forcing import Forcing
from clip4str.benchmarks.latency_sides import BundleSide, Turn
from clip4str.benchmarks.peer_adapters import ours
from clip4str.benchmarks.peers import compare, print_table
from clip4str.benchmarks.turns import take_turns
from clip4str.benchmarks.word_options import check_word_options, finish, word_parser
from clip4str.core.console import run_script
from clip4str.core.errors import UsageError
from clip4str.core.machine_info import describe, machine_info
from clip4str.data.labelled_words import choose_sets
from clip4str.data.word_images import word_images
from clip4str.export.parity_images import BUNDLED_CROPS
from clip4str.runtime import Recognizer
from clip4str.runtime.bundle import MANIFEST, Bundle, describe_file, write_manifest
from clip4str.runtime.openvino_core import has_bfloat16

PROGRAM = "benchmarks/int8.py"
SCHEMES = {"int8": "qdq", "int8-dynamic": "dynamic"}  # by the name of its bundle
BASE = "float32"
OPENVINO = {  # by OpenVINO: which bundle, and in which precision what is not of eight bits
    "float32, openvino": (BASE, None), "bfloat16, openvino": (BASE, "bfloat16"), "int8, openvino": ("int8", None),
    "int8 and bfloat16, openvino": ("int8", "bfloat16"),
}  # fmt: skip
_EPILOG = """\
examples:
  python benchmarks/int8.py --data data/test --sets SVT CUTE80 --json int8.json
  python benchmarks/int8.py --random-weights base16 --batch 1 8

int8: ranges fixed by calibration; int8-dynamic: computed for every batch. Both
pass the accuracy gate, as clip4str build makes them, with the crops that it
takes by default. Times are of whole batches, images in and words out, the sides
taking turns over the same images; a ratio is float32's time over the side's: its
median and quartiles over pairs of turns.

Random weights read no words: their words are forced (6 characters, 3 visual and
3 cross passes), and the gate lets everything pass.
"""


def build_parser() -> argparse.ArgumentParser:
    parser = word_parser(PROGRAM, __doc__, _EPILOG, data=False)
    add = parser.add_argument
    add("--checkpoint", type=Path, metavar="FILE", help="network (default: the bundled one)")
    add("--random-weights", metavar="SIZE", help="instead: an untrained small, base16, base32, large or huge")
    add("--calib-data", type=Path, metavar="DIR", help="word crops to calibrate and check on (default: as in a build)")
    add("--batch", type=int, nargs="+", default=[1, 8], metavar="N", help="batch sizes to time (default: 1 8)")
    add(
        "--openvino", action="store_true", help="time the first two in OpenVINO, too; where the CPU has bfloat16, in it"
    )
    add("--repeat", type=int, default=60, metavar="N", help="timed turns of each side (default: 60)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    check_word_options(args)
    for name, value in (("repeat", args.repeat), ("batch", min(args.batch))):
        if value < 1:
            raise UsageError(f"--{name} is 1 or more, not {value}")
    if args.random_weights and (args.data or args.checkpoint):
        raise UsageError(
            "--random-weights makes a network of its own, which reads no words: no --checkpoint, no --data"
        )
    sets = choose_sets(args.data, args.sets) if args.data else {}
    info = machine_info(args.threads)
    print(describe(info))
    with tempfile.TemporaryDirectory() as scratch:
        folders = build_sides(args, Path(scratch))
        figures: dict[str, Any] = {"network": args.random_weights or (args.checkpoint or Path("small")).stem}
        figures |= {"sides": {name: side_facts(folder) for name, folder in folders.items()}}
        if sets:
            figures["accuracy"], _ = compare(
                [replace(ours(folder, args.threads), name=name) for name, folder in folders.items()],
                sets, args.threads, args.limit, not args.quiet,
            )  # fmt: skip
            print_table(figures["accuracy"])
        figures["latency"] = [time_sides(args, folders, batch) for batch in args.batch]
    print_sides(figures["sides"])
    for report in figures["latency"]:
        print_latency(report)
    print(f"\n{verdict(figures['latency'])}")
    finish(args, info, figures)
    return 0


def build_sides(args: argparse.Namespace, folder: Path) -> dict[str, Path]:
    """A float32 bundle of the network, and one for each scheme of eight bits."""
    from clip4str.benchmarks.random_weights import random_checkpoint
    from clip4str.export.bundles import build_bundle
    from clip4str.export.quantization import QuantizationOptions, quantise
    from clip4str.model import load_checkpoint
    from clip4str.model.checkpoint import BUNDLED

    checkpoint, options = args.checkpoint or BUNDLED, QuantizationOptions(args.calib_data)
    if args.random_weights:
        checkpoint = random_checkpoint(args.random_weights, folder)
        options = QuantizationOptions(args.calib_data or BUNDLED_CROPS, max_accuracy_drop=100)
    folders = {BASE: build_bundle(checkpoint, folder / BASE, min_agreement=0, max_batch=max(32, *args.batch))}
    model, manifest = load_checkpoint(checkpoint), Bundle.open(folder / BASE).manifest
    for name, scheme in SCHEMES.items():
        folders[name] = folder / name
        folders[name].mkdir()
        files, quantization = quantise(model, folders[name], replace(options, scheme=scheme), say=print)
        write_manifest(
            folders[name],
            replace(
                manifest,
                name=name,
                precision="int8",
                files={path.name: describe_file(path) for path in files},
                quantization=quantization,
                parity={},
            ),
        )
    return folders


def side_facts(folder: Path) -> dict[str, Any]:
    """Bytes of each file, and how it was quantised."""
    manifest = Bundle.open(folder).manifest
    files = {name: entry["bytes"] for name, entry in manifest.files.items()}
    return {"bytes": sum(files.values()) + (folder / MANIFEST).stat().st_size, "files": files,
            "quantization": manifest.quantization}  # fmt: skip


def time_sides(args: argparse.Namespace, folders: dict[str, Path], batch: int) -> dict[str, Any]:
    """The figures of one batch size. Captions are forgotten before every turn."""
    forcing = Forcing() if args.random_weights else None
    opened = {
        name: Recognizer.load(folder, "onnxruntime", threads=args.threads, providers=["CPU"])
        for name, folder in folders.items()
    }
    for name, (bundle, dtype) in OPENVINO.items() if args.openvino else ():
        if dtype is None or has_bfloat16():
            opened[name] = Recognizer.load(folders[bundle], "openvino", threads=args.threads, dtype=dtype)
    sides = {name: BundleSide(recognizer, forcing).turn for name, recognizer in opened.items()}
    turns = take_turns(sides, word_images(None), batch, args.repeat, progress=not args.quiet)
    return latency_report(batch, turns)


def latency_report(batch: int, turns: dict[str, list[Turn]]) -> dict[str, Any]:
    """Milliseconds a batch, whole and by stage, and float32's time over each side's."""
    report: dict[str, Any] = {"batch": batch, "turns": len(turns[BASE]), "sides": {}}
    for name, taken in turns.items():
        whole = [turn.seconds for turn in taken]
        image = [turn.stages["image"] for turn in taken]
        report["sides"][name] = {
            "ms": quartiles(1000 * np.array(whole)),
            "stages_ms": {s: round(1000 * float(np.median([t.stages[s] for t in taken])), 4) for s in taken[0].stages},
            "ratio": quartiles(np.array([turn.seconds for turn in turns[BASE]]) / whole),
            "image_ratio": quartiles(np.array([turn.stages["image"] for turn in turns[BASE]]) / image),
        }
    return report


def print_sides(sides: dict[str, dict[str, Any]]) -> None:
    lines = []
    for name, side in sides.items():
        gate, cells = side["quantization"].get("gate"), [""] * 4
        if gate:
            last = gate["attempts"][-1]
            reads = "-" if last["accuracy"] is None else f"{last['accuracy']:.1f}"
            kept = ", ".join(side["quantization"]["kept"]) or "none"
            cells = [reads, f"{last['agreement']:.1f}", str(gate["crops"]), kept]
        lines.append([name, *(f"{size / 1e6:.1f}" for size in (side["bytes"], *_towers(side["files"]))), *cells])
    heads = ("", "MB", "image MB", "text MB", "gate: accuracy", "agreement", "crops", "kept")
    print(f"\n{markdown(heads, lines)}")


def _towers(files: dict[str, int]) -> list[int]:
    return [sum(size for name, size in files.items() if name.startswith(stage)) for stage in ("image", "text")]


def print_latency(report: dict[str, Any]) -> None:
    lines = []
    for name, side in report["sides"].items():
        ms, ratio, image = (
            [f"{side[key]['median']:.2f}", between(side[key])] for key in ("ms", "ratio", "image_ratio")
        )
        lines.append([name, *ms, *(f"{side['stages_ms'][stage]:.2f}" for stage in ("image", "text")), *ratio, *image])
    heads = ("", "ms", "quartiles", "image ms", "text ms", "times float32", "quartiles", "image tower", "quartiles")
    print(f"\nbatch {report['batch']}, {report['turns']} turns\n{markdown(heads, lines)}")


def verdict(reports: Sequence[dict[str, Any]]) -> str:
    """Is int8 faster here? One line."""
    found = {report["batch"]: report["sides"]["int8"]["ratio"] for report in reports}
    said = ", ".join(f"{ratio['median']:.2f} times at batch {batch}" for batch, ratio in found.items())
    if all(ratio["quartile_1"] > 1 for ratio in found.values()):
        return f"int8 is faster than float32 on this CPU: {said}"
    if all(ratio["quartile_3"] < 1 for ratio in found.values()):
        return f"int8 is slower than float32 on this CPU: {said}; it is only smaller"
    return f"int8 is not clearly faster than float32 on this CPU: {said}"


if __name__ == "__main__":
    sys.exit(run_script(PROGRAM, main))
