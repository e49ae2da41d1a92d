"""clip4str bench: latency of a bundle, side by side with the published way of decoding."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from clip4str.benchmarks.forcing import Forcing
from clip4str.benchmarks.latency_chart import save_chart
from clip4str.benchmarks.latency_report import batch_report, print_batch, print_summary
from clip4str.benchmarks.latency_sides import BundleSide, PublishedSide
from clip4str.benchmarks.turns import take_turns
from clip4str.core.charts import check_chart
from clip4str.core.console import Parser
from clip4str.core.cpu import available_threads
from clip4str.core.errors import UsageError
from clip4str.core.machine_info import busy, describe, machine_info
from clip4str.core.output_files import check_output, write_json
from clip4str.data.word_images import word_images
from clip4str.runtime import Recognizer
from clip4str.runtime.bundle import file_sha256
from clip4str.runtime.default_bundle import default_bundle

_EPILOG = """\
examples:
  clip4str bench                          the newest bundle or the packaged network, batches of 1, 8, 32
  clip4str bench --words crops/ --batch 1 --threads 1
                                          your word crops, one thread
  clip4str bench --bundle bundles/mine --checkpoint mine.ckpt
                                          your own network
  clip4str bench --random-weights base16 --chart base16.png
                                          a size you have no checkpoint of

What is compared: `clip4str` is the bundle as Recognizer runs it; `published
way` is the same checkpoint decoded as in the published code (eager torch, one
step at a time, memory projected at every step, text tokenised on the host).
Both get the same images, threads and preparation, and take turns: A B A B.
The text features of captions are forgotten before every batch, unless the line
says cached. The row `after` adds up the rows below the image tower's, in
percent of it. The ratio is that of the medians; its quartiles are over turns
taken side by side.

Forced words: random weights read no words, so what they read is replaced, on
both sides alike, after everything has been computed. --force-length and
--force-passes do the same for any bundle: the length of words and the number of
passes decide what either way costs.
"""


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="clip4str bench",
        description="Latency per stage and end to end, side by side with the published way of decoding.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument_group("what to time").add_argument
    add("--bundle", metavar="DIR",
        help="default: $CLIP4STR_BUNDLE, else the newest in ./bundles, else the packaged network")  # fmt: skip
    add("--checkpoint", metavar="FILE", help="the checkpoint the bundle was built from (default: the bundled network)")
    add("--random-weights", metavar="SIZE", help="no bundle: an untrained small, base16, base32, large or huge")
    add("--precision", choices=("fp32", "fp16"), default="fp32", help="with --random-weights (default: fp32)")
    add("--keep", type=Path, metavar="DIR", help="with --random-weights: keep what was built here, and reuse it")
    add("--words", type=Path, metavar="DIR", help="word crops, or an LMDB set of them (default: the bundled crops)")
    add("--no-published", action="store_true", help="time the bundle alone; needs no torch")
    add = parser.add_argument_group("how to time it").add_argument
    add("--batch", type=int, nargs="+", default=[1, 8, 32], metavar="N", help="batch sizes (default: 1 8 32)")
    add("--threads", type=int, metavar="N", help="CPU threads of both sides (default: all this process may use)")
    add("--backend", default="auto", help="auto, onnxruntime, openvino or torch on a CPU (default: auto)")
    add("--dtype", help="of torch: float16, bfloat16 or float32; of openvino: float32 or bfloat16")
    add("--repeat", type=int, default=30, metavar="N", help="timed repetitions of a batch size (default: 30)")
    add("--seconds", type=float, default=60, metavar="S", help="fewer, if they take longer than this (default: 60)")
    add("--warmup", type=int, default=2, metavar="N", help="untimed repetitions first (default: 2)")
    add = parser.add_argument_group("forced words", "what random weights are made to read").add_argument
    add("--force-length", type=int, metavar="N", help="characters a word (default: 6)")
    add("--force-passes", type=int, nargs=2, metavar=("V", "C"), help="visual and cross-modal passes (default: 3 3)")
    add("--force-text-calls", type=int, metavar="N", help="1, or 2: refining changes the caption (default: 1)")
    add = parser.add_argument_group("output").add_argument
    add("--json", type=Path, metavar="FILE", help="write all figures as JSON")
    add("--chart", type=Path, metavar="FILE", help="draw a bar chart (.png, .svg or .pdf)")
    add("--quiet", action="store_true", help="no progress bar")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    _check(args)
    forcing, threads = _forcing(args), args.threads or available_threads()
    images = word_images(args.words)
    with ExitStack() as stack:
        if args.random_weights:
            folder = args.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
            bundle, checkpoint = _random(args, folder)
        else:
            bundle, checkpoint = Path(args.bundle or default_bundle()), args.checkpoint
        recognizer = Recognizer.load(bundle, args.backend, threads=threads, dtype=args.dtype)
        most, largest = recognizer.manifest.max_batch, max(args.batch)
        if largest > most:
            raise UsageError(f"--batch {largest}: the bundle takes at most {most} images")
        ours = BundleSide(recognizer, forcing)
        sides: dict[str, Any] = {"bundle": ours.turn, "bundle_warm": partial(ours.turn, warm=True)}
        if not args.no_published:
            sides["published"] = PublishedSide(_checkpoint(recognizer, checkpoint), recognizer, threads, forcing).turn
        info, name = machine_info(threads), f"{recognizer.manifest.name} ({_computed(args, recognizer)})"
        print(f"{describe(info)}\n{name}, {len(images)} images, {_threads(threads)}")
        if forcing:
            print(forcing.describe())
        reports = []
        for batch in args.batch:
            turns = take_turns(sides, images, batch, args.repeat, args.warmup, args.seconds, not args.quiet)
            reports.append(batch_report(batch, turns, forced=forcing is not None))
            print_batch(reports[-1])
    print_summary(reports)
    if busy(info):
        print(f"taken while other work ran (load {info['load_before']}): not figures to compare")
    _write(args, recognizer, reports, info, forcing)
    return 0


def _write(
    args: argparse.Namespace,
    recognizer: Recognizer,
    reports: list[dict[str, Any]],
    info: dict[str, Any],
    forcing: Forcing | None,
) -> None:
    manifest = recognizer.manifest
    if args.json:
        figures = {
            "machine": info,
            "bundle": manifest.name,
            "precision": manifest.precision,
            "backend": recognizer.backend.name,
            "dtype": args.dtype,
            "checkpoint": manifest.checkpoint,
            "forced": asdict(forcing) if forcing else None,
            "batches": reports,
        }
        write_json(args.json, figures)
    if args.chart:
        words = f", words of {forcing.length} characters (forced)" if forcing else ""
        title = f"{manifest.name} ({_computed(args, recognizer)}), {_threads(info['threads'])}{words}, {info['cpu']}"
        title += " (taken while other work ran: not figures to compare)" if busy(info) else ""
        save_chart(reports, args.chart, title)


def _check(args: argparse.Namespace) -> None:
    for name, low in (("repeat", 1), ("warmup", 0), ("threads", 1)):
        value = getattr(args, name)
        if value is not None and value < low:
            raise UsageError(f"--{name} is {low} or more, not {value}")
    if min(args.batch) < 1:
        raise UsageError(f"--batch is 1 or more, not {min(args.batch)}")
    if args.random_weights or not args.no_published:
        try:
            import torch  # noqa: F401
        except ImportError:
            raise UsageError("this needs torch: pip install 'clip4str[bench]', or give --no-published") from None
    if args.random_weights and (args.bundle or args.checkpoint):
        raise UsageError("--random-weights builds its own bundle: leave out --bundle and --checkpoint")
    check_output(args.json)
    check_chart(args.chart)
    if args.keep is not None and args.keep.exists() and not args.keep.is_dir():
        raise UsageError(f"{args.keep}: is not a folder to keep a checkpoint and bundle in")


def _forcing(args: argparse.Namespace) -> Forcing | None:
    wanted = (args.force_length, args.force_passes, args.force_text_calls)
    if not args.random_weights and all(value is None for value in wanted):
        return None
    visual, cross = args.force_passes or (3, 3)
    length = 6 if args.force_length is None else args.force_length
    return Forcing(length, visual, cross, 1 if args.force_text_calls is None else args.force_text_calls)


def _random(args: argparse.Namespace, folder: Path) -> tuple[Path, str]:
    from clip4str.benchmarks.random_weights import random_bundle, random_checkpoint
    from clip4str.model.sizes import SIZES, size_name

    args.random_weights = size_name(args.random_weights)
    if args.random_weights not in SIZES:
        raise UsageError(f"--random-weights is one of {', '.join(SIZES)}, not {args.random_weights!r}")
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / f"clip4str-{args.random_weights}-random.safetensors"
    bundle = folder / f"{checkpoint.stem}-{args.precision}"
    if not (checkpoint.is_file() and (bundle / "manifest.json").is_file()):
        print(f"building a random {args.random_weights} network, about a minute for base16 ...", flush=True)
        random_bundle(random_checkpoint(args.random_weights, folder), folder, args.precision, max(32, *args.batch))
    return bundle, str(checkpoint)


def _computed(args: argparse.Namespace, recognizer: Recognizer) -> str:
    """The files' precision, what computes, and in what."""
    said = (recognizer.manifest.precision, recognizer.backend.name, args.dtype)
    return ", ".join(filter(None, said))


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count > 1 else ''}"


def _checkpoint(recognizer: Recognizer, given: Any) -> str:
    """The checkpoint that the bundle was built from. Raises UsageError for any other: times would not compare."""
    from clip4str.model.checkpoint import BUNDLED

    path, source = Path(given or BUNDLED), recognizer.manifest.checkpoint
    expected = source.get("sha256")
    if not path.is_file() or (expected and file_sha256(path) != expected):
        raise UsageError(
            f"the bundle was built from {source.get('name', 'another checkpoint')}, not from {path.name}; "
            f"name it with --checkpoint, or time the bundle alone with --no-published"
        )
    return str(path)


if __name__ == "__main__":
    from clip4str.core.cli import main as run_command  # one-line errors and exit code 2

    sys.exit(run_command(["bench", *sys.argv[1:]]))
