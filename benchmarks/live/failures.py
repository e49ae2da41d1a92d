"""The ways in which a camera fails. Each function breaks one; returns when it was back, by time.monotonic()."""

from __future__ import annotations

import time
from collections.abc import Callable

from .camera import Camera

Pause = Callable[[float], object]
TIMEOUT = 3.0  # seconds without data after which those who watch are to give a connection up


def ended(camera: Camera, away: float, pause: Pause) -> float:
    camera.tell("eos")
    return time.monotonic()


def killed(camera: Camera, away: float, pause: Pause) -> float:
    camera.kill()
    pause(away)
    return camera.start()


def silent(camera: Camera, away: float, pause: Pause) -> float:
    """Its connections stay, and its port accepts others, but nothing comes: until everybody has given it up."""
    camera.stall()
    pause(TIMEOUT + away)
    return camera.resume()


def stalled(camera: Camera, away: float, pause: Pause) -> float:
    """For a time that connections outlast."""
    camera.stall()
    pause(0.8 * TIMEOUT)
    return camera.resume()


def locked(camera: Camera, away: float, pause: Pause) -> float:
    """It answers, and refuses everybody."""
    camera.start(password="another")
    pause(away)
    return camera.start()


def resized(camera: Camera, away: float, pause: Pause) -> float:
    return camera.start(width=480, height=360)


def recoded(camera: Camera, away: float, pause: Pause) -> float:
    return camera.start(codec="mjpeg")


def turned(camera: Camera, away: float, pause: Pause) -> float:
    return camera.start(width=480, height=480, flip="90r")


def resized_at_once(camera: Camera, away: float, pause: Pause) -> float:
    """While connected: OpenCV stretches the picture to the size that it was, and tells nobody."""
    camera.tell("size 800x360")
    return time.monotonic()


def set_back(camera: Camera, away: float, pause: Pause) -> float:
    """Its clock."""
    camera.tell("back 1.5")
    return time.monotonic()


FAILURES: dict[str, Callable[[Camera, float, Pause], float]] = {
    each.__name__.replace("_", " "): each
    for each in (ended, killed, silent, stalled, locked, resized, recoded, turned, resized_at_once, set_back)
}
UNSEEN = {("resized at once", "opencv")}  # what a client cannot notice
