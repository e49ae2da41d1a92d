"""Words of generated videos, beside the truth: how many are read right, in how many tracks, when, and what it costs."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from clip4str.benchmarks.figures import markdown
from clip4str.benchmarks.scenes.scene import Recipe, Video
from clip4str.benchmarks.scenes.score import Score, score
from clip4str.benchmarks.scenes.truth import Truth
from clip4str.core.charts import check_chart
from clip4str.core.console import Parser, run_script
from clip4str.core.errors import DataError, UsageError
from clip4str.core.machine_info import busy, describe, machine_info
from clip4str.core.output_files import check_output, write_json
from clip4str.runtime import Recognizer
from clip4str.video.detect import Detector, engine_beside, open_detector
from clip4str.video.events import Statistics, WordEnded
from clip4str.video.frames import Frame
from clip4str.video.photo import read_quads
from clip4str.video.reader import VideoReader
from clip4str.video.sources import open_source

PROGRAM = "benchmarks/video.py"
_EPILOG = """\
examples:
  python benchmarks/video.py --videos 20 --json video.json --chart video.png
  python benchmarks/video.py --videos 5 --read-all --per-frame
  python benchmarks/video.py --videos 5 --real-time --threads 2

Videos are generated: signs on a wall past which a camera goes, some moving, some
coming and going at once, posts passing before them, two scenes with a cut; shaken,
smeared, noisy, compressed as MPEG-4. CPU time is of all threads, without making
the video. --per-frame reads every word in eight of its frames, each alone.
"""
PER_WORD = 8
CHOSEN = "chosen reads"


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=PROGRAM, description=__doc__, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--videos", type=int, default=10, metavar="N", help="(default: %(default)s)")
    add("--frames", type=int, default=90, metavar="N", help="of each of the two scenes (default: %(default)s)")
    add("--seed", type=int, default=0, metavar="N")
    add("--threads", type=int, default=1, metavar="N", help="CPU threads (default: 1)")
    add("--detect-every", type=int, metavar="N", help="frames from search to search (default: by motion)")
    add("--lines", action="store_true", help="do not cut lines into words")
    add("--variable", action="store_true", help="frames of unequal length, not compressed")
    add(
        "--beside-bfloat16",
        action="store_true",
        help="also with OpenVINO in bfloat16, video by video in turns, to see what that is worth",
    )
    add("--read-all", action="store_true", help="also with every crop read, to see what is lost by reading few")
    add("--per-frame", action="store_true", help="also single frames' reads, to see what voting is worth")
    add("--real-time", action="store_true", help="only play the files as a camera would, and count what is dropped")
    add(
        "--backend",
        choices=("onnxruntime", "openvino"),
        default="onnxruntime",
        help="what computes detector and recogniser (default: %(default)s)",
    )
    add("--dtype", choices=("float32", "bfloat16"), help="of openvino (default: float32)")
    add("--bundle", type=Path, metavar="DIR", help="(default: the packaged network)")
    add("--json", type=Path, metavar="FILE", help="write all figures as JSON")
    add("--chart", type=Path, metavar="FILE", help="draw where the time goes")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    if args.videos < 1 or args.frames < 10 or args.threads < 1:
        raise UsageError("--videos and --threads are 1 or more, --frames 10 or more")
    check_output(args.json)
    check_chart(args.chart)
    info = machine_info(args.threads)
    cv2.setNumThreads(args.threads)
    recognizer, detector = opened(args, args.backend, args.dtype)
    by = f"{args.backend}, {args.dtype or 'float32'}"
    print(f"{args.videos} videos, {by}, {describe(info)}", flush=True)
    recipe = Recipe(frames=args.frames, variable=args.variable)
    if args.real_time:
        return played(args, recognizer, detector, recipe, {**info, "computed_by": by})
    sides = {CHOSEN: Side(recognizer, detector)}
    if args.read_all:
        sides["every crop read"] = Side(recognizer, detector, read_all=True)
    if args.beside_bfloat16:
        sides["openvino, bfloat16"] = Side(*opened(args, "openvino", "bfloat16"))
    frames, alone = 0, []
    for number in range(args.videos):
        taken, truth = generated(recipe, args.seed + number, args.variable)
        frames += len(taken)
        for side in sides.values():
            side.read(taken, truth, args.detect_every)
        if args.per_frame:
            alone += single_reads(recognizer, taken, truth)
        so_far = sides[CHOSEN].score
        print(f"video {number + 1}: {so_far.right} of {so_far.words} words right so far", flush=True)
    costs = {name: side.costs(frames) for name, side in sides.items()}
    figures = {
        **{name: summary(side.score) for name, side in sides.items()},
        **costs.pop(CHOSEN),
        "beside": costs,
        "frames": frames,
        "computed_by": by,
        "per_frame_right": round(100 * float(np.mean(alone)), 1) if alone else None,
    }
    print_tables(figures)
    if busy(info):
        print(f"taken while other work ran (load {info['load_before']}): times are too long")
    if args.json:
        write_json(args.json, {**figures, "recipe": vars(recipe), "videos": args.videos, "machine": info,
                               "wrong": sides[CHOSEN].score.wrong})  # fmt: skip
    if args.chart:
        from clip4str.benchmarks.video_chart import save_chart

        save_chart(figures, args.videos, args.chart)
    return 0


@dataclass
class Side:
    """One way to read the same videos, and what it has found and taken so far."""

    recognizer: Recognizer
    detector: Detector
    read_all: bool = False
    score: Score = field(default_factory=Score)
    seconds: float = 0.0  # of CPU time, all threads
    crops: int = 0
    reads: int = 0
    spent: dict[str, float] = field(default_factory=dict)  # milliseconds by the clock

    def read(self, taken: Sequence[Frame], truth: Truth, detect_every: int | None) -> None:
        reader = VideoReader(self.recognizer, self.detector, detect_every=detect_every, read_all=self.read_all)
        began = time.process_time()
        events = [event for frame in taken for event in reader.push(frame)] + reader.finish()
        self.seconds += time.process_time() - began
        self.score.add(score([e for e in events if isinstance(e, WordEnded)], truth))
        last = [e for e in events if isinstance(e, Statistics)][-1]
        self.crops, self.reads = self.crops + last.crops, self.reads + last.reads
        for stage, value in last.milliseconds.items():
            self.spent[stage] = self.spent.get(stage, 0.0) + value

    def costs(self, frames: int) -> dict[str, Any]:
        return {
            "cpu_ms_per_frame": round(1000 * self.seconds / frames, 2),
            "stages_ms_per_frame": {stage: round(value / frames, 2) for stage, value in self.spent.items()},
            "share_read": round(100 * self.reads / max(1, self.crops), 1),
        }


def opened(args: argparse.Namespace, backend: str, dtype: str | None) -> tuple[Recognizer, Detector]:
    recognizer = Recognizer.load(args.bundle, backend, threads=args.threads, dtype=dtype)
    how = engine_beside(backend, dtype)
    return recognizer, open_detector("auto", words=not args.lines, threads=args.threads, **how)


def played(
    args: argparse.Namespace, recognizer: Recognizer, detector: Detector, recipe: Recipe, info: dict[str, Any]
) -> int:
    """Files at their own pace, as a live source: what had to be dropped, and what is read all the same."""
    total, rows = Score(), []
    frames = dropped = 0
    for number in range(args.videos):
        video = Video(recipe, *words_and_faces(), args.seed + number)
        with tempfile.TemporaryDirectory() as folder:
            path = written(video, recipe, Path(folder, "video.mp4"))
            reader = VideoReader(recognizer, detector, detect_every=args.detect_every)
            began, used = time.perf_counter(), time.process_time()
            with open_source(path, live=True) as source:
                events = list(reader.run(source))
            took, used = time.perf_counter() - began, time.process_time() - used
        total.add(score([e for e in events if isinstance(e, WordEnded)], video.truth))
        last = [e for e in events if isinstance(e, Statistics)][-1]
        rows.append({"frames": last.frames, "dropped": last.dropped, "seconds": round(took, 2),
                     "cores": round(used / took, 2)})  # fmt: skip
        frames, dropped = frames + last.frames, dropped + last.dropped
        print(f"video {number + 1}: {last.frames} frames read, {last.dropped} dropped, {took:.1f} s", flush=True)
    height, width = recipe.size
    right = summary(total)
    print(f"{width}x{height} at {recipe.rate:g} a second: {dropped} of {frames + dropped} frames dropped, "
          f"{np.mean([row['cores'] for row in rows]):.2f} cores busy, {right['right']} % of "
          f"{total.words} words right")  # fmt: skip
    if busy(info):
        print(f"taken while other work ran (load {info['load_before']}): more is dropped than would be")
    if args.json:
        write_json(
            args.json,
            {**right, "frames": frames, "dropped": dropped, "played": rows, "recipe": vars(recipe), "machine": info},
        )
    return 0


def generated(recipe: Recipe, seed: int, variable: bool) -> tuple[list[Frame], Truth]:
    """Frames as a decoder gives them, and the truth."""
    video = Video(recipe, *words_and_faces(), seed)
    pictures: Iterator[np.ndarray] = iter(video) if variable else compressed(video, recipe)
    times = video.truth.times
    frames = [Frame(pixels, times[i], i, duration=None if variable else times[i + 1] - times[i])
              for i, pixels in enumerate(pictures)]  # fmt: skip
    if len(frames) != len(video):
        raise DataError(f"the codec gave {len(frames)} of {len(video)} frames back")
    return frames, video.truth


def compressed(video: Video, recipe: Recipe) -> Iterator[np.ndarray]:
    """Through a file and back, as MPEG-4."""
    with tempfile.TemporaryDirectory() as folder:
        path = written(video, recipe, Path(folder, "video.mp4"))
        capture = cv2.VideoCapture(str(path))
        while True:
            ok, picture = capture.read()
            if not ok:
                break
            yield np.ascontiguousarray(picture[..., ::-1])
        capture.release()


def written(video: Video, recipe: Recipe, path: Path) -> Path:
    """As MPEG-4 into a file."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), recipe.rate, recipe.size[::-1])
    for picture in video:
        writer.write(picture[..., ::-1])
    writer.release()
    return path


def words_and_faces() -> tuple[list[str], list[Path]]:
    """Common words of 3 to 10 letters, and the plain faces that every machine with matplotlib has."""
    import matplotlib

    from clip4str.training.provide import frequent_words

    folder = Path(matplotlib.get_data_path(), "fonts/ttf")
    names = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSans-Oblique", "DejaVuSansMono")
    words = [word for word in frequent_words()[200:6000] if 3 <= len(word) <= 10]
    return words, [folder / f"{name}.ttf" for name in names]


def single_reads(recognizer: Recognizer, frames: Sequence[Frame], truth: Truth) -> list[float]:
    """Of each word that counts the share of single frames that read it right: eight of those that show all of it."""
    shares = []
    for word in truth.words:
        whole = sorted(word.whole)
        if len(whole) < 5:
            continue
        chosen = [whole[i] for i in np.linspace(0, len(whole) - 1, min(PER_WORD, len(whole))).astype(int)]
        reads = [read_quads(recognizer, frames[i], grown(word.quads[i])[None])[0].word.text for i in chosen]
        shares.append(float(np.mean([read.casefold() == word.text.casefold() for read in reads])))
    return shares


def grown(quad: np.ndarray) -> np.ndarray:
    """With the margin that a detector's quads have: a sixth of the height."""
    up = (quad[0] - quad[3] + quad[1] - quad[2]) / 2
    along = (quad[1] - quad[0] + quad[2] - quad[3]) / 2
    along = along / max(float(np.linalg.norm(along)), 1e-6) * np.linalg.norm(up)
    signs = np.array([[1, -1], [1, 1], [-1, 1], [-1, -1]])
    return (quad + (signs[:, :1] * up + signs[:, 1:] * along) / 6).astype(np.float32)


def summary(total: Score) -> dict[str, Any]:
    count = max(1, total.words)
    return {
        "words": total.words,
        "right": round(100 * total.right / count, 1),
        "found": round(100 * total.found / count, 1),
        "tracks_a_word": round(total.tracks / max(1, total.found), 3),
        "false_tracks": total.false,
        "reads": total.reads,
        "start_error": errors(total.starts),
        "end_error": errors(total.ends),
    }


def errors(values: Sequence[float]) -> dict[str, float]:
    """Seconds: of those that come and go at once, how many are exact, the median and the 95th percentile."""
    size = np.abs(values) if values else np.full(1, np.nan)
    return {
        "words": len(values),
        "exact": round(100 * float((size < 1e-3).mean()), 1),
        "median": round(float(np.median(size)), 4),
        "p95": round(float(np.percentile(size, 95)), 4),
    }


def print_tables(figures: dict[str, Any]) -> None:
    heads = ("", "words", "right", "found", "tracks a word", "false", "starts exact", "ends exact")
    rows = [
        [name, row["words"], f"{row['right']} %", f"{row['found']} %", row["tracks_a_word"], row["false_tracks"],
         *(f"{row[key]['exact']} % of {row[key]['words']}" for key in ("start_error", "end_error"))]
        for name, row in figures.items() if isinstance(row, dict) and "words" in row
    ]  # fmt: skip
    print(f"\n{markdown(heads, rows)}\n")
    if figures["per_frame_right"] is not None:
        print(f"single frames read right: {figures['per_frame_right']} %")
    for name, costs in {CHOSEN: figures, **figures["beside"]}.items():
        stages = ", ".join(f"{stage} {value}" for stage, value in costs["stages_ms_per_frame"].items())
        print(f"{name}: {costs['share_read']} % of the crops in view read; "
              f"CPU {costs['cpu_ms_per_frame']} ms a frame; by the clock: {stages}")  # fmt: skip


if __name__ == "__main__":
    sys.exit(run_script(PROGRAM, main))
