"""What more training words would buy the bundled network: a power law through the accuracies of its runs."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clip4str.benchmarks.figures import markdown
from clip4str.core.charts import BLUE, GREY, ORANGE, add_legend, check_chart, logarithmic, new_figure, save, tidy
from clip4str.core.console import Parser, run_script

PROGRAM = "benchmarks/words_seen.py"
RUNS = Path(__file__).resolve().parent / "results" / "words-seen.json"
_EPILOG = """\
examples:
  python benchmarks/words_seen.py
  python benchmarks/words_seen.py --chart seen.png

error = a * words ^ -b, least squares in logarithms, over the accuracies that were
measured after each run (results/words-seen.json, as the model cards of their time
say). Intervals: every accuracy drawn anew from as many words as it was measured
on, 2,000 times. The runs differ in more than words (layers, patches, what is
drawn), so it tells an order of magnitude.
"""
_SOURCE = "bands: 95 %, accuracies drawn anew. Measured by benchmarks/peers.py, fitted by benchmarks/words_seen.py"
DRAWS = 2000
ASKED = (10_000_000, 30_000_000)  # words
MANY = 1e9


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=PROGRAM, description=__doc__, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--chart", type=Path, metavar="FILE", help="draw it")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    check_chart(args.chart)
    history = json.loads(RUNS.read_text(encoding="utf-8"))
    rows = []
    for name, count in history["sets"].items():
        seen, right = points(history, name)
        drawn = draws(seen, right, count)
        target, law = history["targets"][name], power_law(seen, right)
        needed = np.percentile([words_for(line, target) for line in drawn], (2.5, 97.5), method="nearest")
        rows.append([
            name, f"{-law[1]:.2f} ({-np.percentile(drawn[:, 1], 97.5):.2f} to {-np.percentile(drawn[:, 1], 2.5):.2f})",
            *(_between(seen, right, drawn, words) for words in ASKED), f"{target:.1f}",
            f"{_millions(words_for(law, target))} ({_millions(needed[0])} to {_millions(needed[1])})",
        ])  # fmt: skip
    heads = ("", "b", *(f"right at {words // 10**6} M words, %" for words in ASKED), "target, %", "M words to it")
    print(markdown(heads, rows))
    if args.chart:
        save_chart(history, args.chart)
    return 0


def points(history: dict[str, Any], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Words seen, and percent right of that set."""
    return tuple(np.array([run[key] for run in history["runs"]], float) for key in ("words", name))  # type: ignore[return-value]


def power_law(words: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(intercept, slope) of the logarithm of the error, over that of the words."""
    slope, intercept = np.polyfit(np.log(words), np.log(100 - right), 1)
    return np.array([intercept, slope])


def draws(words: np.ndarray, right: np.ndarray, count: int) -> np.ndarray:
    """(DRAWS, 2): the law of accuracies drawn anew, each out of `count` words."""
    random = np.random.default_rng(0)
    drawn = 100 * random.binomial(count, right / 100, (DRAWS, len(right))) / count
    return np.array([power_law(words, each) for each in drawn])


def right_at(line: np.ndarray, words: float) -> float:
    return 100 - float(np.exp(line[0] + line[1] * np.log(words)))


def words_for(line: np.ndarray, right: float) -> float:
    """Infinite where more words do not help, or next to nothing."""
    exponent = (np.log(100 - right) - line[0]) / line[1] if line[1] < 0 else np.inf
    return float(np.exp(exponent)) if exponent < 100 else np.inf


def _millions(words: float) -> str:
    return f"{words / 1e6:,.0f}" if words < MANY else f"over {MANY / 1e6:,.0f}"


def _between(seen: np.ndarray, right: np.ndarray, drawn: np.ndarray, words: float) -> str:
    low, high = np.percentile([right_at(line, words) for line in drawn], (2.5, 97.5))
    return f"{right_at(power_law(seen, right), words):.1f} ({low:.1f} to {high:.1f})"


def save_chart(history: dict[str, Any], path: Path) -> None:
    """history: as results/words-seen.json. Needs matplotlib: see check_chart."""
    below = "error of the bundled network after each of its runs, a power law, and the targets (dashed)"
    figure = new_figure(8.2, 4.8, "What would more words buy?", below, _SOURCE)
    axes = figure.subplots()
    wide = np.geomspace(5e5, 1e8, 60)
    for (name, count), colour in zip(history["sets"].items(), (BLUE, ORANGE)):
        seen, right = points(history, name)
        drawn = draws(seen, right, count)
        band = [[100 - right_at(line, words) for line in drawn] for words in wide]
        axes.fill_between(wide / 1e6, *np.percentile(band, (2.5, 97.5), axis=1), color=colour, alpha=0.15, linewidth=0)
        axes.plot(
            wide / 1e6, [100 - right_at(power_law(seen, right), words) for words in wide], color=colour, linewidth=1.2
        )
        axes.plot(seen / 1e6, 100 - right, "o", color=colour, markersize=5, label=name)
        axes.axhline(100 - history["targets"][name], color=colour, linewidth=1, linestyle="--")
    axes.axvline(ASKED[1] / 1e6, color=GREY, linewidth=0.8)
    logarithmic(axes, "x")
    logarithmic(axes, "y")
    axes.set(xlabel="words seen, millions", ylabel="words wrong, %", xlim=(wide[0] / 1e6, wide[-1] / 1e6))
    tidy(axes)
    add_legend(figure, _SOURCE)
    save(figure, path)


if __name__ == "__main__":
    sys.exit(run_script(PROGRAM, main))
