"""clip4str video: words of files, cameras and streams, each once, with its times."""

from __future__ import annotations

import argparse
import sys
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from clip4str.core.console import Parser, one_line
from clip4str.core.errors import Clip4StrError, UsageError
from clip4str.core.output_files import check_apart, check_output
from clip4str.runtime.read_command import add_recognizer_options, load_recognizer

from .events import Event, Gap, Shown, Statistics, WordEnded
from .frames import Frame
from .options import add_detector_options, detector_of, listening_address, need_opencv, region_of
from .vote import UNSURE

if TYPE_CHECKING:
    from .reader import VideoReader
    from .sources import Source
    from .view import View

OUTPUTS: dict[str, tuple[str, ...]] = {
    "jsonl": (), "srt": (".srt",), "vtt": (".vtt",), "csv": (".csv",), "sheet": (".png",), "overlay": (".mp4",)
}  # fmt: skip
_EPILOG = """\
examples:
  clip4str video street.mp4                                a table of words at the end
  clip4str video street.mp4 --jsonl words.jsonl --sheet words.png --overlay read.mp4
  clip4str video lecture.mkv --srt lecture.srt             words as subtitles
  clip4str video rtsp://camera/1 --jsonl - --live          events as they come; late frames are left out
  clip4str video rtsp://camera/1 --view 8080               a page to watch: http://127.0.0.1:8080/
  clip4str video gate1.mp4 gate2.mp4 --pattern '[A-Z]{2}[0-9]{3,4}'
  ffmpeg -i x.ts -f yuv4mpegpipe -pix_fmt yuv420p - | clip4str video -
A source is a video file, a folder of pictures, an address, a camera's number, or - for YUV4MPEG2 on standard input.
"""


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="clip4str video",
        description="Find, follow and read the words of videos, cameras and streams: each word once, with its times.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("sources", nargs="+", metavar="SOURCE", help="video file, folder of pictures, address, camera number, or -")
    group = parser.add_argument_group("outputs")
    group.add_argument("--jsonl", metavar="FILE", help="events, one JSON object a line as they come; - for stdout")
    group.add_argument("--srt", type=Path, metavar="FILE", help="words as SubRip subtitles")
    group.add_argument("--vtt", type=Path, metavar="FILE", help="words as WebVTT subtitles")
    group.add_argument("--csv", type=Path, metavar="FILE", help="a row a word; of live sources as each ends")
    group.add_argument("--overlay", type=Path, metavar="FILE.mp4", help="the video with its words; of one source")
    group.add_argument("--sheet", type=Path, metavar="FILE.png", help="the best crop of every word, 60 a page: "
                       "FILE.png, FILE-2.png, ...")  # fmt: skip
    group.add_argument("--view", metavar="[HOST:]PORT", help="a page to watch in a browser, of this machine alone; "
                       "with another address, as in 0.0.0.0:8080, one that asks for a token")  # fmt: skip
    group.add_argument("--view-token", metavar="TOKEN", help="what the page asks for (default: $CLIP4STR_VIEW_TOKEN, "
                       "which other users do not see, or a new one)")  # fmt: skip
    group.add_argument("--mqtt", metavar="ADDRESS", help="events to a broker: mqtt://[user@]host[:port]/topic, or "
                       "mqtts:// over TLS; its password in $CLIP4STR_MQTT_PASSWORD")  # fmt: skip
    group.add_argument("--metrics", metavar="[HOST:]PORT", help="how it goes, for Prometheus; to this machine alone, "
                       "unless another address of it is named, as in 0.0.0.0:9464")  # fmt: skip
    group.add_argument("--summary", action="store_true", help="time by stage, on stderr")
    group.add_argument("--quiet", action="store_true", help="no progress bar, and no table where there is a file")
    group = parser.add_argument_group("reading")
    group.add_argument("--detect-every", type=int, metavar="N", help="search words in every N-th frame (default: by "
                       "motion, and by the time there is)")  # fmt: skip
    group.add_argument("--region", metavar="X,Y,W,H", help="only words whose middle is in there, pixels of the frame")
    group.add_argument("--pattern", metavar="RE", help="only words that this regular expression fits as a whole")
    group.add_argument("--lexicon", type=Path, metavar="FILE", help="a word a line: reads count for the nearest")
    group.add_argument("--least", type=float, default=UNSURE, metavar="P", help="leave out words that were never surer "
                       "(default: %(default)s)")  # fmt: skip
    group.add_argument("--live", action="store_true", help="keep the newest frames instead of waiting for late ones")
    group.add_argument("--max-latency", type=float, metavar="MS", help="time a frame may take; words are searched less "
                       "often for it (default: of live sources what a frame lasts)")  # fmt: skip
    group.add_argument("--timeout", type=float, default=10.0, metavar="S", help="seconds without data after which a "
                       "camera or an address is connected to again (default: 10)")  # fmt: skip
    group.add_argument("--give-up", type=float, metavar="S", help="seconds without a frame after which that ends "
                       "(default: never, once there was one)")  # fmt: skip
    group.add_argument("--raw", metavar="WxH@FPS:FORMAT", help="bare pixels on stdin, as in 1280x720@30:rgb24")
    group.add_argument("--rate", type=float, metavar="FPS", help="of pictures in a folder (default: 25)")
    add_detector_options(parser)
    add_recognizer_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    need_opencv()
    from .reader import VideoReader, read_lexicon

    region = region_of(args.region)
    lexicon = None if args.lexicon is None else read_lexicon(args.lexicon)
    if args.raw is not None and "-" not in args.sources:
        raise UsageError("--raw says what comes on standard input; name it as a source: -")
    if args.max_latency is not None and not args.max_latency > 0:
        raise UsageError(f"--max-latency is a time in milliseconds, not {args.max_latency}")
    if args.overlay is not None and len(args.sources) > 1:
        raise UsageError(f"--overlay draws one source, but {len(args.sources)} are named")
    for name, suffixes in OUTPUTS.items():
        file = _file(getattr(args, name))
        if name != "jsonl" or file is None or file.is_file() or file.is_dir() or not file.exists():  # not a pipe
            check_output(file, suffixes)
    read = [Path(name) for name in args.sources if name != "-"] + ([] if args.lexicon is None else [args.lexicon])
    check_apart({f"--{name}": _file(getattr(args, name)) for name in OUTPUTS}, read)
    if args.mqtt is not None:
        from .outputs.mqtt_address import address_of

        address_of(args.mqtt)
    if args.metrics is not None:
        listening_address(args.metrics, "--metrics")
    from .sources import open_source

    with ExitStack() as stack:
        view = _view(args, stack)
        sources = [
            stack.enter_context(open_source(name, rate=args.rate, raw=args.raw if name == "-" else None,
                                            live=True if args.live else None, timeout=args.timeout,
                                            give_up=args.give_up))
            for name in args.sources
        ]  # fmt: skip
        recognizer = load_recognizer(args)
        detector = detector_of(args, recognizer.backend.threads or 1)
        reader = VideoReader(
            recognizer, detector, detect_every=args.detect_every, pattern=args.pattern, lexicon=lexicon, region=region,
            budget=args.max_latency, least=args.least, crops=args.sheet is not None or view is not None,
        )  # fmt: skip
        outputs = Outputs(args, sources, reader.statistics)
        stack.callback(outputs.close)
        if view is not None:
            outputs.watched(view, sources)
        total = sum(source.frames or 0 for source in sources) or None
        with tqdm(total=total, unit="frame", disable=args.quiet or None) as bar:
            run(reader, sources, outputs, bar)
    return 0


def _view(args: argparse.Namespace, stack: ExitStack) -> View | None:
    """Its port is taken before anything is opened."""
    if args.view is None:
        if args.view_token is not None:
            raise UsageError("--view-token is of a page: --view PORT")
        return None
    from .view import View

    return stack.enter_context(View(args.view, args.view_token))


def _file(named: str | Path | None) -> Path | None:
    return None if named in (None, "-") else Path(str(named))


def run(reader: VideoReader, sources: Sequence[Any], outputs: Outputs, bar: Any) -> None:
    """Everything to its end, or to Ctrl-C: then what was seen so far is told whole, too."""
    words = 0

    def watch(number: int, frame: Frame, shown: list[Shown]) -> None:
        outputs.show(number, frame, shown)
        dropped = sum(source.dropped for source in sources)
        bar.set_postfix_str(f"{words} words" + (f", {dropped} dropped" if dropped else ""), refresh=False)
        bar.update()

    events = reader.run(*sources, watch=watch)
    interrupted = told = False  # to be told of Ctrl-C; told of it
    while True:
        try:
            event = events.throw(KeyboardInterrupt()) if interrupted else next(events)
            interrupted = False
            words += isinstance(event, WordEnded)
            with tqdm.external_write_mode():
                outputs.write(event)
        except StopIteration:
            outputs.flush()
            return
        except KeyboardInterrupt:
            if interrupted or told:
                raise
            interrupted = told = True


class Outputs:
    """All that was asked for, each behind a queue."""

    def __init__(
        self, args: argparse.Namespace, sources: Sequence[Source], statistics: Callable[[], Sequence[Statistics]]
    ) -> None:
        from . import outputs

        names, live = [source.name for source in sources], any(source.live for source in sources)
        sinks: list[outputs.Sink] = []
        self.metrics = None
        if args.metrics is not None:
            self.metrics = outputs.Metrics(*listening_address(args.metrics, "--metrics"), names, statistics)
            print(f"metrics at {self.metrics.link}", file=sys.stderr)
        if args.mqtt is not None:
            sinks.append(outputs.Mqtt(args.mqtt, names, say=lambda line: tqdm.write(line, file=sys.stderr)))
        self.names, self.summary = names, args.summary
        kinds = (("jsonl", outputs.Jsonl), ("srt", outputs.Srt), ("vtt", outputs.Vtt),
                 ("csv", outputs.LiveCsv if live else outputs.Csv), ("sheet", outputs.Sheet))  # fmt: skip
        sinks += [make(getattr(args, name), names) for name, make in kinds if getattr(args, name) is not None]
        if not sinks or not (args.quiet or args.jsonl == "-"):
            sinks.append(outputs.Table(names))
        if self.metrics is not None:
            sinks.append(self.metrics)
        self.sinks = [outputs.Queued(sink) for sink in sinks]
        self.overlay = None if args.overlay is None else outputs.Queued(outputs.Overlay(args.overlay, sources[0].rate))

        self.view: View | None = None
        self._owed: deque[tuple[outputs.Queued, Event]] = deque()
        self._failed: list[outputs.Queued] = []

    def watched(self, view: View, sources: Sequence[Any]) -> None:
        """From now on by that page, too."""
        view.start(sources)
        from .outputs import Queued

        self.view = view
        self.sinks.append(Queued(view))
        print(f"watch at {view.link}", file=sys.stderr)

    def show(self, number: int, frame: Frame, words: list[Shown]) -> None:
        if self.metrics is not None:
            self.metrics.show(number, frame)
        if self.view is not None:
            self.view.show(number, frame, words)
        if self.overlay is not None:
            self.overlay.show(frame, [word._replace(quad=word.quad.copy()) for word in words])

    def write(self, event: Event) -> None:
        self._owed.extend((sink, event) for sink in self.sinks)
        self.flush()
        if isinstance(event, Gap) and event.reason != "damaged":
            times = f"{event.start:.2f}", f"{event.end:.2f}"
            when = f"at {times[0]} s" if times[0] == times[1] else f"from {times[0]} to {times[1]} s"
            print(f"{one_line(self.names[event.source])}: {event.reason} {when}", file=sys.stderr)
        if isinstance(event, Statistics) and event.ended and event.unsure:
            print(f"{one_line(self.names[event.source])}: words too unsure to be told: {event.unsure} (--least)",
                  file=sys.stderr)  # fmt: skip
        if isinstance(event, Statistics) and self.summary:
            print(summary(event, self.names[event.source]), file=sys.stderr)

    def flush(self) -> None:
        """What was interrupted, too. An output that fails is written to no more, and its error raised by close: the
        others are written on."""
        while self._owed:
            sink, event = self._owed[0]
            try:
                sink.write(event)
                self._owed.popleft()
            except (Clip4StrError, OSError) as error:
                self._owed = deque(each for each in self._owed if each[0] is not sink)
                self._failed.append(sink)
                self.sinks.remove(sink)
                if not self.sinks:
                    raise
                print(f"{one_line(str(error))} (the other outputs go on)", file=sys.stderr)

    def close(self) -> None:
        with ExitStack() as stack:  # one that fails keeps no other from closing
            for sink in [*self._failed, *self.sinks, *([self.overlay] if self.overlay is not None else [])]:
                stack.callback(sink.close)


def summary(event: Statistics, name: str) -> str:
    each = event.frames or 1
    stages = ", ".join(f"{stage} {value / each:.1f}" for stage, value in event.milliseconds.items())
    lost = f", {event.dropped} dropped" * bool(event.dropped) + f", {event.damaged} damaged" * bool(event.damaged)
    return (f"{one_line(name)}: {event.frames} frames{lost}, {event.words} words in {event.tracks} tracks, "
            f"{event.detections} searches, {event.reads} reads; ms a frame: {stages}")  # fmt: skip
