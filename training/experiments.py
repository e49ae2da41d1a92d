#!/usr/bin/env python3
"""Small controlled experiments: what each choice of the network and of its training buys, from random weights.

Every variant learns from the same words, as many of them, in the same order, and differs from the first in one thing.
Then each reads words that none has learned from, and is built and timed on one thread beside the first.

Examples:
  python training/experiments.py --data words/train/real --synthetic pool --held held-out --output runs/experiments
  python training/experiments.py --list
  python training/experiments.py ... --only base patch-16x8 --words 200000

What is finished is kept: the same command again does what is left. Writes experiments.json and experiments.md.
"""

from __future__ import annotations

import argparse
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from clip4str.core.console import Parser, fail
from clip4str.core.errors import Clip4StrError, DataError, UsageError
from clip4str.core.machine_info import machine_info
from clip4str.core.output_files import write_json, write_whole
from clip4str.data.word_lmdb import find_lmdb

BATCH = 80
_FIRST: dict[str, object] = {"patch_size": "16x4", "image_width": 192, "image_layers": 6}


@dataclass(frozen=True)
class Variant:
    """One experiment. options: of training/train.py, on top of what all share."""

    name: str
    question: str
    options: tuple[str, ...] = ()


def _network(**fields: object) -> tuple[str, ...]:
    fields = {**_FIRST, **fields}
    return ("--network", ",".join(f"{key}={value}" for key, value in fields.items()))


VARIANTS = (
    Variant("base", "patches 16x4, width 192, 6 layers; Muon, CTC, 2 orders", _network()),
    Variant("patch-16x8", "half the tokens: wider patches", _network(patch_size="16x8")),
    Variant("patch-32x4", "half the tokens: columns of full height", _network(patch_size="32x4")),
    Variant("patch-8x8", "as many tokens, square", _network(patch_size="8x8")),
    Variant("width-256x4", "wider and less deep", _network(image_width=256, image_layers=4)),
    Variant("width-128x12", "narrower and deeper", _network(image_width=128, image_layers=12)),
    Variant("layers-9", "half as deep again", _network(image_layers=9)),
    Variant("adamw", "AdamW for the hidden matrices, too", (*_network(), "--optimizer", "adamw")),
    Variant("no-ctc", "without the CTC head that helps at the start", (*_network(), "--ctc", "0")),
    Variant("orders-6", "six orders, as published, instead of two", (*_network(), "--orders", "6")),
)


def main(argv: list[str] | None = None) -> int:
    try:
        args = _parse(argv)
        if args.list:
            for variant in VARIANTS:
                print(f"{variant.name:14} {variant.question:60} {' '.join(variant.options)}")
            return 0
        return _run(args)
    except Clip4StrError as error:
        return fail("experiments", error)


def _parse(argv: list[str] | None) -> argparse.Namespace:
    p = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--list", action="store_true", help="print the variants and stop")
    p.add_argument("--data", nargs="+", default=[], metavar="DIR", help="folders of real words; 5%% are held out")
    p.add_argument("--synthetic", nargs="+", default=[], metavar="DIR", help="folders of rendered words to learn from")
    p.add_argument("--held", nargs="+", default=[], metavar="DIR", help="folders of rendered words to be read only")
    p.add_argument("--held-words", type=int, default=2000, metavar="N", help="most of them to read (default 2000)")
    p.add_argument("--output", metavar="DIR", help="folder for the runs and the table")
    p.add_argument("--only", nargs="+", metavar="NAME", help="variants to run, instead of all")
    p.add_argument("--words", type=int, default=96_000, help="words to learn from, each variant (default 96000)")
    p.add_argument("--parallel", type=int, default=2, help="runs at a time, one thread each (default 2)")
    args = p.parse_args(argv)
    if not args.list and not (args.output and args.synthetic and args.held):
        raise UsageError("say what to learn from and where to keep it: --synthetic DIR --held DIR --output DIR")
    unknown = set(args.only or ()) - {variant.name for variant in VARIANTS}
    if unknown:
        raise UsageError(f"no experiment is called {', '.join(sorted(unknown))}; --list prints all")
    return args


def _run(args: argparse.Namespace) -> int:
    folder = Path(args.output)
    for place in (*args.data, *args.synthetic, *args.held):
        find_lmdb(place)  # before minutes go by
    folder.mkdir(parents=True, exist_ok=True)
    chosen = [v for v in VARIANTS if not args.only or v.name in args.only]
    with ThreadPoolExecutor(args.parallel) as pool:
        list(pool.map(lambda variant: _train(args, variant, folder / variant.name), chosen))
    rows = _measure(args, [(v, folder / v.name) for v in VARIANTS if (folder / v.name / "model.safetensors").exists()])
    report = {"machine": machine_info(1), "words": args.words, "rows": rows}
    table = as_markdown(rows)
    write_json(folder / "experiments.json", report)
    write_whole(folder / "experiments.md", table)
    print(table)
    return 0


def _train(args: argparse.Namespace, variant: Variant, run: Path) -> None:
    command = [
        sys.executable, str(Path(__file__).with_name("train.py")), "--synthetic", *args.synthetic, "--output", str(run),
        "--steps", str(math.ceil(args.words / BATCH)), "--batch", str(BATCH), "--orders", "2", "--cross-start", "1",
        "--ema", "0.99", "--accelerator", "cpu", "--threads", "1", "--compile", "--validate-every", "100000",
        "--save-minutes", "2", *(("--data", *args.data) if args.data else ()), *variant.options,
    ]  # fmt: skip
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise DataError(f"{variant.name}: {(done.stderr.strip() or 'training failed').splitlines()[-1]}")
    print(f"{variant.name}: {(time.monotonic() - began) / 60:.1f} minutes", flush=True)


def _measure(args: argparse.Namespace, runs: list[tuple[Variant, Path]]) -> list[dict[str, Any]]:
    """Percent right by the visual branch unrefined, size, and milliseconds a word on one thread, in turns."""
    import torch

    from clip4str.model import load_checkpoint
    from clip4str.training.data import HELD_OUT, load_words
    from clip4str.training.logbook import HeldOut
    from clip4str.training.run_log import read_rows

    torch.set_num_threads(1)
    networks = [load_checkpoint(run / "model.safetensors").eval() for _, run in runs]
    charset, size = networks[0].charset, networks[0].config.image_size
    sets = {"rendered": HeldOut({"rendered": load_words(args.held, charset)[0]}, size, args.held_words)}
    if args.data:
        sets["real"] = HeldOut({"real": load_words(args.data, charset, HELD_OUT)[1]}, size, 1000)
    rows: list[dict[str, Any]] = []
    for (variant, run), network in zip(runs, networks):
        speeds = [row["words_per_second"] for row in read_rows(run / "log.csv")[3:] if "words_per_second" in row]
        rows.append({
            "name": variant.name, "question": variant.question, "options": list(variant.options),
            "million_parameters": sum(p.numel() for p in network.parameters()) / 1e6,
            "words_per_second": statistics.median(speeds) if speeds else None,
            **{name: _reading(network, held) for name, held in sets.items()},
        })  # fmt: skip
    one = sets["rendered"].pixels[:1].permute(0, 3, 1, 2).float() / 127.5 - 1
    for row, times in zip(rows, _turns([partial(network.clip_model.visual, one) for network in networks])):
        row["tower_ms"] = statistics.median(times)
        row["tower_ms_quartiles"] = statistics.quantiles(times, n=4)[::2]
    return rows


def _reading(network: Any, held: Any) -> dict[str, float]:
    """Percent of words right, and of characters predicted right from those before them."""
    import torch

    from clip4str.core.reading import Decoding
    from clip4str.training.data import encode_words
    from clip4str.training.module import word_accuracy
    from clip4str.training.psm import draw_orders, psm_losses

    network.decoding = Decoding(branch="visual", refine=0)
    right, characters = 0.0, 0.0
    with torch.inference_mode():
        for first in range(0, len(held), 100):
            labels = held.labels[first : first + 100]
            pixels = held.pixels[first : first + 100].permute(0, 3, 1, 2).float() / 127.5 - 1
            words = [network.charset.caption(row) for row in network.read(pixels).ids]
            right += word_accuracy(words, labels, network) * len(labels)
            tokens = encode_words(labels, network.charset)
            forward = draw_orders(tokens.shape[1] - 2, 2, np.random.default_rng(0))[:1]
            known = psm_losses(network, network.clip_model.visual(pixels), tokens, forward, cross=False)
            characters += float(known.accuracy) * len(labels)
    return {"words": 100 * right / len(held), "characters": 100 * characters / len(held), "of": len(held)}


def _turns(calls: Sequence[Callable[[], Any]], rounds: int = 60) -> list[list[float]]:
    """Milliseconds of each call, all taking turns, so that whatever slows the machine slows them alike."""
    import torch

    times: list[list[float]] = [[] for _ in calls]
    with torch.inference_mode():
        for number in range(rounds + 5):
            for call, list_ in zip(calls, times):
                began = time.perf_counter()
                call()
                if number >= 5:
                    list_.append(1e3 * (time.perf_counter() - began))
    return times


def as_markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The table of training/NOTES.md: percent right, words learned a second, milliseconds of the image tower."""
    kinds = [kind for kind in ("rendered", "real") if rows and kind in rows[0]]
    head = ["variant", "", "M parameters", "image tower, ms", "learned, words/s"]
    head += [f"{kind}: {what}, %" for kind in kinds for what in ("words", "characters")]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        cells = [row["name"], row["question"], f"{row['million_parameters']:.2f}", f"{row['tower_ms']:.1f}"]
        cells.append(f"{row['words_per_second']:.0f}" if row["words_per_second"] else "")
        cells += [f"{row[kind][what]:.1f}" for kind in kinds for what in ("words", "characters")]
        lines.append(cells)
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


if __name__ == "__main__":
    raise SystemExit(main())
