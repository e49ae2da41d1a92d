"""A pipeline's buffers without a pipeline: objects in frames, on the stand-in for pyds."""

from __future__ import annotations

import threading
from collections import Counter

import numpy as np
from pyds_standin import items

from clip4str.runtime import Word

LONG = 20.0  # seconds that nothing here takes
SIZE = (120, 320)
PLATE, SIGN = (10, 10, 80, 24), (150.4, 60.7, 60, 20)


class Reader:
    """Reads a crop's word by its colour, (level, level, level): what `words` says at that level. Blocks while `gate` is
    closed."""

    def __init__(self, words):
        self.words, self.gate, self.crops, self.busy = words, threading.Event(), [], threading.Event()
        self.gate.set()
        self.threads = set()

    def read(self, crops, on_error):
        self.threads.add(threading.get_ident())
        self.busy.set()
        assert self.gate.wait(LONG)
        self.crops += [crop.copy() for crop in crops]
        answers = [self.words.get(int(np.median(crop)), ("", 0.0)) for crop in crops]
        if any(isinstance(answer, Exception) for answer in answers):
            raise next(answer for answer in answers if isinstance(answer, Exception))
        return [Word(text, confidence, ()) for text, confidence in answers]


def picture(boxes, size=SIZE):
    """A grey frame with sharp stripes at {box: level}, so that crops are worth a read; their median is the level."""
    pixels = np.full((*size, 3), 128, np.uint8)
    for (left, top, width, height), level in boxes.items():
        part = pixels[int(top) : int(top + height), int(left) : int(left + width)]
        part[:] = level
        part[:, ::5] = 255 if level < 128 else 0
    return pixels


class Pipeline:
    """Buffers through a probe, each gone before the next one comes."""

    def __init__(self, probe, pyds):
        self.probe, self.pyds, self.number = probe, pyds, Counter()

    def push(self, *frames, look=lambda metas: None):
        """frames: (source, {box: (object's number, level)}); what `look` makes of the buffer's frame metadata."""
        given = []
        for source, objects in frames:
            given.append({
                "source_id": source, "frame_num": self.number[source], "pts": self.number[source] * 100_000_000,
                "pixels": picture({box: level for box, (_, level) in objects.items()}),
                "objects": [{"object_id": number, "box": box} for box, (number, _) in objects.items()],
            })  # fmt: skip
            self.number[source] += 1
        buffer = self.pyds.buffer(given)
        self.probe.process(buffer)
        seen = look(items(buffer.batch, "frame_meta_list"))
        self.pyds.release(buffer)
        return seen


def settle(probe):
    """What was cut is read, and told."""
    done = threading.Event()
    while not done.is_set():
        with probe._objects.lock:
            pending = any(f.pending for s in probe._objects._sources.values() for f in s.objects.values())
            if not pending and not probe._objects.told:
                return
        done.wait(0.001)


def labels(frame):
    """{object's number: (display text, [(component, label, probability)])}"""
    found = {}
    for each in items(frame, "obj_meta_list"):
        classes = []
        for classifier in items(each, "classifier_meta_list"):
            (label,) = items(classifier, "label_info_list")
            classes.append((classifier.unique_component_id, label.result_label, round(label.result_prob, 2)))
        found[each.object_id] = (each.text_params._all[4].get("display_text"), classes)
    return found
