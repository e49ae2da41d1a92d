"""A bundle in one file (clip4str export) beside the bundle's four stages and their driver: latency and words."""

from __future__ import annotations

import gc
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clip4str.benchmarks.bundle_options import bundle_parser
from clip4str.benchmarks.figures import markdown
from clip4str.core.console import run_script
from clip4str.core.cpu import available_threads
from clip4str.core.errors import UsageError
from clip4str.core.machine_info import machine_info
from clip4str.core.output_files import check_output, write_json
from clip4str.data.word_images import word_images
from clip4str.export.single_file.reader import SingleFile
from clip4str.export.single_file.write import Options, write_graph
from clip4str.runtime import Recognizer
from clip4str.runtime.bundle import Bundle
from clip4str.runtime.default_bundle import default_bundle

PROGRAM = "benchmarks/single_file.py"
FIXED = (3, 2)
_PAUSE = 0.01  # seconds between turns: no side's threads spin in the other's time
_EPILOG = """\
examples:
  python benchmarks/single_file.py --threads 1
  python benchmarks/single_file.py --bundle bundles/mine --words crops/ --json single-file.json

Both sides get normalised pixels and give words, on ONNX Runtime, in turn: A B A
B. The bundle's caption cache is off: a file keeps nothing from one call to the
next. Times are medians in milliseconds a batch; the ratio is the median of those
of turns side by side, by the clock and by processor time, which other work on
the machine changes less. Words: of all crops, read once in batches of that size.
"""

Side = Callable[[np.ndarray], list[str]]


def sides(bundle: Bundle, threads: int, folder: Path) -> tuple[Recognizer, dict[str, Side]]:
    """The bundle's driver first, then the forms of a single file."""
    recognizer = Recognizer.load(bundle.folder, "onnxruntime", threads=threads, cache_size=0,
                                 batch_size=bundle.manifest.max_batch)  # fmt: skip
    forms = {"exact": Options(), "exact, static": Options(static=True), "fixed": Options(passes=FIXED)}
    found: dict[str, Side] = {"bundle": lambda pixels: [word.text for word in recognizer.read_pixels(pixels)]}
    for name, options in forms.items():
        path = folder / f"{name}.onnx"
        write_graph(bundle, path, options)
        found[name] = SingleFile(path, threads).words
    return recognizer, found


def timed(
    sides: dict[str, Side], pixels: np.ndarray, batch: int, repeat: int, warmup: int = 2
) -> dict[str, list[tuple[float, float]]]:
    """Of every turn the seconds by the clock and of the processor."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    gc.collect()
    gc.disable()
    try:
        for repetition in range(-warmup, repeat):
            rows = np.ascontiguousarray(pixels[[(repetition * batch + i) % len(pixels) for i in range(batch)]])
            for name, read in sides.items():
                start = time.perf_counter(), time.process_time()
                read(rows)
                if repetition >= 0:
                    seconds[name].append((time.perf_counter() - start[0], time.process_time() - start[1]))
                time.sleep(_PAUSE)
    finally:
        gc.enable()
    return seconds


def report(sides: dict[str, Side], pixels: np.ndarray, batch: int, repeat: int) -> list[dict[str, Any]]:
    """A row for each side."""
    seconds, words = timed(sides, pixels, batch, repeat), {}
    for name, read in sides.items():
        words[name] = [word for i in range(0, len(pixels), batch) for word in read(pixels[i : i + batch])]
    rows = []
    for name, times in seconds.items():
        ratios = np.array(times) / np.array(seconds["bundle"])
        low, middle, high = np.percentile(ratios[:, 0], (25, 50, 75)).tolist()
        same = sum(a == b for a, b in zip(words[name], words["bundle"]))
        rows.append({
            "side": name, "batch": batch, "milliseconds": 1e3 * float(np.median(np.array(times)[:, 0])),
            "ratio": middle, "quartiles": [low, high], "processor_ratio": float(np.median(ratios[:, 1])),
            "equal_words": same, "words": len(pixels),
        })  # fmt: skip
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    parser = bundle_parser(PROGRAM, __doc__, _EPILOG, words=True)
    add = parser.add_argument
    add("--batch", type=int, nargs="+", default=[1, 8, 32], metavar="N", help="batch sizes (default: 1 8 32)")
    add("--threads", type=int, metavar="N", help="CPU threads (default: all this process may use)")
    add("--repeat", type=int, default=30, metavar="N", help="timed repetitions of a batch size (default: 30)")
    args = parser.parse_args(argv)
    if args.repeat < 1 or min(args.batch) < 1:
        raise UsageError("--repeat and --batch are 1 or more")
    check_output(args.json)
    bundle = Bundle.open(args.bundle or default_bundle())
    threads = args.threads or available_threads()
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        recognizer, found = sides(bundle, threads, Path(scratch))
        pixels = recognizer.prepare(word_images(args.words))
        for batch in args.batch:
            rows += report(found, pixels, batch, args.repeat)
    print(f"{bundle.manifest.name} {bundle.manifest.precision}, {threads} threads, {len(pixels)} crops\n")
    lines = [[row["batch"], row["side"], f"{row['milliseconds']:.1f}", f"{row['ratio']:.2f}",
              "{:.2f} to {:.2f}".format(*row["quartiles"]), f"{row['processor_ratio']:.2f}",
              f"{row['equal_words']} of {row['words']}"]
             for row in rows]  # fmt: skip
    print(markdown(("batch", "", "ms", "of the bundle's", "quartiles", "processor time", "equal words"), lines))
    if args.json:
        manifest = bundle.manifest
        write_json(args.json, {
            "rows": rows, "bundle": {"name": manifest.name, "precision": manifest.precision},
            "passes": FIXED, "threads": threads, "machine": machine_info(args.threads),
        })  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(run_script(PROGRAM, main))
