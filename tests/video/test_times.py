"""Times of frames out of what decoders tell."""

import numpy as np
import pytest

from clip4str.core.errors import SourceError
from clip4str.video.sources.base import Picture
from clip4str.video.sources.times import recorded

PIXELS = np.zeros((4, 6, 3), np.uint8)
STEPS = [n / 10 for n in range(10)]


def frames(times, **known):
    return list(recorded((Picture(PIXELS, time) for time in times), **known))


def times(told, **known):
    return [frame.time for frame in frames(told, **known)]


def test_a_clock_that_does_not_begin_at_0():
    assert times([time + 1e6 for time in STEPS]) == pytest.approx(STEPS)


def test_one_time_far_ahead_is_put_between_those_around_it():
    assert times([*STEPS[:4], 11883.9, *STEPS[5:]]) == pytest.approx([*STEPS[:4], 0.4, *STEPS[5:]])


def test_a_leap_that_stays_is_the_sources_own():
    assert times([0.0, 0.1, 60.0, 60.1]) == pytest.approx([0, 0.1, 60, 60.1])


def test_times_out_of_order_are_brought_into_it_and_nothing_breaks():
    got = frames([0.0, 0.1, 0.2, 0.4, 0.3, 0.5, 0.6], rate=10)
    assert np.diff([frame.time for frame in got]).min() > 0 and not any(frame.broken for frame in got)
    assert [got[-2].time, got[-1].time] == pytest.approx([0.5, 0.6])


def test_a_clock_set_back_goes_on_behind_the_last_frame():
    got = frames([*STEPS, *STEPS], rate=10)
    assert [frame.time for frame in got] == pytest.approx([n / 10 for n in range(20)])
    assert [frame.index for frame in got if frame.broken] == [10] and got[10].broken == "time stepped back"


def test_no_times_at_all_come_from_the_rate():
    assert times([None] * 3, rate=50) == pytest.approx([0, 0.02, 0.04])
    assert times([0.0, 0.1, 0.2, None, 0.4]) == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


def test_the_last_frame_is_shown_to_the_end_of_the_file_or_as_long_as_usual():
    assert frames([0.0, 0.1, 0.2], rate=3 / 0.9, frames=3)[-1].duration == pytest.approx(0.7)
    assert frames([0.0, 0.1, 0.2], rate=3 / 0.9, frames=9)[-1].duration == pytest.approx(0.1)  # it was cut off
    assert frames([0.0, 0.1, 0.2], rate=99, frames=3)[-1].duration == pytest.approx(0.1)  # an average that cannot be
    assert frames([5.0], rate=4)[-1].duration == pytest.approx(0.25)
    assert frames([5.0])[-1].duration > 0 and frames([]) == []


def test_what_came_before_an_error_is_not_lost():
    def pictures():
        yield from (Picture(PIXELS, time) for time in STEPS)
        raise SourceError("broke off")

    got = []
    with pytest.raises(SourceError):
        for frame in recorded(pictures()):
            got.append(frame)
    assert [frame.time for frame in got] == pytest.approx(STEPS) and got[-1].duration == pytest.approx(0.1)
