"""DeepStream's probes, on a stand-in for pyds that refuses what the recorded API has not (pyds_standin.py)."""

import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from clips import needed
from pipelines import LONG, PLATE, SIGN, Pipeline, Reader, labels, picture, settle
from pyds_standin import LABEL, UNTRACKED, Pyds, items

from clip4str.core.errors import BackendError, UsageError

cv2 = needed("cv2", "video")
from PIL import Image  # noqa: E402

from clip4str.video.deepstream import (  # noqa: E402
    TextProbe,
    WordProbe,
    objects,
)
from clip4str.video.deepstream import word_probe as module  # noqa: E402
from clip4str.video.deepstream.adapter import Adapter, ended  # noqa: E402
from clip4str.video.deepstream.readings import MOST  # noqa: E402
from clip4str.video.events import Gap, WordChanged, WordEnded, WordFound  # noqa: E402

ROOT = Path(__file__).parents[2]


@pytest.fixture
def make():
    """Probes on a stand-in, closed at the end; and no line said that a test does not expect."""
    made = []

    def making(reader, jetson=False, color="RGBA", expected=False, **options):
        pyds, events, said = Pyds(jetson, color), [], []
        probe = WordProbe(reader, pyds=pyds, on_event=events.append, say=said.append, budget=1e6, **options)
        made.append((reader, probe, said, expected))
        return probe, Pipeline(probe, pyds), events, said

    yield making
    for reader, probe, said, expected in made:
        getattr(reader, "gate", threading.Event()).set()
        probe.close(LONG)
        assert expected or said == []


def test_a_word_is_read_once_it_is_seen_and_written_on_later_frames_of_its_object(make):
    reader = Reader({40: ("AB123", 0.95), 200: ("EXIT", 0.97)})
    probe, pipeline, events, _ = make(reader)
    frame = (0, {PLATE: (7, 40), SIGN: (2**63 + 5, 200)})
    first = pipeline.push(frame, look=lambda frames: labels(frames[0]))
    assert first == {7: (None, []), 2**63 + 5: (None, [])}  # nothing is known yet
    for _ in range(5):
        settle(probe)
        seen = pipeline.push(frame, look=lambda frames: labels(frames[0]))
    (text, ((component, label, probability),)) = seen[7]
    assert (text, component, label) == ("AB123", 4000, "AB123") and 0.5 < probability <= 1
    assert seen[2**63 + 5][0] == "EXIT"
    assert {crop.shape for crop in reader.crops} == {(24, 80, 3), (21, 61, 3)}
    settle(probe)
    assert [(type(e), e.source, e.track, e.text) for e in events] == [
        (WordFound, 0, 7, "AB123"), (WordFound, 0, 2**63 + 5, "EXIT")
    ]  # fmt: skip
    probe.close(LONG)
    ends = [e for e in events if isinstance(e, WordEnded)]
    assert [(e.text, e.start, round(e.end, 6), e.frames, e.label) for e in ends] == [
        ("AB123", 0.0, 0.6, 6, "plate"), ("EXIT", 0.0, 0.6, 6, "plate")
    ]  # fmt: skip
    np.testing.assert_array_equal(ends[0].quad, [[10, 10], [90, 10], [90, 34], [10, 34]])
    assert np.median(ends[0].crop) == 40


def test_pixels_are_copied_and_read_in_another_thread_while_the_pipeline_goes_on(make):
    reader = Reader({40: ("AB123", 0.95)})
    probe, pipeline, _, _ = make(reader)
    reader.gate.clear()
    for _ in range(10):  # the reader stands still: no push waits for it
        pipeline.push((0, {PLATE: (7, 40)}))
    assert reader.busy.wait(LONG) and not reader.crops
    reader.gate.set()
    settle(probe)
    assert len(reader.crops) == 1  # one of an object at a time
    assert np.median(reader.crops[0]) == 40  # not what the buffer's memory held later
    assert reader.threads == {probe._readings._thread.ident}


def test_what_waits_for_a_slow_reader_is_bounded(make):
    reader = Reader({40: ("A", 0.9)})
    probe, pipeline, _, _ = make(reader, most=10)
    reader.gate.clear()
    boxes = {(4 + 38 * (n % 8), 4 + 14 * (n // 8), 30, 12): (n, 40) for n in range(64)}
    pipeline.push((0, {PLATE: (999, 40)}))
    assert reader.busy.wait(LONG)
    for _ in range(30):
        before = len(probe._readings._waiting)
        pipeline.push((0, boxes), (1, boxes))
        assert len(probe._readings._waiting) - before <= 20  # ten of each frame
    assert len(probe._readings._waiting) == MOST


def test_no_more_is_cut_once_the_budget_is_used_up(make, monkeypatch):
    reader = Reader({40: ("A", 0.9)})
    probe, pipeline, _, _ = make(reader)
    probe.budget = 5.0
    reader.gate.clear()
    clock = iter(np.arange(1e6) * 0.001)  # each look at it a millisecond later
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(clock))
    boxes = {(4 + 38 * n, 4, 30, 12): (n, 40) for n in range(8)}
    pipeline.push((0, boxes))
    pending = [n for n, f in probe._objects._sources[0].objects.items() if f.pending]
    assert pending == [0, 1, 2, 3]
    pipeline.push((0, boxes))  # the others in their turn
    assert [n for n, f in probe._objects._sources[0].objects.items() if f.pending] == list(range(8))


def test_what_is_never_worth_a_read_does_not_keep_others_from_theirs(make, monkeypatch):
    reader = Reader({40: ("A", 0.9)})
    probe, pipeline, _, _ = make(reader)
    probe.budget = 5.0
    clock = iter(np.arange(1e6) * 0.001)
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(clock))
    blank = [
        {"object_id": n, "box": (4 + 38 * n, 90, 30, 12)} for n in range(4)
    ]  # four looks are all there is time for
    for number in range(2):
        given = {"source_id": 0, "frame_num": number, "pixels": picture({PLATE: 40}),
                 "objects": [*blank, {"object_id": 9, "box": PLATE}]}  # fmt: skip
        buffer = pipeline.pyds.buffer([given])
        probe.process(buffer)
        pipeline.pyds.release(buffer)
    settle(probe)
    assert len(reader.crops) == 1


def test_objects_of_several_sources_share_numbers_but_not_words(make):
    reader = Reader({40: ("GATE", 0.95), 200: ("YARD", 0.95)})
    probe, pipeline, events, _ = make(reader)
    for _ in range(5):
        seen = pipeline.push((3, {PLATE: (7, 40)}), (1, {SIGN: (7, 200)}),
                             look=lambda frames: [labels(f)[7][0] for f in frames])  # fmt: skip
        settle(probe)
    assert seen == ["GATE", "YARD"]
    probe.finish(3)
    settle(probe)
    assert [(e.source, e.text) for e in events if isinstance(e, WordEnded)] == [(3, "GATE")]


def test_reads_vote_and_stop_once_they_agree(make):
    reader = Reader({40: ("A8123", 0.5)})
    probe, pipeline, events, _ = make(reader)
    pipeline.push((0, {PLATE: (7, 40)}))
    settle(probe)
    reader.words[40] = ("AB123", 0.95)
    for _ in range(15):
        pipeline.push((0, {PLATE: (7, 40)}))
        settle(probe)
    assert [e.text for e in events][-1] == "AB123" and len(reader.crops) <= 5


def test_a_pattern_lets_only_whole_matches_vote(make):
    reader = Reader({40: ("POLICE", 0.99)})
    probe, pipeline, events, _ = make(reader, pattern="[A-Z]{2}[0-9]{3}")
    for _ in range(8):
        pipeline.push((0, {PLATE: (7, 40)}))
        settle(probe)
    assert events == [] and len(reader.crops) >= 2
    reader.words[40] = ("AB123", 0.9)
    for _ in range(40):
        pipeline.push((0, {PLATE: (7, 40)}))
        settle(probe)
    assert events[0].text == "AB123"


def test_a_display_on_one_object_that_changes_is_told_as_changed(make):
    reader = Reader({40: ("OPEN", 0.95), 200: ("CLOSED", 0.95)})
    probe, pipeline, events, _ = make(reader)
    for _ in range(10):
        pipeline.push((0, {PLATE: (7, 40)}))
        settle(probe)
    for _ in range(60):
        seen = pipeline.push((0, {PLATE: (7, 200)}), look=lambda frames: labels(frames[0])[7][0])
        settle(probe)
    assert seen == "CLOSED"
    assert [(e.previous, e.text) for e in events if isinstance(e, WordChanged)] == [("OPEN", "CLOSED")]


def test_what_the_tracker_drops_is_ended_and_forgotten(make):
    reader = Reader({40: ("AB123", 0.95)})
    probe, pipeline, events, _ = make(reader, forget=5)
    for _ in range(4):
        pipeline.push((0, {PLATE: (7, 40)}))
        settle(probe)
    for _ in range(5):
        pipeline.push((0, {}))
    assert not any(isinstance(e, WordEnded) for e in events)  # the tracker may still show it again
    pipeline.push((0, {}))
    settle(probe)
    (end,) = [e for e in events if isinstance(e, WordEnded)]
    assert (end.text, round(end.end, 6), end.frames) == ("AB123", 0.4, 4) and not probe._objects._sources[0].objects


def test_words_of_a_source_that_stays_away_are_ended(make, monkeypatch):
    reader = Reader({40: ("GATE", 0.95)})
    probe, pipeline, events, _ = make(reader)
    for _ in range(3):
        pipeline.push((0, {}), (1, {PLATE: (7, 40)}))
        settle(probe)
    now = time.monotonic()
    monkeypatch.setattr(objects.time, "monotonic", lambda: now + 61)
    pipeline.push((0, {}))
    settle(probe)
    assert [(e.source, e.text) for e in events if isinstance(e, WordEnded)] == [(1, "GATE")]
    assert list(probe._objects._sources) == [0]


def test_a_tracker_that_gives_ever_new_numbers_does_not_fill_the_memory(make):
    reader = Reader({40: ("A", 0.95)})
    probe, pipeline, _, _ = make(reader, forget=10**6)
    for number in range(objects.MOST + 50):
        pipeline.push((0, {PLATE: (number, 40)}))
    kept = probe._objects._sources[0].objects
    assert len(kept) == objects.MOST and min(kept) == 50


def test_a_stream_that_starts_anew_ends_its_words(make):
    reader = Reader({40: ("AB123", 0.95)})
    probe, pipeline, events, _ = make(reader)
    for _ in range(30):
        pipeline.push((0, {PLATE: (7, 40)}))
        settle(probe)
    pipeline.number[0] = 0
    for _ in range(4):
        pipeline.push((0, {PLATE: (7, 40)}))
        settle(probe)
    kinds = [type(e) for e in events]
    assert kinds == [WordFound, Gap, WordEnded, WordFound] and events[1].reason == "time stepped back"
    assert events[3].start >= events[2].end


def test_objects_without_number_of_other_classes_and_out_of_the_frame_are_not_read(make):
    reader = Reader({40: ("A", 0.9)})
    probe, _, _, said = make(reader, classes={0}, expected=True)
    odd = [(-50, -50, 20, 20), (400, 10, 30, 30), (10, 10, 0, 0), (10, 10, 2, 50), (10, 10, -5, 20),
           (float("nan"), 0, 10, 10), (0, 0, float("inf"), 10)]  # fmt: skip
    objects = [{"object_id": n, "box": box} for n, box in enumerate(odd)]
    objects += [{"object_id": UNTRACKED, "box": PLATE}, {"object_id": 50, "box": PLATE, "class_id": 3}]
    for number in range(3):
        given = {"source_id": 0, "frame_num": number, "pixels": picture({PLATE: 40}), "objects": objects}
        buffer = probe._adapter._pyds.buffer([given])
        probe.process(buffer)
        probe._adapter._pyds.release(buffer)
    settle(probe)
    assert reader.crops == []
    assert said == ["WordProbe: objects have no number, and are not read: nvtracker must come before the probe"]


def test_a_jetsons_surfaces_are_mapped_only_where_a_crop_is_cut_and_always_unmapped(make, monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    reader = Reader({40: ("AB123", 0.95)})
    probe, pipeline, _, _ = make(reader, jetson=True)
    for _ in range(10):
        pipeline.push((0, {PLATE: (7, 40)}), (1, {}))  # refused where it is not unmapped
        settle(probe)
    calls = Counter(pipeline.pyds.calls)
    assert 1 <= calls["get_nvds_buf_surface"] == calls["unmap_nvds_buf_surface"] <= 5


def test_long_and_short_labels_fit_their_128_bytes_and_nothing_of_older_ones_is_left(make):
    reader = Reader({40: ("Ω" * 100, 0.95), 200: ("A", 0.95)})
    probe, pipeline, _, _ = make(reader)
    for _ in range(5):
        seen = pipeline.push((0, {PLATE: (7, 40), SIGN: (8, 200)}), look=lambda frames: labels(frames[0]))
        settle(probe)
    assert seen[7][0] == "Ω" * 100 and seen[7][1][0][1] == "Ω" * 63 and seen[8][1][0][1] == "A"
    assert len(ended("Ω" * 100).encode()) == LABEL - 1 and ended("a\0b") == "ab\0"


class Info:
    def __init__(self, buffer):
        self.buffer = buffer

    def get_buffer(self):
        return self.buffer


def test_whatever_goes_wrong_the_buffer_passes_and_it_is_said_once(make):
    reader = Reader({40: RuntimeError("out of memory\nat once")})
    probe, pipeline, _, said = make(reader, expected=True)
    for _ in range(5):
        pipeline.push((0, {PLATE: (7, 40)}))
        settle(probe)
    assert said == ["WordProbe: out of memory"]
    reader.words[40] = ("AB123", 0.95)  # and it goes on
    for _ in range(5):
        seen = pipeline.push((0, {PLATE: (7, 40)}), look=lambda frames: labels(frames[0])[7][0])
        settle(probe)
    assert seen == "AB123"
    probe, pipeline, _, said = make(reader, color="NV12", expected=True)
    for number in range(3):
        given = {"source_id": 0, "frame_num": number, "pixels": picture({PLATE: 40}),
                 "objects": [{"object_id": 1, "box": PLATE}]}  # fmt: skip
        buffer = pipeline.pyds.buffer([given])
        assert probe(None, Info(buffer)) == 1
        pipeline.pyds.release(buffer)
    assert probe(None, Info(None)) == 1
    assert said == ["WordProbe: surfaces are not RGBA: nvvideoconvert ! video/x-raw(memory:NVMM),format=RGBA"]


def test_a_listener_that_fails_loses_no_other_event(make):
    reader = Reader({40: ("AB123", 0.95), 200: ("EXIT", 0.95)})
    probe, pipeline, events, said = make(reader, expected=True)

    def failing(event):
        events.append(event)
        raise ValueError("full")

    probe._readings.on_event = failing
    for _ in range(4):
        pipeline.push((0, {PLATE: (7, 40), SIGN: (8, 200)}))
        settle(probe)
    probe.close(LONG)
    assert Counter(type(e) for e in events) == {WordFound: 2, WordEnded: 2} and said == [
        "WordProbe: on_event: ValueError: full"
    ]


def test_closing_reads_what_waits_and_buffers_after_it_pass(make):
    reader = Reader({40: ("AB123", 0.95)})
    probe, pipeline, events, _ = make(reader)
    pipeline.push((0, {PLATE: (7, 40)}))
    probe.close(LONG)
    probe.close(LONG)
    assert [type(e) for e in events] == [WordFound, WordEnded]
    pipeline.push((0, {PLATE: (7, 40)}))
    assert len(events) == 2 and not probe._objects.told


def test_real_crops_are_read_by_the_real_network(recognizer, make):
    crop = np.asarray(Image.open(ROOT / "export/sample_crops/01-HAPPENINGS.jpg").convert("RGB"))
    height, width = crop.shape[:2]
    pixels = np.full((height + 40, width + 40, 3), 90, np.uint8)
    pixels[20 : 20 + height, 20 : 20 + width] = crop
    probe, pipeline, events, _ = make(recognizer)
    for number in range(2):
        given = {"source_id": 0, "frame_num": number, "pixels": pixels, "pts": number * 10**8,
                 "objects": [{"object_id": 1, "box": (20, 20, width, height)}]}  # fmt: skip
        buffer = pipeline.pyds.buffer([given])
        probe.process(buffer)
        seen = labels(items(buffer.batch, "frame_meta_list")[0])
        pipeline.pyds.release(buffer)
        settle(probe)
    probe.close(LONG)
    assert seen[1][0] == "HAPPENINGS" and events[-1].text == "HAPPENINGS"


def test_many_threads_of_a_pipeline_may_come_at_once(make):
    reader = Reader({40: ("AB123", 0.95)})
    probe, _, events, _ = make(reader)
    pipelines = [Pipeline(probe, probe._adapter._pyds) for _ in range(4)]
    failed = []

    def run(source):
        try:
            for _ in range(60):
                pipelines[source].push((source, {PLATE: (7, 40)}))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(source,)) for source in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    probe.close(LONG)
    assert failed == [] and Counter(type(e) for e in events)[WordEnded] == 4


def test_what_is_no_option_and_a_machine_without_deepstream_are_one_line():
    for wrong in ({"most": 0}, {"budget": 0}, {"forget": 0}):
        with pytest.raises(UsageError):
            WordProbe(Reader({}), pyds=Pyds(), **wrong)
    with pytest.raises(UsageError):
        TextProbe(most=0, words=False, pyds=Pyds())
    with pytest.raises(BackendError, match="DeepStream's Python bindings are not installed"):
        Adapter()


def test_the_pages_script_says_what_it_lacks():
    """Of GStreamer's Python, which no pip installs."""
    script = ROOT / "docs" / "deepstream" / "words.py"
    code = "import runpy, sys; sys.modules['gi'] = None; sys.argv[:1] = []; runpy.run_path(sys.argv[0])"
    done = subprocess.run([sys.executable, "-c", code, str(script), "--help"], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "apt-get install python3-gi" in done.stderr and "--system-site-packages" in done.stderr
