"""The two sides of the comparison: a bundle as this package runs it, and the published way of decoding.

Both turn the same images into words, preparation included. Stages are timed in the very runs that are timed whole.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clip4str.benchmarks.forcing import ForcedStages, ForcedWords, Forcing
from clip4str.benchmarks.stopwatch import Stopwatch
from clip4str.core.driver import Pass, Stages
from clip4str.runtime import Recognizer, Stats

STAGES = ("prepare", "image", "visual", "text", "cross", "host")


@dataclass
class Turn:
    """One timed batch. seconds: images in, words out. stages and calls: seconds and calls by stage; `host` is
    what is left, the work between stages."""

    seconds: float
    stages: dict[str, float]
    calls: dict[str, int]
    words: list[str]
    stats: Stats | None = None


class TimedStages:
    """Stages under a stopwatch."""

    def __init__(self, stages: Stages, stopwatch: Stopwatch) -> None:
        self.stages, self.stopwatch = stages, stopwatch
        self.flexible_steps = stages.flexible_steps

    def image(self, pixels: Any) -> tuple[Any, ...]:
        with self.stopwatch("image"):
            return self.stages.image(pixels)

    def visual(self, tokens: np.ndarray, attend: np.ndarray, visual_kv: Any) -> Pass:
        with self.stopwatch("visual"):
            return self.stages.visual(tokens, attend, visual_kv)

    def text(self, bpe: np.ndarray) -> Any:
        with self.stopwatch("text"):
            return self.stages.text(bpe)

    def cross(self, tokens: np.ndarray, attend: np.ndarray, cross_kv: Any, text_kv: Any) -> Pass:
        with self.stopwatch("cross"):
            return self.stages.cross(tokens, attend, cross_kv, text_kv)

    def stack(self, rows: Sequence[Any]) -> Any:
        return self.stages.stack(rows)


class BundleSide:
    """This package: a Recognizer's stages and driver."""

    def __init__(self, recognizer: Recognizer, forcing: Forcing | None = None) -> None:
        self.recognizer, self.stopwatch = recognizer, Stopwatch()
        driver, stages = recognizer.driver, TimedStages(recognizer.stages, self.stopwatch)
        self._stages = ForcedStages(stages, forcing, driver.charset, driver.steps) if forcing else stages

    def turn(self, images: Sequence[np.ndarray], warm: bool = False) -> Turn:
        """Read a batch. warm: keep the captions of the turn before; otherwise no caption is known."""
        recognizer = self.recognizer
        if not warm:
            recognizer.driver.cache.clear()
        self.stopwatch.reset()
        began = time.perf_counter()
        with self.stopwatch("prepare"):
            pixels = recognizer.prepare(images)
        reading = recognizer.driver(self._stages, pixels)
        words = [recognizer.driver.charset.decode(row) for row in reading.ids]
        return _turn(self.stopwatch, time.perf_counter() - began, words, reading.stats)


class PublishedSide:
    """Eager torch, one step at a time, over the checkpoint that the bundle was built from, on the same device."""

    def __init__(self, checkpoint: str, recognizer: Recognizer, threads: int, forcing: Forcing | None = None) -> None:
        import torch

        from clip4str.benchmarks.published import Published
        from clip4str.model import load_checkpoint

        torch.set_num_threads(threads)
        manifest, charset = recognizer.manifest, recognizer.driver.charset
        model = load_checkpoint(checkpoint, manifest.image_size, charset.characters, charset.test)
        on_gpu = "CUDAExecutionProvider" in getattr(recognizer.stages, "providers", ())
        self._device = "cuda" if on_gpu and torch.cuda.is_available() else "cpu"
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
        """A pick that still looks for the most likely ids, then spells the forced words."""
        driver = self.recognizer.driver
        ids = ForcedWords(driver.charset, driver.steps, length, images).ids()
        words = self._torch.from_numpy(ids).to(self._device)

        def pick(logits: Any, first: int) -> Any:
            return words[:, first : first + logits.argmax(-1).shape[1]]

        return pick


def _turn(stopwatch: Stopwatch, seconds: float, words: list[str], stats: Stats | None = None) -> Turn:
    stages = {name: stopwatch.seconds[name] for name in STAGES[:-1]}
    stages["host"] = max(0.0, seconds - sum(stages.values()))
    return Turn(seconds, stages, {name: stopwatch.calls[name] for name in STAGES[:-1]}, words, stats)
