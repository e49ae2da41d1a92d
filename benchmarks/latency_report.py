"""From turns to figures and tables. Times are in milliseconds; latency columns are named as trtexec names them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from clip4str.benchmarks.figures import markdown
from clip4str.benchmarks.latency_sides import STAGES, Turn

AFTER_IMAGE = ("visual", "text", "cross", "host")
LATENCY = ("min", "max", "mean", "median", "percentile(90%)", "percentile(99%)")
NAMES = {"bundle": "clip4str", "bundle_warm": "clip4str, captions cached", "published": "published way"}


def batch_report(batch: int, turns: dict[str, list[Turn]], forced: bool = False) -> dict[str, Any]:
    """Figures of one batch size.

    turns: side ("bundle", "bundle_warm", "published") -> its turns, paired by place. forced: the words are
    made up, so there are none to compare.
    """
    report: dict[str, Any] = {"batch": batch, "repetitions": len(turns["bundle"])}
    for side, taken in turns.items():
        stages = _stages(taken)
        after = sum(stages[stage]["image_percent"] for stage in AFTER_IMAGE)
        report[side] = {**_latency(batch, taken), "stages": stages, "after_image_percent": round(after, 2)}
    report["passes"] = _passes(turns["bundle"])
    if turns.get("published"):
        report["ratio"] = _ratio(turns["published"], turns["bundle"])
        report["same_words"] = None if forced else _same_words(turns["bundle"], turns["published"])
    return report


def _latency(batch: int, turns: Sequence[Turn]) -> dict[str, float]:
    ms = np.array([turn.seconds for turn in turns]) * 1000
    values = (ms.min(), ms.max(), ms.mean(), np.median(ms), np.percentile(ms, 90), np.percentile(ms, 99))
    qps = 1000 / ms.mean()
    figures = {**dict(zip(LATENCY, values)), "throughput_qps": qps, "words_per_second": batch * qps}
    return {name: round(float(value), 3) for name, value in figures.items()}


def _stages(turns: Sequence[Turn]) -> dict[str, dict[str, float]]:
    """By stage: mean calls per batch; milliseconds per batch (median), per call, and in percent of the image tower."""
    medians = {stage: 1000 * float(np.median([turn.stages[stage] for turn in turns])) for stage in turns[0].stages}
    rows = {}
    for stage, ms in medians.items():
        calls = float(np.mean([turn.calls.get(stage, 0) for turn in turns]))
        each, percent = ms / calls if calls else 0.0, 100 * ms / medians["image"] if medians["image"] else 0.0
        figures = {"calls": calls, "ms": ms, "ms_per_call": each, "image_percent": percent}
        rows[stage] = {name: round(value, 3) for name, value in figures.items()}
    return rows


def _passes(turns: Sequence[Turn]) -> dict[str, float]:
    """The driver's counts, mean over batches."""
    counts = [asdict(turn.stats) for turn in turns if turn.stats is not None]
    return {name: round(float(np.mean([count[name] for count in counts])), 2) for name in counts[0]}


def _ratio(published: Sequence[Turn], bundle: Sequence[Turn]) -> dict[str, float]:
    """Speed-up: the ratio of medians, and quartiles of the ratio over pairs of turns."""
    pairs = np.array([theirs.seconds / ours.seconds for theirs, ours in zip(published, bundle)])
    of_medians = np.median([t.seconds for t in published]) / np.median([t.seconds for t in bundle])
    low, high = np.percentile(pairs, (25, 75))
    return {"of_medians": round(float(of_medians), 3), "quartile_1": round(float(low), 3),
            "quartile_3": round(float(high), 3)}  # fmt: skip


def _same_words(bundle: Sequence[Turn], published: Sequence[Turn]) -> dict[str, int]:
    pairs = [pair for ours, theirs in zip(bundle, published) for pair in zip(ours.words, theirs.words)]
    return {"words": len(pairs), "same": sum(a == b for a, b in pairs)}


def print_batch(report: dict[str, Any]) -> None:
    """Latency, stages and passes of one batch size."""
    print(f"\nbatch {report['batch']}, {report['repetitions']} repetitions, images in to words out\n")
    keys = (*LATENCY, "throughput_qps", "words_per_second")
    lines = [[NAMES[side], *(f"{report[side][key]:.2f}" for key in keys)] for side in NAMES if side in report]
    print(markdown(("Latency [ms]", *LATENCY, "Throughput qps", "words/s"), lines))
    if "ratio" in report:
        same = report["same_words"]
        agreement = f"; {same['same']} of {same['words']} words are the same" if same else ""
        print(f"{_times(report['ratio'])}{agreement}")
    _print_stages(report)
    p = {name: f"{value:g}" for name, value in report["passes"].items()}
    passes = f"{p['visual_passes']} visual, {p['cross_passes']} cross, {p['refine_passes']} refining"
    text = f"{p['text_calls']} text calls for {p['captions_encoded']} of {p['captions']} captions"
    print(f"passes a batch: {passes}; {text}")


def _print_stages(report: dict[str, Any]) -> None:
    sides = [side for side in ("bundle", "published") if side in report]
    ran = [stage for stage in STAGES if any(stage in report[side]["stages"] for side in sides)]
    heads, lines, after = ["stage"], [[stage] for stage in ran], ["after"]
    for side in sides:
        heads += [f"{NAMES[side]}: calls", "ms a batch", "ms a call", "% of image"]
        for line, stage in zip(lines, ran):
            row = report[side]["stages"].get(stage)
            calls = (f"{row['calls']:g}", f"{row['ms_per_call']:.2f}") if row and row["calls"] else ("", "")
            line += [calls[0], f"{row['ms']:.2f}", calls[1], f"{row['image_percent']:.1f}%"] if row else [""] * 4
        after += ["", "", "", f"{report[side]['after_image_percent']:.1f}%"]
    print(f"\n{markdown(heads, [*lines, after])}")


def _times(ratio: dict[str, float]) -> str:
    quartiles = f"{ratio['quartile_1']:.2f} to {ratio['quartile_3']:.2f}"
    return f"{ratio['of_medians']:.2f} times as fast as the published way (quartiles over pairs: {quartiles})"


def print_summary(reports: Sequence[dict[str, Any]]) -> None:
    """One line for each batch size: the most important figures."""
    print()
    for report in reports:
        ms = report["bundle"]["median"] / report["batch"]
        ratio = f", {_times(report['ratio'])}" if "ratio" in report else ""
        after = report["bundle"]["after_image_percent"]
        print(f"batch {report['batch']}: {ms:.2f} ms a word, after the image tower {after:.1f}% of its time{ratio}")
