"""Frames in, words with their times out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from clips import needed

from clip4str.core.errors import ImageError, UsageError
from clip4str.video.events import Gap, Statistics, WordChanged, WordEnded, WordFound
from clip4str.video.frames import Frame
from clip4str.video.reader import VideoReader

cv2 = needed("cv2", "video")
from scenes import SMALL, Knowing, video  # noqa: E402  (needs it)


def events(recognizer, frames, truth, **how):
    reader = VideoReader(recognizer, Knowing(truth), **how)
    found = [event for frame in frames for event in reader.push(frame)]
    return found + reader.finish()


def ended(found):
    return [event for event in found if isinstance(event, WordEnded)]


def whole(word, frames):
    """Is it never cut by the frame's edge?"""
    quads = np.array(list(word.quads.values()))
    return (quads > 2).all() and (quads < np.array(frames[0].size[::-1]) - 2).all()


@pytest.fixture(scope="module")
def still(recognizer):
    frames, truth = video(replace(SMALL, speed=0.0), 5)
    return frames, truth, events(recognizer, frames, truth)


def test_a_sign_that_stands_is_one_word_from_its_first_frame_to_the_end_of_its_last(still):
    frames, truth, found = still
    words = ended(found)
    assert len(words) == len(truth.words) > 0
    for word in words:
        assert (word.start, word.end) == (0.0, pytest.approx(truth.times[-1]))
        assert word.frames == len(frames)


def test_every_word_found_is_ended_once_and_statistics_come_last(still):
    _, _, found = still
    begun = [e.track for e in found if isinstance(e, WordFound)]
    assert sorted(begun) == sorted(e.track for e in ended(found)) and len(set(begun)) == len(begun)
    assert isinstance(found[-1], Statistics) and found[-1].words == len(begun)


def test_clear_words_are_read_right_and_seldom(still):
    frames, truth, found = still
    want = {word.text.lower() for word in truth.words if whole(word, frames)}
    assert len(want) >= 4 and {word.text.lower() for word in ended(found)} >= want
    assert sum(word.reads for word in ended(found)) <= 0.3 * len(frames) * len(truth.words)


def test_a_crop_of_the_best_frame_comes_with_the_word_unless_not_wanted(recognizer, still):
    frames, truth, found = still
    assert all(word.crop.dtype == np.uint8 and word.crop.ndim == 3 for word in ended(found))
    assert all(word.crop is None for word in ended(events(recognizer, frames[:8], truth, crops=False)))


def test_words_that_move_keep_their_tracks_though_searched_seldom(recognizer):
    frames, truth = video(replace(SMALL, speed=5.0, frames=40), 11)
    found = events(recognizer, frames, truth, detect_every=8)
    long = [word for word in truth.words if len(word.quads) >= 16]
    told = ended(found)
    for word in long:
        assert sum(word.text.lower() == event.text.lower() for event in told) >= 1, word.text
    assert len(told) <= 1.1 * len(truth.words) + 1


def test_a_word_that_appears_between_two_searches_begins_when_it_appeared(recognizer):
    frames, truth = video(replace(SMALL, speed=0.0, hop=1.0, frames=40, variable=True), 8)
    found = events(recognizer, frames, truth, detect_every=6)
    matched = 0
    for event in ended(found):
        spans = [truth.span(w) for w in truth.words if w.text.lower() == event.text.lower()]
        if len(spans) == 1:
            matched += 1
            assert event.start == pytest.approx(spans[0][0], abs=1e-6)
            assert event.end == pytest.approx(spans[0][1], abs=1e-6)
    assert matched >= 3


def test_a_word_hidden_for_a_moment_comes_back_as_the_same_track(recognizer, still):
    frames, truth, _ = still
    words = {i: w.quads for i, w in enumerate(truth.words)}
    hidden = [replace(f, pixels=np.full_like(f.pixels, 90)) if 10 <= f.index < 18 else f for f in frames]

    class Blinded(Knowing):
        def detect(self, frame):
            found = super().detect(frame)
            return (
                found if not 10 <= frame.index < 18 else found._replace(quads=found.quads[:0], scores=found.scores[:0])
            )

    reader = VideoReader(recognizer, Blinded(truth), detect_every=2, revive=2.0)
    found = [e for f in hidden for e in reader.push(f)] + reader.finish()
    assert len(ended(found)) == len(words)
    assert all(e.start == 0 and e.end == pytest.approx(truth.times[-1]) for e in ended(found))


def test_nothing_is_followed_across_a_change_of_size_and_the_gap_is_told(recognizer, still):
    frames, truth, _ = still
    smaller = [Frame(np.ascontiguousarray(f.pixels[:300, :600]), f.time, f.index) for f in frames[15:]]
    found = events(recognizer, frames[:15] + smaller, truth)
    assert [g.reason for g in found if isinstance(g, Gap)] == ["size changed"]
    assert all(e.end <= frames[15].time + 1e-9 or e.start >= frames[15].time - 1e-9 for e in ended(found))


def test_damaged_frames_are_neither_searched_nor_read(recognizer, still):
    frames, truth, _ = still
    noise = np.random.default_rng(0).integers(0, 256, frames[0].pixels.shape, np.uint8)
    broken = [replace(f, damaged=True, pixels=noise) if f.index in (4, 5, 6) else f for f in frames]
    reader = VideoReader(recognizer, detector := Knowing(truth), detect_every=1)
    found = [e for f in broken for e in reader.push(f)] + reader.finish()
    assert not {4, 5, 6} & set(detector.asked)
    assert found[-1].damaged == 3 and len(ended(found)) == len(truth.words)


def test_a_picture_that_stands_still_is_told_as_frozen_and_costs_nothing(recognizer, still):
    frames, truth, _ = still
    frozen = [Frame(frames[0].pixels, i * 0.5, i) for i in range(30)]
    reader = VideoReader(recognizer, detector := Knowing(truth))
    found = [e for f in frozen for e in reader.push(f)] + reader.finish()
    assert detector.asked == [0]
    assert [(g.reason, g.start) for g in found if isinstance(g, Gap)] == [("frozen", 0.5)]
    assert all(e.start == 0 and e.end == pytest.approx(15.0) for e in ended(found))


def test_time_that_steps_back_goes_on_from_where_it_was(recognizer, still):
    frames, truth, _ = still
    again = [replace(f, time=f.time - 100) for f in frames[10:]]
    found = events(recognizer, frames[:10] + again, truth)
    assert all(e.start <= e.end for e in ended(found))
    assert max(e.end for e in ended(found)) == pytest.approx(truth.times[-1], abs=0.05)


@pytest.mark.parametrize("layout", ["bgr", "nv12"])
def test_bgr_and_nv12_frames_give_the_same_words(recognizer, still, layout):
    frames, truth, _ = still
    other = []
    for f in frames[:10]:
        if layout == "bgr":
            pixels = np.ascontiguousarray(f.pixels[..., ::-1])
        else:
            planar = cv2.cvtColor(f.pixels, cv2.COLOR_RGB2YUV_I420)
            h, w = f.size
            u, v = planar[h : h * 5 // 4].reshape(h // 2, w // 2), planar[h * 5 // 4 :].reshape(h // 2, w // 2)
            pixels = np.concatenate([planar[:h], np.stack([u, v], -1).reshape(h // 2, w)])
        other.append(replace(f, pixels=pixels, layout=layout))
    words, wanted = (
        sorted(e.text.lower() for e in ended(events(recognizer, each, truth)) if e.confidence > 0.9)
        for each in (other, frames[:10])
    )
    assert words == wanted and len(words) > 5


def test_several_sources_are_told_apart(recognizer, still):
    frames, truth, _ = still
    reader = VideoReader(recognizer, Knowing(truth))
    found = list(reader.run(frames[:6], frames[:12]))
    want = {word.text.lower() for word in truth.words if whole(word, frames)}
    for number in (0, 1):
        assert {e.text.lower() for e in ended(found) if e.source == number} >= want
    assert {s.source: s.frames for s in found if isinstance(s, Statistics)} == {0: 6, 1: 12}


def test_a_display_that_changes_its_word_tells_the_change_or_another_word(recognizer):
    first, truth = video(replace(SMALL, speed=0.0, signs=9, frames=12), 21)
    second, other = video(replace(SMALL, speed=0.0, signs=9, frames=12), 22)
    reader = VideoReader(recognizer, Knowing(truth))
    found = [e for f in first for e in reader.push(f)]
    reader.detector = detector = Knowing(other)
    reader._pushed.searching._detector = detector
    later = [replace(f, time=f.time + truth.times[-1]) for f in second]
    found += [e for f in later for e in reader.push(f)] + reader.finish()
    told = {e.text.lower() for e in found if isinstance(e, (WordFound, WordChanged))}
    want = {w.text.lower() for w in [*truth.words, *other.words] if whole(w, first)}
    assert len(want) >= 2 and told >= want


def test_what_is_no_frame_no_detector_or_no_number_is_refused_in_one_line(recognizer, still):
    reader = VideoReader(recognizer, Knowing(still[1]))
    for bad, kind in ((Frame(np.zeros((9, 9), np.uint8), 0.0), ImageError), (Frame(None, 0.0), ImageError),
                      (Frame(np.zeros((9, 9, 3), np.uint8), 0.0, layout="yuv"), UsageError),
                      (np.zeros((9, 9, 3), np.uint8), UsageError)):  # fmt: skip
        with pytest.raises(kind) as error:
            reader.push(bad)
        assert "\n" not in str(error.value)
    with pytest.raises(UsageError, match="a detector has detect"):
        VideoReader(recognizer, object())
    with pytest.raises(UsageError, match="detect_every"):
        VideoReader(recognizer, Knowing(still[1]), detect_every=0)
