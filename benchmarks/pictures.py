"""What pictures cost the host before a network reads them, in CPU seconds: `python benchmarks/pictures.py`.

Host: decoded, resized by Pillow, normalised in float32 and checked, as where no GPU resizes. Staged: decoded and put
into the block that a GPU fetches (runtime/staging.py), all threads' time together. Decoded: that alone, which is in
both. Words: what is made of a network's numbers, by who called `read`, while the GPU waits.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from clip4str.benchmarks.devices import DEVICES
from clip4str.benchmarks.figures import markdown, quartiles
from clip4str.benchmarks.predictions import CONFIRM, predict_program
from clip4str.core.console import Parser, run_script
from clip4str.core.cpu import available_threads
from clip4str.core.errors import UsageError
from clip4str.core.machine_info import describe, machine_info
from clip4str.core.output_files import check_output, write_json
from clip4str.core.packaged import PACKAGED
from clip4str.model.sizes import SIZES, size_name
from clip4str.runtime import Recognizer
from clip4str.runtime.backends.contract import checked
from clip4str.runtime.images import IMAGE_SUFFIXES, load_image
from clip4str.runtime.loading import HostLoading
from clip4str.runtime.staging import Block, Stager, block_bytes

PROGRAM = "benchmarks/pictures.py"
CROPS = Path(__file__).resolve().parents[1] / "export" / "sample_crops"
PAGEABLE = 6.0  # GB/s of a copy from memory that is not pinned, through the driver's own
INSTRUCTIONS = 9  # of a warp for each output pixel of kernels/resize
Way = Callable[[Sequence[Any]], object]


class HostSlot:
    """A staging.Slot without a GPU. Sending costs the host a call for a whole batch, which is not counted."""

    def __init__(self, rows: int, size: tuple[int, int]) -> None:
        self.block = Block(np.zeros(block_bytes(rows, size), np.uint8), rows, size)
        self.sent = 0

    def send(self, count: int, normalization: str) -> None:
        self.sent += self.block.used

    def pixels(self, count: int, normalization: str) -> None:
        return None

    def close(self) -> None:
        return None


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(prog=PROGRAM, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--images", type=Path, default=CROPS, metavar="DIR", help="crops (default: export/sample_crops)")
    add("--networks", nargs="+", default=["small", "base16"], metavar="NAME", type=size_name, choices=list(SIZES),
        help=f"of {', '.join(SIZES)} (default: small base16)")  # fmt: skip
    add("--batch", type=int, default=64, metavar="N", help="pictures at a time (default: 64)")
    add("--turns", type=int, default=15, metavar="N", help="batches each way, in turn (default: 15)")
    add("--threads", type=int, default=available_threads(), metavar="N", help="that decode (default: all)")
    add("--device", default="h100", metavar="NAME", help="GPU whose images a second are predicted (default: h100)")
    add("--json", type=Path, metavar="FILE", help="write all figures as JSON")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    check_output(args.json)
    if min(args.batch, args.turns, args.threads) < 1:
        raise UsageError("--batch, --turns and --threads are 1 or more")
    if args.device not in DEVICES:
        raise UsageError(f"--device knows {', '.join(DEVICES)}, not {args.device!r}")
    paths = sorted(path for path in args.images.glob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise UsageError(f"{args.images}: no pictures there")
    paths = [paths[i % len(paths)] for i in range(args.batch)]
    info, rows = machine_info(args.threads), []
    print(describe(info))
    words = words_us(paths, args.turns)
    for network in args.networks:
        for kind, sources in (("files", paths), ("arrays", [np.array(load_image(path)) for path in paths])):
            row = {"network": network, "kind": kind, "size": SIZES[network].image_size, "batch": args.batch}
            rows.append(row | measure(sources, SIZES[network].image_size, args.threads, args.turns))
            rows[-1] |= {"words_us": words, **predicted(rows[-1], args.device, words["median"])}
    print(table(rows, DEVICES[args.device].name))
    if args.json is not None:
        write_json(args.json, {"machine": info, "images": str(args.images.name), "device": args.device, "rows": rows})
    return 0


def measure(sources: Sequence[Any], size: tuple[int, int], threads: int, turns: int) -> dict[str, Any]:
    """Microseconds of CPU time a picture, each way, with quartiles over turns; bytes a picture that a GPU fetches."""
    slot = HostSlot(len(sources), size)
    stager = Stager(size, len(sources), threads, lambda rows: slot)

    def host(images: Sequence[Any]) -> None:
        HostLoading(images, size, "half", checked).result()

    def staged(images: Sequence[Any]) -> None:
        loading = stager.load(images, "half")
        loading.result()
        loading.close()

    def decoded(images: Sequence[Any]) -> None:
        for image in images:
            if not isinstance(image, np.ndarray):
                load_image(image)

    ways: dict[str, Way] = {"host": host, "staged": staged, "decoded": decoded}
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(turns + 1):
        for name, way in ways.items():
            began = time.process_time()
            way(sources)
            if turn:  # the first warms up
                spent[name].append(1e6 * (time.process_time() - began) / len(sources))
    stager.close()
    figures = {f"{name}_us": quartiles(values) for name, values in spent.items()}
    share = figures["staged_us"]["median"] / figures["host_us"]["median"]
    return {**figures, "share": round(share, 4), "bytes": round(slot.sent / (turns + 1) / len(sources))}


def words_us(paths: Sequence[Path], turns: int) -> dict[str, float]:
    """Of a reading of the packaged network: microseconds a picture, with quartiles."""
    spent = []
    with Recognizer.load(PACKAGED, "onnxruntime", threads=1) as recognizer:
        paths = paths[: recognizer.batch_size]
        pixels = recognizer.prepare(paths)
        reading = recognizer.reading(pixels)
        recognizer.backend.read = lambda *_: reading  # type: ignore[method-assign]
        for _ in range(turns):
            began = time.process_time()
            recognizer._words(pixels)
            spent.append(1e6 * (time.process_time() - began) / len(paths))
    return quartiles(spent)


def predicted(row: dict[str, Any], name: str, words: float) -> dict[str, Any]:
    """Images a second of a float16 program on a device, from sources to words.

    Before: one thread prepares a batch, float32 goes up from pageable memory, then it is read. After: batches are
    decoded while others are read, the GPU fetches bytes and resizes; cores: that it takes for that. words: microseconds
    a picture.
    """
    device, config, n = DEVICES[name], SIZES[row["network"]], row["batch"]
    pixels = n * math.prod(row["size"])
    reading = predict_program(device, config, n)["total_us"]
    pageable = 4.0 * 3 * pixels / (PAGEABLE * 1e3)
    told = device.host * n * words
    before = told + device.host * n * row["host_us"]["median"] + pageable + reading
    fetched = row["bytes"] * n / (device.bus * 1e3) if device.bus else 0.0
    resized = pixels * INSTRUCTIONS / (device.multiprocessors * 4 * device.clock * 1e3)
    busy = told + reading + fetched + resized
    return {
        "status": CONFIRM,
        "reading_us": reading,
        "resize_us": resized,
        "before_per_second": 1e6 * n / before,
        "after_per_second": 1e6 * n / busy,
        "device_busy": (reading + resized) / busy,
        "cores": device.host * n * row["staged_us"]["median"] / busy,
    }


def table(rows: Sequence[dict[str, Any]], device: str) -> str:
    lines = [
        [row["network"], row["kind"], *(f"{row[f'{name}_us']['median']:.0f}" for name in ("host", "staged", "decoded")),
         f"{100 * row['share']:.1f} %", f"{row['before_per_second']:.0f}", f"{row['after_per_second']:.0f}",
         f"{row['cores']:.1f}", f"{100 * row['device_busy']:.0f} %"]
        for row in rows
    ]  # fmt: skip
    heads = ("network", "from", "host us", "staged us", "of which decoding", "share", "images/s before", "after",
             "cores for it", "GPU busy")  # fmt: skip
    words = rows[0]["words_us"]["median"]
    note = f"us: CPU time a picture, medians; words: {words:.0f} us. Images a second on {device}: {CONFIRM}."
    return f"{markdown(heads, lines, texts=2)}\n\n{note}"


if __name__ == "__main__":
    sys.exit(run_script(PROGRAM, main))
