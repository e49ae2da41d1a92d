#!/usr/bin/env python3
"""Where a training step's time goes on one CPU core, and what the arithmetic alone would take.

Examples:
  python benchmarks/training_step.py
  python benchmarks/training_step.py --layers 6 --batch 80 --cross-every 1      # the bundled network's first runs

Parts are timed in turn over several rounds; medians are printed. Floor: the operations of a part's matrix products at
the rate of one large product on this machine. Words are random, of 2 to 12 characters.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from clip4str.benchmarks.figures import markdown
from clip4str.core.console import Parser, run_script
from clip4str.core.errors import UsageError
from clip4str.core.machine_info import machine_info
from clip4str.core.output_files import check_output, write_json

PARTS = ("image tower", "visual decoder", "draft head", "cross-modal branch", "backward", "backward, cross-modal too",
         "optimiser")  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    p = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--layers", type=int, default=9, help="layers of the image tower (default 9)")
    p.add_argument("--batch", type=int, default=128, help="words per step (default 128)")
    p.add_argument("--orders", type=int, default=2, help="permutations (default 2)")
    p.add_argument("--cross-every", type=int, default=4, help="as train --cross-every (default 4)")
    p.add_argument("--processes", type=int, default=2, help="processes that share the optimiser's work (default 2)")
    p.add_argument("--precision", choices=("auto", "32", "bf16-mixed"), default="auto", help="as train --precision")
    p.add_argument("--compile", action="store_true", help="torch.compile, as the long run does")
    p.add_argument("--rounds", type=int, default=7, help="rounds to take medians of (default 7)")
    p.add_argument("--json", type=Path, metavar="FILE", help="write all figures as JSON")
    args = p.parse_args(argv)
    for name in ("layers", "batch", "cross_every", "processes", "rounds"):
        if getattr(args, name) < 1:
            raise UsageError(f"--{name.replace('_', '-')} is 1 or more, not {getattr(args, name)}")
    if args.orders < 2 or args.orders % 2:
        raise UsageError(f"--orders is an even number, each order comes with its mirror; not {args.orders}")
    check_output(args.json, [".json"])
    report = measure(args)
    print(table(report))
    if args.json:
        write_json(args.json, report)
    return 0


def measure(args: argparse.Namespace) -> dict[str, Any]:
    import torch

    from clip4str.training.train import bfloat16_pays

    torch.set_num_threads(1)
    if args.precision == "auto":
        args.precision = "bf16-mixed" if bfloat16_pays() else "32"
    step = Step(args)
    step.run(lambda part, call: call())  # compiles
    operations = _count(step)
    times: dict[str, list[float]] = defaultdict(list)

    def timed(part: str, call: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        result = call()
        times[part].append(1e3 * (time.perf_counter() - began))
        return result

    rates = []
    for _ in range(args.rounds):
        rates.append(_rate(args.precision))
        step.run(timed)
    rate, n = statistics.median(rates), args.batch
    both = times["cross-modal branch"]  # timed with the visual decoder before it
    times["cross-modal branch"] = [a - b for a, b in zip(both, times["visual decoder"])]
    often = dict.fromkeys(PARTS, 1.0)
    often["backward, cross-modal too"] = often["cross-modal branch"] = 1 / args.cross_every
    often["backward"] = 1 - 1 / args.cross_every
    often["optimiser"] = 1 / args.processes
    rows = [
        {"part": part, "ms": statistics.median(times[part]) / n,
         "quartiles": [float(q) / n for q in np.percentile(times[part], (25, 75))],
         "mflop": operations[part] / n / 1e6, "floor_ms": operations[part] / n / rate * 1e3, "weight": often[part]}
        for part in PARTS
    ]  # fmt: skip
    totals = {key: sum(row[key] * row["weight"] for row in rows) for key in ("ms", "floor_ms", "mflop")}
    options = {k: v for k, v in vars(args).items() if k != "json"}
    return {"machine": machine_info(1), "options": options, "gflops": rate / 1e9, "rows": rows, "word": totals}


class Step:
    """The parts of a training step, in order."""

    def __init__(self, args: argparse.Namespace) -> None:
        import torch

        from clip4str.model.draft import frames_per_column
        from clip4str.model.sizes import SIZES
        from clip4str.training import start
        from clip4str.training.data import encode_words
        from clip4str.training.module import Settings, Training
        from clip4str.training.psm import draw_orders

        config = replace(SIZES["small"], image_layers=args.layers)
        config = replace(config, draft_frames=frames_per_column(config.grid, config.steps))
        settings = Settings(lr=7e-4, decoder_lr=1, muon_lr=2e-3, weight_decay=0.05, dropout=0, freeze_text=-1, ctc=0.5)
        torch.manual_seed(0)
        self.module = Training(config, settings)
        start.initialize(self.module)
        self.module.trainer = SimpleNamespace(precision=args.precision)  # type: ignore[assignment]
        self.half = args.precision != "32"
        self.optimizer = self.module.configure_optimizers()
        rng = np.random.default_rng(0)
        letters = list("abcdefghijklmnopqrstuvwxyz0123456789")
        # Lengths as in a batch of Stream, which sorts words before it deals them out.
        lengths = np.sort(rng.integers(2, 13, 8 * args.batch))[3 * args.batch : 4 * args.batch]
        self.tokens = encode_words(["".join(rng.choice(letters, n)) for n in lengths], self.module.charset)
        self.pixels = torch.from_numpy(rng.integers(0, 256, (args.batch, *config.image_size, 3), np.uint8))
        self.orders = draw_orders(self.tokens.shape[1] - 2, args.orders, rng)
        if args.compile:
            self.module.compile_parts()

    def run(self, part: Callable[[str, Callable[[], Any]], Any]) -> None:
        import torch
        from torch.nn.attention import SDPBackend, sdpa_kernel

        from clip4str.training.module import ctc_loss
        from clip4str.training.psm import psm_losses

        m, tokens = self.module, self.tokens
        for cross in (False, True):
            with torch.autocast("cpu", torch.bfloat16, enabled=self.half), sdpa_kernel(SDPBackend.MATH):
                tower = "image tower" if not cross else ""
                memory = part(tower, lambda: m.clip_model.visual(m.normalise(self.pixels)))
                name = "cross-modal branch" if cross else "visual decoder"
                losses = part(name, lambda: psm_losses(m, memory, tokens, self.orders, cross))  # noqa: B023
                head = part("draft head" if not cross else "", lambda: m.draft_head(memory))  # type: ignore[misc] # noqa: B023
                loss = losses.visual + 0.5 * ctc_loss(head, tokens, m.charset.pad)
                loss = loss + losses.cross if losses.cross is not None else loss
            part("backward, cross-modal too" if cross else "backward", loss.backward)
            part("optimiser" if not cross else "", self.optimizer.step)
            self.optimizer.zero_grad()


def _count(step: Step) -> dict[str, float]:
    """Operations in matrix products, by part."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    counted: dict[str, float] = defaultdict(float)

    def count(part: str, call: Callable[[], Any]) -> Any:
        with FlopCounterMode(display=False) as counter:
            result = call()
        counted[part] += counter.get_total_flops()
        return result

    with torch.compiler.set_stance("force_eager"):
        step.run(count)
    counted["cross-modal branch"] -= counted["visual decoder"]
    return counted


def _rate(precision: str) -> float:
    """Operations per second of a large product."""
    import torch

    dtype = torch.float32 if precision == "32" else torch.bfloat16
    a, b = torch.randn(2048, 768).to(dtype), torch.randn(768, 768).to(dtype)
    a @ b
    began = time.perf_counter()
    for _ in range(5):
        a @ b
    return 5 * 2 * 2048 * 768 * 768 / (time.perf_counter() - began)


def table(report: dict[str, Any]) -> str:
    lines = [
        [row["part"], f"{row['ms']:.3f}", f"{row['quartiles'][0]:.3f} to {row['quartiles'][1]:.3f}",
         f"{row['mflop']:.1f}", f"{row['floor_ms']:.3f}", f"{row['weight']:.2f}"]
        for row in report["rows"]
    ]  # fmt: skip
    word = report["word"]
    lines.append(["a word", f"{word['ms']:.3f}", "", f"{word['mflop']:.1f}", f"{word['floor_ms']:.3f}", ""])
    return (
        f"{markdown(('', 'ms a word', 'quartiles', 'MFLOP', 'floor, ms', 'counts'), lines)}\n"
        f"{1000 / word['ms']:.0f} words a second and core, {1000 / word['floor_ms']:.0f} by the arithmetic "
        f"({report['gflops']:.0f} GFLOP/s in a large product, {report['options']['precision']})"
    )


if __name__ == "__main__":
    raise SystemExit(run_script("training_step", main))
