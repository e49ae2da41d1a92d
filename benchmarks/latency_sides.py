"""The two sides of the comparison: a bundle as this package runs it, and the published way of decoding.

Both turn the same images into words, preparation included. Stages and whole batches are timed in the same runs.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clip4str.benchmarks.forcing import ForcedBackend, ForcedWords, Forcing
from clip4str.benchmarks.stopwatch import Stopwatch
from clip4str.core.driver import PredictAndRefine
from clip4str.core.masks import Rule
from clip4str.core.reading import Pass, Reading, Stages
from clip4str.runtime import Recognizer, Stats
from clip4str.runtime.backends.contract import Backend, Wrapper

STAGES = ("prepare", "image", "visual", "text", "cross", "program", "host")


@dataclass
class Turn:
    """One timed batch. seconds: images in, words out. stages and calls: seconds and calls by stage; `host` is
    the rest, the work between stages."""

    seconds: float
    stages: dict[str, float]
    calls: dict[str, int]
    words: list[str]
    stats: Stats | None = None


class TimedBackend(Wrapper):
    """A backend under a stopwatch. A program that reads in one go is timed as its stage "program"."""

    def __init__(self, inner: Backend, stopwatch: Stopwatch) -> None:
        super().__init__(inner)
        self.stopwatch = stopwatch

    def image(self, pixels: Any) -> tuple[Any, ...]:
        with self.stopwatch("image"):
            return self.inner.image(pixels)

    def visual(self, tokens: np.ndarray, rule: Rule, visual_kv: Any) -> Pass:
        with self.stopwatch("visual"):
            return self.inner.visual(tokens, rule, visual_kv)

    def text(self, bpe: np.ndarray) -> Any:
        with self.stopwatch("text"):
            return self.inner.text(bpe)

    def cross(self, tokens: np.ndarray, rule: Rule, cross_kv: Any, text_kv: Any) -> Pass:
        with self.stopwatch("cross"):
            return self.inner.cross(tokens, rule, cross_kv, text_kv)

    def read(self, driver: PredictAndRefine, pixels: Any, stages: Stages | None = None) -> Reading:
        if self.driven:
            return super().read(driver, pixels, stages)
        with self.stopwatch("program"):
            return super().read(driver, pixels, stages)


class BundleSide:
    """This package: a Recognizer whose backend is timed, so that reading takes its usual path."""

    def __init__(self, recognizer: Recognizer, forcing: Forcing | None = None) -> None:
        self.stopwatch, driver = Stopwatch(), recognizer.driver
        backend: Backend = TimedBackend(recognizer.backend, self.stopwatch)
        if forcing:
            backend = ForcedBackend(backend, forcing, driver)
        self.recognizer = Recognizer(recognizer.bundle, backend, driver)

    def turn(self, images: Sequence[np.ndarray], warm: bool = False) -> Turn:
        """Read a batch. warm: keep the captions of the turn before; otherwise no caption is known."""
        recognizer = self.recognizer
        if not warm:
            recognizer.driver.cache.clear()
        self.stopwatch.reset()
        recognizer.reset_stats()
        began = time.perf_counter()
        with self.stopwatch("prepare"):
            pixels = recognizer.prepare(images)
        words = [word.text for word in recognizer.read_pixels(pixels)]
        return _turn(self.stopwatch, time.perf_counter() - began, words, recognizer.stats)


class PublishedSide:
    """Eager torch, one step at a time, over the checkpoint that the bundle was built from, on the same device."""

    def __init__(self, checkpoint: str, recognizer: Recognizer, threads: int, forcing: Forcing | None = None) -> None:
        import torch

        from clip4str.benchmarks.published import Published
        from clip4str.model import load_checkpoint

        torch.set_num_threads(threads)
        manifest, charset = recognizer.manifest, recognizer.driver.charset
        model = load_checkpoint(checkpoint, manifest.image_size, charset.characters, charset.test)
        self._device = "cuda" if recognizer.backend.on_gpu and torch.cuda.is_available() else "cpu"
        self.recognizer, self._forcing, self._torch = recognizer, forcing, torch
        self.stopwatch = Stopwatch(torch.cuda.synchronize if self._device == "cuda" else None)
        self._published = Published(model.to(self._device), stopwatch=self.stopwatch)

    def turn(self, images: Sequence[np.ndarray]) -> Turn:
        if self._forcing:
            self._published.pick = self._forced(len(images), self._forcing.length)
        self.stopwatch.reset()
        began = time.perf_counter()
        with self.stopwatch("prepare"):
            pixels = self._torch.from_numpy(self.recognizer.prepare(images)).to(self._device)
        words = self._published.words(self._published(pixels))
        return _turn(self.stopwatch, time.perf_counter() - began, words)

    def _forced(self, images: int, length: int) -> Any:
        """A pick that computes the most likely ids, then returns the forced words."""
        driver = self.recognizer.driver
        ids = ForcedWords(driver.charset, driver.steps, length, images).ids()
        words = self._torch.from_numpy(ids).to(self._device)

        def pick(logits: Any, first: int) -> Any:
            return words[:, first : first + logits.argmax(-1).shape[1]]

        return pick


def _turn(stopwatch: Stopwatch, seconds: float, words: list[str], stats: Stats | None = None) -> Turn:
    ran = [name for name in STAGES[:-1] if name != "program" or stopwatch.calls[name]]
    stages = {name: stopwatch.seconds[name] for name in ran}
    stages["host"] = max(0.0, seconds - sum(stages.values()))
    return Turn(seconds, stages, {name: stopwatch.calls[name] for name in ran}, words, stats)
