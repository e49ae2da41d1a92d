"""A page to watch without a video: sources that give nothing, events and frames made by hand, a small HTTP client."""

from __future__ import annotations

import http.client
import json
import struct
from contextlib import closing

import numpy as np

from clip4str.video.events import Shown, WordEnded, WordFound
from clip4str.video.frames import Frame
from clip4str.video.sources.base import Source
from clip4str.video.view import View

QUAD = np.array([[10, 10], [50, 10], [50, 30], [10, 30]], np.float32)
GROUND = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)


def camera(name="rtsp://camera/1", live=True):
    source = Source()
    source.name, source.live = name, live
    return source


def page(*names, address="0", token=None, live=True):
    """A View that answers, of sources with these names."""
    view = View(address, token)
    view.start([camera(name, live) for name in names or ("rtsp://camera/1",)])
    return view


def found(track, text="word", source=0, time=1.0):
    return WordFound(source, track, time, 0.5, text, 0.9, QUAD)


def ended(track, text="word", source=0, crop=GROUND[:20, :40]):
    return WordEnded(source, track, text, 0.9, 0.5, 2.0, 1.0, QUAD, 3, 7, crop=crop)


def frame(number, pixels=None, step=0.1):
    return Frame(np.roll(GROUND, number, 1) if pixels is None else pixels, number * step, number)


def shown(track=1, text="word"):
    return [Shown(QUAD, text, 0.9, True, track)]


def get(view, path, method="GET", **headers):
    """(status, headers, content). Underscores of headers' names stand for hyphens."""
    with closing(http.client.HTTPConnection("127.0.0.1", view.server.port, timeout=30)) as connection:
        connection.request(method, path, headers={k.replace("_", "-"): v for k, v in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()


def picture(data):
    """(what is told of it, JPEG) of an answer."""
    length = struct.unpack(">I", data[:4])[0]
    return json.loads(data[4 : 4 + length]), data[4 + length :]


class Events:
    """A viewer's server-sent events."""

    def __init__(self, view, last=None, path="/events"):
        self.connection = http.client.HTTPConnection("127.0.0.1", view.server.port, timeout=30)
        self.connection.request("GET", path, headers={} if last is None else {"Last-Event-ID": last})
        self.answer = self.connection.getresponse()

    def next(self):
        """(kind, identity, values)"""
        fields = {}
        while line := self.answer.readline().decode().rstrip("\n"):
            name, _, value = line.partition(": ")
            fields[name] = value
        return fields["event"], fields.get("id"), json.loads(fields["data"])

    def until(self, kind):
        """The first of that kind, (identity, values)."""
        while (event := self.next())[0] != kind:
            pass
        return event[1:]

    def close(self):
        self.connection.close()
        self.answer.close()
