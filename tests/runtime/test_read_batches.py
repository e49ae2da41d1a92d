"""What Recognizer.read does with batches: the next one is loaded while one is read."""

import threading

import numpy as np
import pytest

from clip4str.core.errors import ImageError
from clip4str.runtime import Recognizer
from clip4str.runtime.loading import HostLoading


@pytest.fixture
def recognizer(tiny_bundle):
    loaded = Recognizer.load(tiny_bundle, backend="onnxruntime", threads=1, batch_size=2)
    with loaded:
        yield loaded


@pytest.fixture
def crops(golden):
    return list(golden("tiny")["images"][:5])


def test_the_next_batch_is_asked_for_before_the_words_of_one_are_given(recognizer, crops, monkeypatch):
    """In this order: load 1, wait 1, load 2, read 1, wait 2 ..., and arrays may change once they were waited for."""
    done, load = [], recognizer.backend.load

    class Noted(HostLoading):
        def wait(self):
            done.append(("wait", self.number))
            super().wait()

        def close(self):
            done.append(("close", self.number))
            super().close()

    def noted(images, normalization):
        loading = load(images, normalization)
        loading.__class__, loading.number = Noted, sum(name == "load" for name, _ in done) + 1
        done.append(("load", loading.number))
        return loading

    want = [word.text for word in recognizer.read(crops)]
    monkeypatch.setattr(recognizer.backend, "load", noted)

    def reused():
        """A source that has a single batch's room for its arrays."""
        room = np.empty((2, *crops[0].shape), np.uint8)
        for number, crop in enumerate(crops):
            room[number % 2] = crop
            yield room[number % 2]

    assert [word.text for word in recognizer.read(reused())] == want
    order = [step for step in dict.fromkeys(done) if step[0] != "close"]
    assert order == [("load", 1), ("wait", 1), ("load", 2), ("wait", 2), ("load", 3), ("wait", 3)]
    assert done.index(("close", 1)) > done.index(("load", 2)) and done.index(("close", 1)) < done.index(("wait", 2))


def test_an_error_lets_go_of_the_batch_that_waits(recognizer, crops, monkeypatch):
    closed, load = [], recognizer.backend.load
    monkeypatch.setattr(HostLoading, "close", lambda self: closed.append(self))
    loadings = []
    monkeypatch.setattr(recognizer.backend, "load", lambda *a: loadings.append(load(*a)) or loadings[-1])
    with pytest.raises(ImageError, match=r"images\[1\]: no.png: no such file") as told:
        recognizer.read([crops[0], "no.png", *crops[1:]])
    assert told.value.index == 1 and len(loadings) == 2 and set(loadings) == set(closed)


def test_batches_are_read_as_one_by_one(recognizer, crops):
    many = [crops[:2], [], ["no.png", crops[2]], crops[3:]]
    want = [list(map(str, recognizer.read_each(batch))) for batch in many]
    assert [list(map(str, found)) for found in recognizer.read_batches(many)] == want
    assert threading.active_count() < 20
