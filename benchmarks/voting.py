"""What voting over frames is worth: rules side by side on simulated tracks, and how far the voted word's confidence is
true."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clip4str.benchmarks.calibration_figures import figures as calibration_of
from clip4str.benchmarks.calibration_figures import reliability
from clip4str.benchmarks.figures import markdown
from clip4str.benchmarks.vote_rules import RULES, Read, voted
from clip4str.benchmarks.word_options import check_word_options, finish, word_parser
from clip4str.core.charts import check_chart
from clip4str.core.console import run_script
from clip4str.core.errors import UsageError
from clip4str.core.machine_info import describe, machine_info
from clip4str.data.labelled_words import choose_sets, labelled
from clip4str.data.protocol import Protocol
from clip4str.data.word_lmdb import LmdbWords
from clip4str.runtime import Recognizer

PROGRAM = "benchmarks/voting.py"
_EPILOG = """\
examples:
  python benchmarks/voting.py --data data/train/real --sets MLT17_photos_pseudo --limit 2000
  python benchmarks/voting.py --data data/train/real --sets IC15 --fit

A track is a real word in --frames frames, each smeared, shrunken, noisy, compressed
and cut out otherwise. Rules are compared on the same reads; differences to the
first rule with 95 % intervals, words drawn anew 2,000 times.
"""
DRAWS = 2000


def build_parser() -> argparse.ArgumentParser:
    parser = word_parser(PROGRAM, __doc__, _EPILOG)
    add = parser.add_argument
    add("--frames", type=int, default=8, metavar="N", help="of each track (default: %(default)s)")
    add("--seed", type=int, default=0, metavar="N", help="of the damage done to frames")
    add("--bundle", type=Path, metavar="DIR", help="(default: the packaged network)")
    add("--fit", action="store_true", help="fit the coefficients of the voted word's confidence, and print them")
    add("--chart", type=Path, metavar="FILE", help="draw the voted word's reliability")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    check_word_options(args)
    check_chart(args.chart)
    if not 1 <= args.frames <= 100:
        raise UsageError(f"--frames is 1 to 100, not {args.frames}")
    info = machine_info(args.threads)
    recognizer = Recognizer.load(args.bundle, threads=args.threads)
    protocol = Protocol()
    tracks: list[list[Read]] = []
    labels: list[str] = []
    for name, folder in choose_sets(args.data, args.sets).items():
        with LmdbWords(folder) as data:
            words = [(w.pixels, w.label) for w in labelled(data, protocol, args.limit) if w.pixels is not None]
        print(f"{name}: {len(words)} words in {args.frames} frames each, {describe(info)}", flush=True)
        tracks += [simulated(recognizer, pixels, args.frames, args.seed + i) for i, (pixels, _) in enumerate(words)]
        labels += [label for _, label in words]
    if not tracks:
        raise UsageError("no words to read")
    rows = compare(tracks, labels, protocol)
    lines = [[r["rule"], r["percent"], _between(r)] for r in rows]
    print(f"\n{markdown(('rule', '% right', 'difference'), lines)}\n")
    confidence, right = judged(tracks, labels, protocol)
    if args.fit:
        print("INTERCEPT, AGREED, BEST, AGAINST =", np.round(fit(tracks, right), 2).tolist())
    figures: dict[str, Any] = {
        "rules": rows,
        "calibration": calibration_of(confidence, right).to_json(),
        "bins": reliability(confidence, right),
    }
    print(f"voted confidence: expected calibration error {100 * figures['calibration']['ece']:.1f} %")
    if args.chart:
        from clip4str.benchmarks.voting_chart import save_chart

        save_chart(figures, len(tracks), args.frames, args.chart)
    finish(args, info, {**figures, "tracks": len(tracks), "frames": args.frames, "bundle": recognizer.manifest.name})
    return 0


def simulated(recognizer: Recognizer, pixels: np.ndarray, frames: int, seed: int) -> list[Read]:
    random = np.random.default_rng(seed)
    read = recognizer.read([damaged(pixels, random) for _ in range(frames)])
    return [(word.text, word.confidence, word.char_confidences) for word in read]


def damaged(pixels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A word as one frame of a video has it: cut out a little otherwise, shrunken, smeared by motion, noisy,
    compressed. Every kind of damage is drawn anew, from none to more than can be read."""
    import cv2

    height, width = pixels.shape[:2]
    cut = random.uniform(-0.06, 0.06, 4) * (height, height, height, height)
    shape = np.array([[cut[0], cut[1]], [width + cut[2], cut[1]], [width + cut[2], height + cut[3]]], np.float32)
    shape += random.normal(0, 0.02 * height, (3, 2)).astype(np.float32)
    small = int(np.clip(random.lognormal(np.log(18), 0.45), 7, max(8, height)))
    wide = max(4, round(width * small / height))
    target = np.array([[0, 0], [width, 0], [width, height]], np.float32)
    cut_out = cv2.warpAffine(pixels, cv2.getAffineTransform(shape, target), (width, height),
                             borderMode=cv2.BORDER_REPLICATE)  # fmt: skip
    seen = cv2.resize(cut_out, (wide, small), interpolation=cv2.INTER_AREA)
    length = int(random.exponential(1.5) * small / 16)
    if length:
        angle = random.uniform(0, np.pi)
        kernel = np.zeros((2 * length + 1, 2 * length + 1), np.float32)
        end = (round(length * np.cos(angle)), round(length * np.sin(angle)))
        cv2.line(kernel, (length - end[0], length - end[1]), (length + end[0], length + end[1]), 1.0)
        seen = cv2.filter2D(seen, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REPLICATE)
    noisy = seen + random.normal(0, random.uniform(1, 12), seen.shape)
    quality = int(random.uniform(25, 90))
    _, packed = cv2.imencode(".jpg", noisy.clip(0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR))


def compare(tracks: Sequence[list[Read]], labels: Sequence[str], protocol: Protocol) -> list[dict[str, Any]]:
    """One row a rule, and each frame alone: percent right, and the difference to the first rule with its interval."""
    right = {
        name: np.array([protocol.prediction(rule(reads)) == label for reads, label in zip(tracks, labels)], float)
        for name, rule in RULES.items()
    }
    right["each frame alone"] = np.array([
        np.mean([protocol.prediction(text) == label for text, _, _ in reads]) for reads, label in zip(tracks, labels)
    ])  # fmt: skip
    random = np.random.default_rng(0)
    chosen = random.integers(0, len(tracks), (DRAWS, len(tracks)))
    base = next(iter(right.values()))
    rows = []
    for name, values in right.items():
        low, high = np.percentile(100 * (values - base)[chosen].mean(1), (2.5, 97.5))
        rows.append({
            "rule": name, "percent": round(100 * float(values.mean()), 1),
            "difference": round(100 * float((values - base).mean()), 1),
            "low": round(float(low), 1), "high": round(float(high), 1),
        })  # fmt: skip
    return rows


def _between(row: dict[str, Any]) -> str:
    if not row["difference"] and row["low"] == row["high"]:
        return "0"
    return f"{row['difference']:+.1f} ({row['low']:+.1f} to {row['high']:+.1f})"


def judged(tracks: Sequence[list[Read]], labels: Sequence[str], protocol: Protocol) -> tuple[np.ndarray, np.ndarray]:
    """Confidence and rightness of voted words, those after two and four frames, too: videos end early."""
    confidence, right = [], []
    for reads, label in zip(tracks, labels):
        for count in {2, 4, len(reads)}:
            result = voted(reads[:count]).result
            if result.text:
                confidence.append(result.confidence)
                right.append(protocol.prediction(result.text) == label)
    return np.array(confidence), np.array(right)


def fit(tracks: Sequence[list[Read]], right: np.ndarray) -> np.ndarray:
    """Coefficients of clip4str.video.vote's logistic regression, by Newton's method."""
    rows = []
    for reads in tracks:
        for count in {2, 4, len(reads)}:
            vote = voted(reads[:count])
            if vote.result.text:
                rows.append((1.0, *vote.evidence))
    x, weights = np.array(rows), np.zeros(4)
    for _ in range(50):
        p = 1 / (1 + np.exp(-x @ weights))
        gradient = x.T @ (right - p) - 1e-3 * weights
        weights += np.linalg.solve((x * (p * (1 - p))[:, None]).T @ x + 1e-3 * np.eye(4), gradient)
    return weights


if __name__ == "__main__":
    sys.exit(run_script(PROGRAM, main))
