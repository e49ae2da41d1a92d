"""Forces words of a given length after a given number of passes, so that untrained weights can be timed.

Every stage is computed as usual, then the ids it returned are replaced. Both ways of decoding get the same
words, so both do the work that a trained network would need.

Shapes: N images, T = 26 steps.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clip4str.core.driver import PredictAndRefine
from clip4str.core.errors import UsageError
from clip4str.core.masks import Rule
from clip4str.core.reading import Pass, Reading, Stages
from clip4str.core.text import Charset
from clip4str.runtime.backends.contract import Backend, Wrapper


@dataclass(frozen=True)
class Forcing:
    """length: characters a word. visual_passes: passes until the visual branch has settled, the first guess
    and the confirming pass included, so at least 2. cross_passes: the same, from the visual word, at least 1.
    text_calls: 1, or 2 if refining the visual word changes its caption."""

    length: int = 6
    visual_passes: int = 3
    cross_passes: int = 3
    text_calls: int = 1

    def __post_init__(self) -> None:
        bounds = {"length": (1, 25), "visual_passes": (2, 26), "cross_passes": (1, 26), "text_calls": (1, 2)}
        for name, (low, high) in bounds.items():
            if not low <= getattr(self, name) <= high:
                raise UsageError(f"{name.replace('_', ' ')} to force: {low} to {high}, not {getattr(self, name)}")

    def describe(self) -> str:
        return (
            f"forced: words of {self.length} characters, {self.visual_passes} visual and {self.cross_passes} "
            f"cross passes, {self.text_calls} text calls (all stages are computed, then ids replaced)"
        )


class ForcedWords:
    """N different words over the characters that captions keep, and wrong variants of them."""

    def __init__(self, charset: Charset, steps: int, length: int, images: int) -> None:
        self._alphabet = charset.encode("".join(c for c in charset.characters if c in charset.test))
        self.length = min(length, steps - 1)
        ids = np.zeros((images, steps), np.int64)  # 0 is the end token
        for row, word in enumerate(ids):
            word[: self.length] = random.Random(row).choices(self._alphabet, k=self.length)
        self.images, self._variants = images, {0: ids}

    def ids(self, variant: int = 0) -> np.ndarray:
        """(N, T): the words, with another last character for every variant but 0."""
        if variant not in self._variants:
            ids, last = self._variants[0].copy(), self.length - 1
            places = [self._alphabet.index(i) for i in ids[:, last]]
            ids[:, last] = [self._alphabet[(p + variant) % len(self._alphabet)] for p in places]
            self._variants[variant] = ids
        return self._variants[variant]


class ForcedStages(Stages):
    """Stages whose passes spell given words. One batch at a time; `image` starts a new one."""

    def __init__(self, stages: Stages, forcing: Forcing, charset: Charset, steps: int) -> None:
        self.stages, self.forcing = stages, forcing
        self.flexible_steps = stages.flexible_steps
        self._charset, self._steps = charset, steps
        self._words: ForcedWords | None = None
        self._visual = self._cross = 0

    def image(self, pixels: Any) -> tuple[Any, ...]:
        """Without the draft, which would differ from the forced word and cost extra passes."""
        if self._words is None or self._words.images != len(pixels):
            self._words = ForcedWords(self._charset, self._steps, self.forcing.length, len(pixels))
        self._visual = self._cross = 0
        return self.stages.image(pixels)[:2]

    def visual(self, tokens: np.ndarray, rule: Rule, visual_kv: Any) -> Pass:
        self._visual += 1
        before_right = self.forcing.visual_passes - 1 - self._visual
        refining = self._visual > self.forcing.visual_passes
        variant = self.forcing.text_calls - 1 if refining else max(0, before_right)
        return self._spell(self.stages.visual(tokens, rule, visual_kv), variant)

    def text(self, bpe: np.ndarray) -> Any:
        return self.stages.text(bpe)

    def cross(self, tokens: np.ndarray, rule: Rule, cross_kv: Any, text_kv: Any) -> Pass:
        self._cross += 1
        passes = self.forcing.cross_passes
        # One pass: it confirms the visual word. More: the branches disagree, and the cross-modal word wins.
        variant = 0 if passes == 1 else 1 + max(0, passes - 1 - self._cross)
        return self._spell(self.stages.cross(tokens, rule, cross_kv, text_kv), variant)

    def stack(self, rows: Sequence[Any]) -> Any:
        return self.stages.stack(rows)

    def _spell(self, out: Pass, variant: int) -> Pass:
        assert self._words is not None, "image() starts a batch"
        ids = self._words.ids(variant)[:, : out.ids.shape[1]].astype(out.ids.dtype)
        return Pass(ids, out.probs, out.logits)


class ForcedBackend(Wrapper):
    """A backend whose passes spell given words. Raises UsageError for a backend that makes the passes in a single
    program, where ids cannot be replaced."""

    def __init__(self, inner: Backend, forcing: Forcing, driver: PredictAndRefine) -> None:
        if not inner.driven:
            raise UsageError("passes can only be forced where the driver makes them; here a single program does")
        super().__init__(inner)
        self._forced = ForcedStages(inner, forcing, driver.charset, driver.steps)

    def read(self, driver: PredictAndRefine, pixels: Any, stages: Stages | None = None) -> Reading:
        return self.inner.read(driver, pixels, self._forced)
