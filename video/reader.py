"""VideoReader: words out of frames, of one source or several at once."""

from __future__ import annotations

import re
import time
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clip4str.core.errors import ImageError, SourceError, UsageError
from clip4str.runtime import Recognizer

from .detect import Detector, open_detector
from .detect.thumbnails import OnThumbnails
from .events import Event, Shown, Statistics, WordEnded
from .flow import LONG_SIDE
from .frames import Frame
from .rates import Rates
from .reading import Reading
from .requests import Request
from .schedule import Schedule
from .searching import Searching
from .stream import Stream
from .vote import UNSURE, Lexicon, TrackVote, compiled

if TYPE_CHECKING:
    from .sources import Source

Watch = Callable[[int, Frame, list[Shown]], None]
PAUSE = 0.1  # seconds to wait for a live source before words that are gone are told


class VideoReader:
    """Reads the words of videos: each once, with its times.

    >>> reader = VideoReader(Recognizer.load())
    >>> for event in reader.run("street.mp4"):
    ...     if isinstance(event, WordEnded):
    ...         print(event.start, event.end, event.text)

    detector: "auto", or anything with detect(frame) -> Detections. Of live sources it is asked on a thread of its own,
    as is the recogniser on another.
    detect_every: frames from search to search, None by motion and time. pattern: a regular expression that whole words
    fit; lexicon: the words there can be. region: x, y, width, height in pixels: words whose middle is outside are not
    followed. budget: milliseconds a frame may take; None: of live sources what their frames last, divided among them;
    of others any. revive: seconds after which a word that comes back is a new one. crops: keep the best crop of each
    word for its WordEnded. least: confidence below which a word
    that was never surer is not told.

    Frames may lie on the GPU of the recogniser (tensorrt, torch): words are cut out and read there. On the host come to
    be a grey picture of 640 pixels of each, for following words; the best picture of a word where `crops` are kept;
    and with the detector "auto" a colour picture of 1280 pixels of those in which words are searched. A detector of
    your own is given the frames as they are.

    Not to be shared between threads. Raises UsageError, BackendError.
    """

    def __init__(
        self, recognizer: Recognizer, detector: str | Detector = "auto", *, detect_every: int | None = None,
        pattern: str | re.Pattern[str] | None = None, lexicon: Iterable[str] | None = None,
        region: tuple[int, int, int, int] | None = None, budget: float | None = None, revive: float = 1.5,
        crops: bool = True, least: float = UNSURE, read_all: bool = False,
    ) -> None:  # fmt: skip
        if detect_every is not None and not (isinstance(detect_every, int) and 1 <= detect_every <= 120):
            raise UsageError(f"detect_every is 1 to 120 frames, not {detect_every!r}")
        if not 0 <= revive <= 3600 or not (budget is None or budget > 0):
            raise UsageError(f"revive is 0 to 3600 seconds and budget more than 0 ms, not {revive!r} and {budget!r}")
        if not 0 <= least <= 1:
            raise UsageError(f"least is 0 to 1, not {least!r}")
        if region is not None and not (len(region) == 4 and min(region[2:]) > 0):
            raise UsageError(f"region is x, y, width, height in pixels, not {region!r}")
        self.recognizer, self.detector = recognizer, open_detector(detector)
        if isinstance(detector, str):  # others know best what they do with frames on a GPU
            self.detector = OnThumbnails(self.detector, self._in_colour)
        self.pattern = compiled(pattern)
        self.lexicon = None if lexicon is None else Lexicon(lexicon)
        self.detect_every, self.region, self.budget = detect_every, region, budget
        self.revive, self.crops, self.least, self.read_all = revive, crops, least, read_all
        self._pushed: Stream | None = None
        self._running: list[Stream] = []
        self._owed: deque[Event] = deque()  # brought up, and not yet told: what ends the reading must not lose them

    def run(self, *sources: Any, watch: Watch | None = None) -> Generator[Event, None, None]:
        """The events of one source or several: paths, URLs, iterables of frames, see sources.open_source.

        Several are looked at in turn, and their crops read together; a live one that has no new frame is passed over.
        watch: is called after each frame with the source's number, the frame and its words.
        Raises SourceError once all have ended, where one could not be read on.
        """
        from .sources import open_source

        with ExitStack() as stack:
            opened = [stack.enter_context(open_source(source)) for source in sources]
            search: Executor | None = None
            read: Executor | None = None
            if any(source.live for source in opened):
                search, read = ThreadPoolExecutor(1, "search"), ThreadPoolExecutor(1, "read")
                for executor in (search, read):
                    stack.callback(executor.shutdown, wait=True, cancel_futures=True)
            yield from self._run(opened, watch, search, Reading(self.recognizer, self.crops, read))

    def _run(
        self, opened: Sequence[Source], watch: Watch | None, search: Executor | None, reading: Reading
    ) -> Generator[Event, None, None]:
        going: dict[int, tuple[Stream, Source]] = {}
        rates = Rates()
        for number, source in enumerate(opened):
            dropped = partial(getattr, source, "dropped")
            if source.live:
                rates.add(number, source.rate)
            aside = (search, reading) if source.live else (None, None)
            going[number] = self._stream(number, dropped, self.budget, *aside), source
        self._running = [stream for stream, _ in going.values()]
        self._owed.clear()
        failed: SourceError | ImageError | None = None
        try:
            while going:
                reading.answered()
                looked: list[tuple[Stream, Frame]] = []
                asked: list[tuple[Stream, list[Request]]] = []
                for number, (stream, source) in list(going.items()):
                    if not source.wait(PAUSE if len(going) == 1 else 0.0):
                        reading.answered()
                        if source.live:
                            asked.append((stream, stream.late()))
                        yield from self._tell(stream.idle(source.paused) if source.live else [])
                        continue
                    began = time.perf_counter()
                    requests: list[Request] = []
                    try:
                        frame, lost = next(source, None), source.dropped
                        stream.spent("wait", 1000 * (time.perf_counter() - began))
                        if frame is not None:
                            if source.live and self.budget is None:
                                stream.schedule.budget = rates.budget
                            requests = stream.look(frame)
                            if source.live:
                                came = stream.clock.began if frame.arrived is None else frame.arrived
                                rates.came(number, came, lost, bool(frame.broken))
                    except (SourceError, ImageError) as error:  # the others go on, and what was seen is told
                        if failed is None:
                            failed = error
                        if len(going) > 1:
                            warnings.warn(f"{error} (the other sources go on)", RuntimeWarning, stacklevel=2)
                        frame = None
                    if frame is None:
                        reading.answered(wait=True)
                        reading.at_once([(stream, stream.late(wait=True))])
                        del going[number]
                        if source.live:
                            rates.ended(number)
                        yield from self._tell(stream.finish())
                        continue
                    looked.append((stream, frame))
                    asked.append((stream, requests))
                reading.begin([(stream, requests) for stream, requests in asked if stream.live])
                reading.at_once([(stream, requests) for stream, requests in asked if not stream.live])
                for stream, frame in looked:
                    if watch is not None:
                        watch(stream.number, frame, stream.shown())
                    yield from self._tell(stream.events())
                if len(going) > 1 and not looked:
                    time.sleep(PAUSE / 10)
        except GeneratorExit:
            raise
        except BaseException:  # also Ctrl-C: what was seen is told all the same
            with suppress(Exception, KeyboardInterrupt):
                reading.answered(wait=True)
                reading.at_once([(stream, stream.late()) for stream, _ in going.values() if stream.live])
            for stream, _ in going.values():
                self._owed.extend(self._given(stream.finish()))
            yield from self._tell([])
            raise
        if failed is not None:
            raise failed

    def statistics(self) -> list[Statistics]:
        """Of each source of `run` so far, by its number. May be called by another thread, and after the end."""
        return [stream.statistics() for stream in self._running]

    def push(self, frame: Frame | np.ndarray, time: float | None = None) -> list[Event]:
        """One more frame of the source that is pushed; what it brings up. An array is RGB, and needs its time."""
        if self._pushed is None:
            self._pushed = self._stream(0, int, self.budget)
        stream = self._pushed
        if isinstance(frame, np.ndarray):
            if time is None:
                raise UsageError("push(array, time): seconds since the first frame; or push a Frame")
            frame = Frame(frame, time, stream.counts.frames)
        Reading(self.recognizer, self.crops).at_once([(stream, stream.look(frame))])
        return self._given(stream.events())

    def finish(self) -> list[Event]:
        """Ends what was pushed: every word that is still there. The next push begins another source."""
        stream, self._pushed = self._pushed, None
        return [] if stream is None else self._given(stream.finish())

    def _stream(
        self, number: int, dropped: Callable[[], int], budget: float | None, search: Executor | None = None,
        aside: Reading | None = None,
    ) -> Stream:  # fmt: skip
        return Stream(
            number, Searching(self.detector, self.region, search), lambda: TrackVote(self.pattern, self.lexicon),
            Schedule(self.detect_every, budget, self.read_all), self.revive, self._thumbnail, self.least,
            dropped, aside,
        )  # fmt: skip

    def _in_colour(self, frame: Frame, long_side: int) -> np.ndarray:
        return self.recognizer.thumbnail(frame.pixels, long_side=long_side, colour=True, **frame.colour)

    def _thumbnail(self, frame: Frame) -> np.ndarray:
        return self.recognizer.thumbnail(frame.pixels, long_side=LONG_SIDE, **frame.colour)

    def _tell(self, events: list[Event]) -> Generator[Event, None, None]:
        self._owed.extend(self._given(events))
        while self._owed:
            yield self._owed.popleft()

    def _given(self, events: list[Event]) -> list[Event]:
        if self.crops:
            return events
        return [replace(e, crop=None) if isinstance(e, WordEnded) else e for e in events]


def read_lexicon(path: Path) -> list[str]:
    """A word a line, UTF-8. Raises UsageError."""
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read as a lexicon ({error.strerror or error})") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: is no lexicon, a word a line in UTF-8 ({error})") from None
