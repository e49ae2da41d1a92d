"""Decoder passes over small integer arrays: what core/driver.py does with numpy, as nodes.

N rows, T steps; S content positions and W positions computed, both T but in flexible decoders. What is said of rows
(ends, lengths, flags) is (N, 1); widths are (1,) int64, as shapes are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from clip4str.core.masks import Rule
from clip4str.core.text import END
from clip4str.export.graph import Graph

from .bodies import BOOL, FLOAT, INT32, INT64, every, iota, loop, number, numbers, reduce, some
from .stages import StageGraphs

_MOST_LOGIT = 1e30  # for the sum of a word's; NaN is not below it either


class Passed(NamedTuple):
    """What a pass gives: ids (N, T) int32, probs (N, T) float32; is everything finite, (N, 1) bool?"""

    ids: str
    probs: str
    finite: str


@dataclass(frozen=True)
class Decoder:
    """A decoder stage over its memory, values by the names of the stage's inputs. start: the start token. flexible:
    compute no more positions than the words of the batch need, as the driver does where shapes are free."""

    stages: StageGraphs
    name: str
    memory: dict[str, str]
    steps: int
    start: int
    flexible: bool

    def guess(self, g: Graph, rows: str) -> Passed:
        """From the start token alone. rows: (N, 1) int32, of which only N counts."""
        ids = g.op("Mul", rows, numbers(g, f"zeros_{self.steps}", np.zeros((1, self.steps))))
        nobody = g.op("Mul", rows, number(g, 0))
        contents = g.integers(1) if self.flexible else None
        return self._call(g, self._tokens(g, ids, contents), self._attend(g, "start", nobody, None, contents))

    def causal(self, g: Graph, ids: str, limit: str) -> tuple[Passed, str]:
        """A pass towards the greedy word, of at most `limit` steps; and had `ids` been it up to its end?"""
        width = self._width(g, ids, limit) if self.flexible else None
        everybody = g.op("Add", g.op("Mul", limit, number(g, 0)), number(g, self.steps))
        attend = self._attend(g, "causal", everybody, width, width)
        out = self._whole(g, self._call(g, self._tokens(g, ids, width), attend), ids, width)
        needed = g.op("Min", first_end(g, out.ids, self.steps), g.op("Sub", limit, number(g, 1)))
        same = g.op("Or", g.op("Equal", ids, out.ids), g.op("Not", g.op("Less", iota(g, self.steps), needed)))
        settled = every(g, same, 1)
        if width is not None:
            settled = g.op("And", settled, g.op("Less", needed, g.op("Cast", width, to=INT32)))
        return out, settled

    def cloze(self, g: Graph, ids: str, lengths: str) -> Passed:
        """Every position anew, from `[start] + ids[:lengths - 1]` before its end token."""
        keep = g.op("Min", first_end(g, ids, self.steps), g.op("Sub", lengths, number(g, 1)))
        if not self.flexible:
            return self._call(g, self._tokens(g, ids, None), self._attend(g, "cloze", keep, None, None))
        most = g.op("Add", reduce(g, "Max", keep, 0, 1, keepdims=0), number(g, 1))
        contents = g.op("Unsqueeze", g.op("Cast", most, to=INT64), g.integers(0))
        tokens, ends = self._tokens(g, ids, contents), g.op("Mul", ids, number(g, END))
        steps = number(g, self.steps)

        def step(body: Graph, width: str, *_: str) -> tuple[str, list[str]]:
            attend = self._attend(body, "cloze", keep, width, contents)
            out = self._whole(body, self._call(body, tokens, attend), ends, width)
            columns = body.op("Cast", width, to=INT32)
            ended = body.op("Less", first_end(body, out.ids, self.steps), columns)
            grown = body.op("And", some(body, body.op("Not", ended), 0, 1), body.op("Less", columns, steps))
            return body.op("Squeeze", grown), [body.integers(self.steps), *out]

        none = g.op("Less", ids, number(g, 0))
        carried = [
            (self._width(g, ids, g.op("Add", g.op("Mul", keep, number(g, 0)), number(g, self.steps))), INT64, (1,)),
            (ends, INT32, ("N", self.steps)),
            (g.op("Cast", ends, to=FLOAT), FLOAT, ("N", self.steps)),
            (_part(g, none, 0, 1), BOOL, ("N", 1)),
        ]
        return Passed(*loop(g, "cloze", 2, carried, step)[1:])

    def _call(self, g: Graph, tokens: str, attend: str) -> Passed:
        ids, probs, logits = self.stages.call(
            g, self.name, ("ids", "probs", "logits"), tokens=tokens, attend=attend, **self.memory
        )
        total = g.op("Abs", reduce(g, "Sum", logits, 1, 2, keepdims=0))
        finite = g.op("LessOrEqual", total, g.constant("most_logit", np.array(_MOST_LOGIT, np.float32)))
        return Passed(ids, probs, g.op("Unsqueeze", finite, g.integers(1)))

    def _whole(self, g: Graph, out: Passed, ids: str, width: str | None) -> Passed:
        """With `ids`, and probabilities of 1, where nothing was computed."""
        if width is None:
            return out
        rest = _part(g, ids, width, self.steps)
        ones = g.op("Add", g.op("Mul", g.op("Cast", rest, to=FLOAT), _float(g, 0)), _float(g, 1))
        return Passed(g.op("Concat", out.ids, rest, axis=1), g.op("Concat", out.probs, ones, axis=1), out.finite)

    def _tokens(self, g: Graph, ids: str, contents: str | None) -> str:
        """`[start] + ids`, (N, S)."""
        start = g.op("Add", g.op("Mul", _part(g, ids, 0, 1), number(g, 0)), number(g, self.start))
        tokens = g.op("Concat", start, _part(g, ids, 0, self.steps - 1), axis=1)
        return tokens if contents is None else _part(g, tokens, 0, contents)

    def _attend(self, g: Graph, mode: str, keep: str, width: str | None, contents: str | None) -> str:
        """What core.masks.Rule(mode, keep, W).mask(S) is."""
        pattern = Rule(mode, np.full(1, self.steps), self.steps).mask(self.steps)
        seen, places = g.constant(f"attend_{mode}", pattern), iota(g, self.steps, 1, 1, self.steps)
        if width is not None:
            seen = _part(g, seen, 0, width)
        if contents is not None:
            seen, places = _part(g, seen, 0, contents, axis=2), _part(g, places, 0, contents, axis=2)
        hidden = g.op("Less", g.op("Unsqueeze", keep, g.integers(2)), places)
        return g.op("And", seen, g.op("Not", hidden))

    def _width(self, g: Graph, ids: str, limit: str) -> str:
        """To the longest word's end token and one more."""
        longest = reduce(g, "Max", first_end(g, ids, self.steps), 0, 1, keepdims=0)
        most = g.op("Min", reduce(g, "Max", limit, 0, 1, keepdims=0), number(g, self.steps))
        width = g.op("Min", g.op("Add", longest, number(g, 2)), most)
        return g.op("Unsqueeze", g.op("Cast", width, to=INT64), g.integers(0))


def first_end(g: Graph, ids: str, steps: int) -> str:
    """(N, T) int32 -> (N, 1): the column of the first end token, T where there is none."""
    ended = g.op("Equal", ids, number(g, END))
    return reduce(g, "Min", g.op("Where", ended, iota(g, steps), number(g, steps)), 1)


def _part(g: Graph, value: str, begin: int | str, end: int | str, axis: int = 1) -> str:
    begin, end = (g.integers(place) if isinstance(place, int) else place for place in (begin, end))
    return g.op("Slice", value, begin, end, g.integers(axis))


def _float(g: Graph, value: float) -> str:
    return g.constant(f"f32_{value:g}", np.array(value, np.float32))
