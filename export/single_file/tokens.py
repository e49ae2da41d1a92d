"""Ids of characters -> CLIP's tokens of their caption, in standard operators; core/bpe.py is the specification.

A caption's bytes are first put side by side, each as the symbol that it is within or at the end of its piece. Then a
round merges one pair of every word, the leftmost of the lowest rank, until there is none: as a merge never stands
before one of its parts, this makes all occurrences of a rank, from left to right, before the next. The right neighbour
closes the gap. N words, T ids each, L symbols (and an empty place behind them).
"""

from __future__ import annotations

import numpy as np

from clip4str.core.bpe import BytePairTokenizer
from clip4str.export.graph import Graph

from .bodies import INT32, columns, iota, loop, number, numbers, reduce
from .characters import OTHER, Characters
from .entities import decoded
from .pairs import NONE

# Behind every rank, and every place. Numbers stay below 2^24: OpenVINO computes with int32 in float32.
_NEVER = 1 << 16
_SHORT, _LONG = "stmd", ("re", "ve", "ll")  # what makes a piece of its own behind an apostrophe


class Tokens:
    """Writes the tokenizer of a network and a charset into graphs. unrolled: without control flow."""

    def __init__(self, tokenizer: BytePairTokenizer, characters: Characters, steps: int, unrolled: bool) -> None:
        self.tokenizer, self.characters, self.unrolled = tokenizer, characters, unrolled
        self.length = steps * characters.width

    def __call__(self, g: Graph, ids: str, end: str) -> tuple[str, str | None]:
        """ids (N, T) int32, which from column `end` (N, 1) int32 on count for nothing -> tokens (N, context) int32 as
        BytePairTokenizer(Charset.caption(ids)); and, where a caption can hold something that the tokenizer decodes
        first, such as an entity of HTML, whether it does, so that its tokens are others: (N, 1) bool."""
        with g.scope("tokens"):
            codes = self._codes(g, ids, end)
            symbols = self._symbols(g, codes)
            for_each = [(symbols, INT32, ("N", self.length + 1))]
            if self.unrolled:
                for _ in range(self.length - 1):
                    symbols, _ = self._merge(g, symbols)
            else:
                (symbols,) = loop(g, "merges", self.length, for_each, lambda body, s: self._going_on(body, s))
            return self._tokens(g, symbols), decoded(g, self.characters, codes, self.length)

    def _codes(self, g: Graph, ids: str, end: str) -> str:
        """Without gaps, (N, L + 1), 0 behind the last."""
        steps = self.length // self.characters.width
        kept = g.op("Where", g.op("Less", iota(g, steps), end), ids, number(g, 0))
        codes = g.op("Gather", numbers(g, "bpe.codes", self.characters.codes), kept)
        codes = g.op("Reshape", codes, g.integers(0, self.length))
        there = g.op("Greater", codes, number(g, 0))
        place = g.op("CumSum", g.op("Cast", there, to=INT32), number(g, 1))
        place = g.op("Where", there, place, number(g, 0))
        wanted = numbers(g, f"places_{self.length + 1}", np.arange(1, self.length + 2)[:, None])
        here = g.op("Equal", g.op("Unsqueeze", place, g.integers(1)), wanted)  # [N, L + 1, L]
        moved = g.op("Where", here, g.op("Unsqueeze", codes, g.integers(1)), number(g, 0))
        return reduce(g, "Sum", moved, 2, keepdims=0)

    def _symbols(self, g: Graph, codes: str) -> str:
        """(N, L + 1), as they are before any merge."""
        c = self.characters
        kinds = g.op("Gather", numbers(g, "bpe.kinds", c.kinds), codes)
        after = self._after(g, kinds, 1)
        goes_on = g.op("And", g.op("Equal", kinds, after), g.op("Greater", kinds, number(g, 0)))
        if c.width > 1:
            follows = g.op("Gather", g.constant("bpe.follows", c.follows.astype(bool)), self._after(g, codes, 1))
            goes_on = g.op("Or", goes_on, follows)
        if c.has("'"):
            goes_on = self._contracted(g, codes, kinds, goes_on)
        inside, closing = (
            g.op("Gather", numbers(g, f"bpe.{name}", table), codes)
            for name, table in (("inside", c.inside), ("closing", c.closing))
        )
        return g.op("Where", goes_on, inside, closing)

    def _contracted(self, g: Graph, codes: str, kinds: str, goes_on: str) -> str:
        """An apostrophe that begins a piece makes one with s, t, m, d, re, ve or ll, and nothing else with it."""
        letters = g.op("Gather", numbers(g, "bpe.letters", self.characters.letters), codes)
        begins = g.op("Not", g.op("Equal", self._before(g, kinds, 1), number(g, OTHER)))
        begins = g.op("And", begins, g.op("Equal", letters, number(g, ord("'"))))
        one, two = self._after(g, letters, 1), self._after(g, letters, 2)
        short_table, long_table = np.zeros(128, bool), np.zeros(128 * 128, bool)
        short_table[[ord(a) for a in _SHORT]] = True
        long_table[[ord(pair[0]) * 128 + ord(pair[1]) for pair in _LONG]] = True
        pair = g.op("Add", g.op("Mul", one, number(g, 128)), two)
        short = g.op("And", begins, g.op("Gather", g.constant("bpe.short", short_table), one))
        long = g.op("And", begins, g.op("Gather", g.constant("bpe.long", long_table), pair))
        joins = g.op("Or", g.op("Or", short, long), self._before(g, long, 1))
        ends = g.op("Or", self._before(g, short, 1), self._before(g, long, 2))
        return g.op("And", g.op("Or", goes_on, joins), g.op("Not", ends))

    def _going_on(self, g: Graph, symbols: str) -> tuple[str, list[str]]:
        symbols, best = self._merge(g, symbols)
        found = g.op("Less", reduce(g, "Min", best, 0, 1, keepdims=0), number(g, _NEVER))
        return found, [symbols]

    def _merge(self, g: Graph, symbols: str) -> tuple[str, str]:
        """One pair of every word; and its rank, (N, 1)."""
        pairs = self.characters.pairs
        right = self._after(g, symbols, 1)
        cell = g.op("Add", g.op("Gather", numbers(g, "bpe.offsets", pairs.offsets), symbols), right)
        owner = g.op("Gather", numbers(g, "bpe.owners", pairs.owners), cell)
        ranks = g.op("Gather", numbers(g, "bpe.ranks", pairs.ranks), cell)
        ranks = g.op("Where", g.op("Equal", owner, symbols), ranks, number(g, _NEVER))
        best = reduce(g, "Min", ranks, 1)
        table = np.append(pairs.merged, NONE)  # the last for those without a pair
        rank = g.op("Min", best, number(g, len(table) - 1))
        place = iota(g, self.length + 1)
        at = g.op("Where", g.op("Equal", ranks, rank), place, number(g, _NEVER))
        at = reduce(g, "Min", at, 1)  # nowhere, if there is no pair
        merged = g.op("Gather", numbers(g, "bpe.merged", table), rank)
        rest = g.op("Where", g.op("Equal", place, at), merged, right)
        return g.op("Where", g.op("Less", place, at), symbols, rest), best

    def _tokens(self, g: Graph, symbols: str) -> str:
        """[start] + tokens + [end], cut to the context with the end kept, zeros behind."""
        context, t = self.tokenizer.context, self.tokenizer
        count = reduce(g, "Sum", g.op("Cast", g.op("Greater", symbols, number(g, NONE)), to=INT32), 1)
        close = g.op("Add", g.op("Min", count, number(g, context - 2)), number(g, 1))
        tokens = g.op("Gather", numbers(g, "bpe.tokens", self.characters.pairs.tokens), symbols)
        places = np.minimum(np.maximum(np.arange(context) - 1, 0), self.length)
        tokens = columns(g, tokens, "bpe.places", places)
        first = g.constant("bpe.first", np.arange(context)[None] == 0)
        tokens = g.op("Where", first, number(g, t.start), tokens)
        return g.op("Where", g.op("Equal", iota(g, context), close), number(g, t.end), tokens)

    def _after(self, g: Graph, value: str, by: int) -> str:
        """What stands `by` places further on; behind the end the empty place."""
        places = np.minimum(np.arange(self.length + 1) + by, self.length)
        return columns(g, value, f"after_{self.length}_{by}", places)

    def _before(self, g: Graph, value: str, by: int) -> str:
        """What stands `by` places before; the empty place before the first."""
        places = np.arange(self.length + 1) - by
        return columns(g, value, f"places_{self.length}_{by}_before", np.where(places < 0, self.length, places))
