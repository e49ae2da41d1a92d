"""One source's frames through search, flow, tracks and votes. What is to be read is handed out, so that the crops of
several sources are read together."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import cv2
import numpy as np

from clip4str.core.errors import ImageError
from clip4str.core.rectify import rectified

from .clock import Clock
from .detect import Detections
from .events import Event, Gap, Shown, Statistics
from .flow import LONG_SIDE, Small, small
from .frames import Frame, check_frame, grey
from .gaps import Gaps
from .geometry import sound
from .learning import Shoot, learn
from .photo import turned
from .quality import quality
from .recent import Recent
from .requests import Aside, Moment, Request, first_of, request
from .schedule import Schedule
from .searching import Searching
from .telling import SEEN, Telling
from .track import State
from .tracks import Tracker
from .vote import TrackVote

CUT = 0.25  # of the scene's points that can be followed, below which the scene may have changed,
DIFFERENT = 20.0  # and grey levels by which thumbnails differ then, on average
STILL = 0.3  # seconds that a picture stands still, after which it is searched if it has not been
EDGE = 2.0  # pixels from the frame's edge, at which a quad may be a part of a word
SOON = 4  # frames after a search until the next one, where a word looks otherwise
LEAST_SIDE = 16  # pixels of a frame
FEW_FRAMES = 5  # that may stay away before a live source is taken to have none, where they come slowly
REPORTED = 60.0  # seconds from statistics to statistics


@dataclass
class _Counts:
    frames: int = 0
    damaged: int = 0
    detections: int = 0
    crops: int = 0
    reads: int = 0
    milliseconds: dict[str, float] = field(default_factory=dict)


class Stream:
    """One source. Frame by frame: `look` tells what to read, `learn` takes each answer, `events` what is to be told.

    aside: what reads this source's crops while its next frames are looked at; None: answers come before those do.
    """

    def __init__(
        self, number: int, searching: Searching, vote: Callable[[], TrackVote], schedule: Schedule, revive: float = 1.5,
        thumbnail: Callable[[Frame], np.ndarray] | None = None, least: float = 0.0,
        dropped: Callable[[], int] = int, aside: Aside | None = None,
    ) -> None:  # fmt: skip
        self.number, self.searching, self.schedule, self._aside = number, searching, schedule, aside
        self._shrunk, self._dropped = thumbnail, dropped
        self.tracker, self.counts, self.clock = Tracker(vote, revive), _Counts(), Clock()
        self.telling = Telling(number, least)
        self._gaps, self._recent = Gaps(number, self.telling.add), Recent(schedule.longest)
        self._last: Small | None = None
        self._moment: Moment | None = None  # of the last frame that was looked at
        self._thumbnail: np.ndarray | None = None
        self._size: tuple[int, int] | None = None
        self._since, self._search_now, self._motion = 0, True, 0.0
        self._known = self._left = False  # was the present picture searched? are crops of it left to be read?
        self._changed_at = 0.0
        self._frame: Frame | None = None
        self._came = time.monotonic()
        self._reported = 0.0

    def look(self, frame: Frame) -> list[Request]:
        """Takes a frame in; the crops of it that are worth a read. Raises ImageError, UsageError for what is no
        frame."""
        check_frame(frame)
        if min(frame.size) < LEAST_SIDE:
            raise ImageError(f"frame {frame.index}: {frame.size[1]}x{frame.size[0]} pixels show no words")
        broken = self.clock.take(frame) or frame.broken
        if self.clock.corrected:
            self.tracker.correct(*self.clock.corrected)
        self.counts.frames += 1
        if broken or (self._size is not None and frame.size != self._size):
            self._break(broken or "size changed")
        self._size = frame.size
        if frame.damaged:
            self.counts.damaged += 1
            self._gaps.damaged(self.clock.began)
            return []
        self._gaps.mended(self.clock.began)
        began, self._came = time.perf_counter(), time.monotonic()
        whole, now = self._seen(frame)
        undecided = self._left or any(
            track.rival is not None or (track.changed is not None and not track.hidden) for track in self.tracker.active
        )
        if self._unchanged(now) and not self.searching.pending and not undecided:
            if self._known or self.clock.began - self._changed_at < STILL:
                self._frame = frame
                self._keep()
                return []
            self._search_now = True  # it came between two searches, and stands still since
        self._flow(now)  # which may have to read what is left of the frame before
        self._frame = frame
        self._since += 1
        searched = self._searched(frame, now)
        self._recent.add(now, self.clock.began)
        self._last = now
        self._moment = Moment(now, self.counts.frames, self.clock.began, self.clock.end)
        started = time.perf_counter()
        self.counts.crops += sum(track.visible for track in self.tracker.active)
        requests = self._requests(whole, began)
        self.spent("quality", 1000 * (time.perf_counter() - started))
        self.schedule.took(searched, 1000 * (time.perf_counter() - began) - searched)
        return requests

    @property
    def live(self) -> bool:
        """Are its crops read while its next frames are looked at?"""
        return self._aside is not None

    def late(self, wait: bool = False) -> list[Request]:
        """No further frame has come: what is left to be read of the last one, and what the search under way has found
        there. wait: until it is over, and no frame will come, so all."""
        moment = self._moment
        if self._frame is None or self._last is None or moment is None or self._frame.on_device:
            return []  # what gave pixels on a GPU may write its next frame there
        answer = self.searching.result(self._last, wait)
        if answer is not None:
            self._found(*answer, moment)
            self._left = True
        if not self._left or (self._aside is not None and self._aside.busy):
            return []
        requests = self._requests(self._seen(self._frame)[0], time.perf_counter(), everything=wait)
        self.counts.crops += len(requests)
        return requests

    @property
    def frame(self) -> Frame:
        """The present one."""
        assert self._frame is not None
        return self._frame

    def crops(self, requests: list[Request]) -> list[np.ndarray]:
        """uint8 (h, w, 3) RGB of each, upright along its quad."""
        quads = np.array([request.quad for request in requests], np.float32)
        return list(rectified(self.frame.pixels, quads, **self.frame.colour))

    def learn(self, asked: Request, crop: Shoot, text: str, confidence: float, turns: int = 0) -> None:
        """The answer to a request, of the present frame or of one before; see learning.learn."""
        self.counts.reads += 1
        learn(self.tracker, self.telling, self.clock.began, asked, crop, text, confidence, turns)

    def read_in(self, milliseconds: float, crops: int, aside: bool) -> None:
        """How long it took to read so many crops; aside: while other frames were looked at."""
        self.spent("read", milliseconds)
        self.schedule.reading(milliseconds, crops, aside)

    def events(self, waited: float = 0.0) -> list[Event]:
        """What has come up since the last call; words whose time is over are ended. waited: seconds since the frame."""
        for track in self.tracker.emerged(self.clock.end + waited):
            self.telling.read(track, self.clock.began)
        for track in self.tracker.expire(self.clock.began + waited):
            self.telling.end(track, self.clock.began)
        if self.clock.began - self._reported >= REPORTED:
            self._reported = self.clock.began
            self.telling.add(self.statistics())
        return self.telling.take()

    def idle(self, paused: bool = False) -> list[Event]:
        """A live source has no frame: words not seen for too long by the clock on the wall are gone. paused: none is to
        come, and words stay."""
        if paused:
            self._came = time.monotonic()
        waited = time.monotonic() - self._came
        if waited <= max(self.tracker.revive, FEW_FRAMES * self.clock.step):
            return self.events()
        self.tracker.cut()
        self._search_now = True
        return self.events(waited)

    def finish(self) -> list[Event]:
        """The source has ended: every word that is left, ended, and the statistics."""
        self._gaps.thawed(self.clock.began)
        self._gaps.mended(self.clock.end)
        for track in self.tracker.finish():
            self.telling.end(track, self.clock.began)
        self.telling.add(self.statistics(ended=True))
        return self.telling.take()

    def shown(self) -> list[Shown]:
        """The words in the present frame."""
        words = []
        for track in self.tracker.active:
            if track.visible:
                result = track.result
                quad = turned(track.quad, track.turns)
                words.append(Shown(quad, result.text, result.confidence, track.state is State.SETTLED, track.number))
        return words

    def statistics(self, ended: bool = False) -> Statistics:
        c = self.counts
        return Statistics(self.number, c.frames, self._dropped(), c.damaged, c.detections, c.crops, c.reads,
                          self.tracker.count, self.telling.words, self.clock.end, dict(c.milliseconds), ended,
                          self.telling.unsure)  # fmt: skip

    def spent(self, stage: str, milliseconds: float) -> None:
        spent = self.counts.milliseconds
        spent[stage] = spent.get(stage, 0.0) + milliseconds

    def _break(self, reason: str) -> None:
        """Nothing is followed from the last frame to this one."""
        self._read_out(wait=True)
        self._gaps.thawed(self.clock.began)
        self._gaps.mended(self.clock.before)
        last = min(self.clock.before, self.clock.began)  # how long the last frame was shown is a guess
        self.tracker.correct(self.clock.before, last)
        self.telling.add(Gap(self.number, last, self.clock.began, reason))
        for track in self.tracker.finish():
            self.telling.end(track, self.clock.began)
        self._last = self._thumbnail = None
        self._search_anew()

    def _read_out(self, wait: bool = False) -> None:
        """What is being read and what is left to be, while the words are there. wait: for the search, too."""
        if self._aside is not None:
            self._aside.answered(wait=True)
            self._aside.at_once([(self, self.late(wait))])

    def _search_anew(self) -> None:
        """The scene is another one."""
        self.searching.drop()
        self._recent.forget()
        self._search_now = True

    def _seen(self, frame: Frame) -> tuple[Small, Small]:
        """The frame in grey, as large as it can be judged in, and small; of one on a GPU its thumbnail is both."""
        if frame.on_device and self._shrunk is not None:
            shrunk = Small(self._shrunk(frame), min(1.0, LONG_SIDE / max(frame.size)))
            return shrunk, shrunk
        whole = grey(frame)
        return Small(whole, 1.0), small(whole)

    def _unchanged(self, now: Small) -> bool:
        """Is it the very picture of the last frame?"""
        last = self._last
        if last is None or last.grey.shape != now.grey.shape or not np.array_equal(last.grey, now.grey):
            self._gaps.thawed(self.clock.began)
            self._known, self._changed_at = False, self.clock.began
            return False
        self._gaps.same(self.clock.began, self.clock.end)
        return True

    def _keep(self) -> None:
        """What was seen is seen on."""
        for track in self.tracker.active:
            if track.doubt == 0:
                track.looks_on(self.clock.began)
                track.end, track.frames = self.clock.end, track.frames + 1
                track.searches = max(track.searches, SEEN)  # another one would find it again

    def _flow(self, now: Small) -> None:
        """Follows the words, and notices cuts."""
        thumbnail, before = _thumbnail(now), self._thumbnail
        self._thumbnail = thumbnail
        if self._last is None or before is None or self._size is None:
            return
        different = float(np.abs(thumbnail - before).mean()) > DIFFERENT
        if different:
            self._read_out()
        started = time.perf_counter()
        moved = self.tracker.advance(self._last, now, self.clock.began, self.clock.end, self._size)
        self._motion += (100 * moved.motion / max(*self._size, LONG_SIDE) - self._motion) * 0.3
        self.spent("flow", 1000 * (time.perf_counter() - started))
        if moved.coherent < CUT and different:
            self.tracker.cut()
            self._search_anew()

    def _searched(self, frame: Frame, now: Small) -> float:
        """Looks for new words if it is time for that; the milliseconds that a search took that is over."""
        doubtful = self.tracker.doubtful and self._since >= SOON
        present = Moment(now, self.counts.frames, self.clock.began, self.clock.end)
        due = self._search_now or doubtful or self._since >= self.schedule.frames(self._motion)
        if due and not self.searching.pending:
            self._since, self._search_now, self._known = 0, False, True
            self.counts.detections += 1
            answer = self.searching.begin(frame, now)
            if answer is not None:
                return self._found(*answer, present)
            self._recent.ask(now, self.clock.began)
        answer = self.searching.result(now)
        return 0.0 if answer is None else self._found(*answer, present)

    def _found(self, found: Detections, took: float, of: Moment) -> float:
        self.spent("detect", took)
        self.tracker.search(found, of.seen, of.end, self._recent.take(), of.began)
        return took

    def _cut_off(self, quad: np.ndarray) -> bool:
        """Does the frame's edge go through the word, as far as can be seen?"""
        height, width = self._size or (1, 1)
        return bool((quad < EDGE).any() or (quad > np.array([width, height]) - EDGE).any())

    def _requests(self, whole: Small, started: float, everything: bool = False) -> list[Request]:
        """Crops of the present frame to read. started: when it was taken in, by the process's clock. everything: there
        will be no next frame."""
        moment, aside = self._moment, self.live and not self.frame.on_device
        assert moment is not None
        due = [track for track in self.tracker.active if self.schedule.due(track, moment.number, moment.began)]
        if aside and self._aside is not None and self._aside.busy:
            self._left = bool(due)
            return []
        wanted = []
        for track in due:
            if not sound(track.quad[None])[0]:
                continue
            clear = quality(whole.grey, track.quad * whole.scale, whole.scale)
            if self.schedule.worth(track, clear, moment.number, moment.began):
                wanted.append(request(track, clear, moment, self._cut_off(track.quad)))
        spent = None if aside else 1000 * (time.perf_counter() - started)
        chosen = wanted if everything else first_of(wanted, self.schedule.most(spent))
        self._left = len(chosen) < len(wanted)
        for one in chosen:
            one.track.asked = True
        return chosen


def _thumbnail(frame: Small) -> np.ndarray:
    return cv2.resize(frame.grey, (48, 27), interpolation=cv2.INTER_AREA).astype(np.float32)
