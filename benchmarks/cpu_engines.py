"""One bundle on a CPU by ONNX Runtime and by OpenVINO in float32 and bfloat16: time of the image tower in turns, and
with --data words read right and words that differ."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clip4str.benchmarks.figures import accuracy, between, markdown, percent, quartiles
from clip4str.benchmarks.word_options import check_word_options, finish, word_parser
from clip4str.core.console import run_script
from clip4str.core.errors import DataError, UsageError
from clip4str.core.machine_info import describe, machine_info
from clip4str.data.labelled_words import choose_sets, labelled
from clip4str.data.protocol import Protocol
from clip4str.data.word_lmdb import LmdbWords
from clip4str.runtime import Recognizer
from clip4str.runtime.default_bundle import default_bundle
from clip4str.runtime.openvino_core import has_bfloat16

_EPILOG = """\
examples:
  python benchmarks/cpu_engines.py --data data/test --sets SVT CUTE80
  clip4str bench --random-weights base16 --keep b16 --no-published     # builds b16/clip4str-base16-random-fp32
  python benchmarks/cpu_engines.py --bundle b16/clip4str-base16-random-fp32 --threads 2

Ratios are of times of the same round to ONNX Runtime's. bfloat16 is left out on a processor that has no instructions
for it.
"""
ENGINES = {"onnxruntime": ("onnxruntime", None), "openvino": ("openvino", None),
           "openvino, bfloat16": ("openvino", "bfloat16")}  # fmt: skip


def build_parser() -> argparse.ArgumentParser:
    parser = word_parser("benchmarks/cpu_engines.py", __doc__, _EPILOG, data=False)
    add = parser.add_argument
    add("--bundle", type=Path, metavar="DIR", help="bundle to read with (default: the newest)")
    add("--batch", type=int, nargs="+", default=[1, 16], metavar="N", help="images at a time (default: 1 16)")
    add("--repeat", type=int, default=30, metavar="N", help="rounds (default: 30)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    check_word_options(args)
    if min(*args.batch, args.repeat) < 1:
        raise UsageError("--batch and --repeat are 1 or more")
    bundle, info = args.bundle or default_bundle(), machine_info(args.threads)
    engines = _opened(bundle, args.threads, max(args.batch))
    if max(args.batch) > (most := next(iter(engines.values())).manifest.max_batch):
        raise UsageError(f"--batch {max(args.batch)}: the bundle takes at most {most} images")
    name = next(iter(engines.values())).manifest.name
    print(f"{name}, {describe(info)}")
    towers = [row for batch in args.batch for row in towers_in_turn(engines, batch, args.repeat)]
    rows = [
        [
            row["engine"],
            row["batch"],
            f"{row['ms']['median']:.2f}",
            f"{row['ratio']['median']:.2f} ({between(row['ratio'])})",
        ]
        for row in towers
    ]
    print(markdown(("image tower by", "images", "ms", "ratio"), rows))
    words: list[dict[str, Any]] = []
    for each, folder in choose_sets(args.data, args.sets).items() if args.data else ():
        words += read(engines, each, folder, args.limit)
    if words:
        rows = [
            [row["engine"], row["set"], percent(row["right"]), row["differ"], f"{row['ms_a_word']:.2f}"]
            for row in words
        ]
        print(markdown(("words by", "set", "right, %", "differ", "ms a word"), rows, texts=2))
    finish(args, info, {"bundle": name, "towers": towers, "words": words})
    return 0


def _opened(bundle: Path, threads: int, batch: int) -> dict[str, Recognizer]:
    return {
        name: Recognizer.load(
            bundle, backend, threads=threads, dtype=dtype, batch_size=batch, cache_size=0,
            providers=["CPU"] if backend == "onnxruntime" else None,
        )
        for name, (backend, dtype) in ENGINES.items()
        if dtype is None or has_bfloat16()
    }  # fmt: skip


def towers_in_turn(engines: dict[str, Recognizer], batch: int, rounds: int) -> list[dict[str, Any]]:
    """A row for each engine: ms of a batch, and its ratio to the first engine's, quartiles over rounds."""
    first = next(iter(engines.values()))
    height, width = first.manifest.image_size
    pixels = np.random.default_rng(0).uniform(-1, 1, (batch, 3, height, width)).astype(np.float32)
    times: dict[str, list[float]] = {name: [] for name in engines}
    for number in range(rounds + 2):
        for name, engine in engines.items():
            began = time.perf_counter()
            engine.backend.image(pixels)
            if number >= 2:
                times[name].append(1000 * (time.perf_counter() - began))
    base = np.array(next(iter(times.values())))
    return [
        {"engine": name, "batch": batch, "ms": quartiles(np.array(taken)), "ratio": quartiles(np.array(taken) / base)}
        for name, taken in times.items()
    ]


def read(engines: dict[str, Recognizer], name: str, folder: Path, limit: int | None) -> list[dict[str, Any]]:
    """A row for each engine: what it read of a set, in full batches, and how many words the first read otherwise."""
    protocol = Protocol()
    with LmdbWords(folder) as data:
        words = [(word.pixels, word.label) for word in labelled(data, protocol, limit) if word.pixels is not None]
    if not words:
        raise DataError(f"{folder}: the words asked for have no picture that can be read")
    rows: list[dict[str, Any]] = []
    texts: list[list[str]] = []
    for engine, recognizer in engines.items():
        began = time.perf_counter()
        texts.append([protocol.prediction(word.text) for word in recognizer.read([pixels for pixels, _ in words])])
        right = [text == label for text, (_, label) in zip(texts[-1], words)]
        differ = sum(a != b for a, b in zip(texts[-1], texts[0]))
        rows.append({"engine": engine, "set": name, "words": len(words), "right": accuracy(right), "differ": differ,
                     "ms_a_word": 1000 * (time.perf_counter() - began) / len(words)})  # fmt: skip
    return rows


if __name__ == "__main__":
    raise SystemExit(run_script("cpu_engines", main))
