"""Predict and refine as one graph: core/driver.py's order, written out once.

N images, T steps. What is said of rows (ends, lengths, flags) is (N, 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from clip4str.core.reading import Decoding
from clip4str.core.text import END
from clip4str.export.graph import Graph

from .bodies import BOOL, FLOAT, INT32, Carried, branch, every, iota, loop, number, numbers, reduce, some
from .passes import Decoder, Passed, first_end
from .stages import StageGraphs
from .tokens import Tokens


@dataclass(frozen=True)
class Network:
    """What of a bundle the program is written of. text: type and shape of the text stage's keys and values. tokens:
    None where the branch is visual."""

    stages: StageGraphs
    tokens: Tokens | None
    steps: int
    characters: int
    drafts: bool
    text: tuple[int, Sequence[str | int]]


@dataclass
class Program:
    """passes: of the visual and of the cross-modal branch, then nothing loops; None for as many as the words need.
    flexible: compute as few positions and captions as they need, so that shapes depend on them. flags: what each row's
    `settled` is made of, gathered while the program is written."""

    network: Network
    decoding: Decoding
    passes: tuple[int, int] | None
    flexible: bool
    flags: list[str] = field(default_factory=list)
    finite: list[str] = field(default_factory=list)

    def read(self, g: Graph, pixels: str) -> tuple[str, str, str, str]:
        """Normalised pixels -> ids (N, T) int32, END from the word's end on; probs (N, T) float32, 1 behind it; is it
        what the driver reads, and is everything finite: (N, 1) bool."""
        how, steps, stages = self.decoding, self.network.steps, self.network.stages
        cross, in_order = how.branch == "cross", how.decode == "ar"
        drafted = self.network.drafts and how.draft and in_order
        wanted = ["visual_kv", *["cross_kv"] * cross, *["draft"] * drafted]
        memory = dict(zip(wanted, stages.call(g, "image", wanted, pixels=pixels)))
        visual = self._decoder("visual", {"visual_kv": memory["visual_kv"]})
        rows = self._rows(g, memory["visual_kv"])
        everything = g.op("Add", rows, number(g, steps))
        if drafted:
            guess, done = self._collapsed(g, memory["draft"]), 0
        else:
            last, done = self._checked(visual.guess(g, rows)), 1
            guess = last.ids
        if in_order:
            last = self._settled(g, "visual", visual, guess, everything, done)
        words, lengths = last.ids, everything
        if in_order:
            lengths = g.op("Min", g.op("Add", first_end(g, words, steps), number(g, 1)), number(g, steps))
        answer, read, bpe = last, visual, ""
        if cross:
            bpe = self._captions(g, words)
            memory["text_kv"] = stages.call(g, "text", ["text_kv"], bpe=bpe)[0]
            read = self._cross(memory)
            if in_order:
                last = self._settled(g, "cross", read, words, lengths, 0)
            else:
                last = self._checked(read.guess(g, rows))
            answer = self._cut(g, last, g.op("Less", iota(g, steps), lengths))
        for number_ in range(how.refine):
            if cross:
                with g.scope(f"refine_{number_}"):
                    refined = self._checked(visual.cloze(g, words, lengths)).ids
                    bpe, memory["text_kv"] = self._reread(g, words, refined, bpe, memory["text_kv"])
                words, read = refined, self._cross(memory)
            answer = self._checked(read.cloze(g, answer.ids, lengths))
            lengths = everything
        end = first_end(g, answer.ids, steps)
        answer = self._cut(g, answer, g.op("Not", g.op("Less", end, iota(g, steps))))
        finite = self._all(g, self.finite)
        return answer.ids, answer.probs, self._all(g, [*self.flags, finite]), finite

    def _decoder(self, name: str, memory: dict[str, str]) -> Decoder:
        n = self.network
        return Decoder(n.stages, name, memory, n.steps, n.characters + 1, self.flexible)

    def _cross(self, memory: dict[str, str]) -> Decoder:
        return self._decoder("cross", {name: memory[name] for name in ("cross_kv", "text_kv")})

    def _rows(self, g: Graph, memory: str) -> str:
        """Zeros, (N, 1) int32."""
        count = g.op("Shape", memory, start=0, end=1)
        return g.op("Expand", numbers(g, "zero", np.zeros((1, 1))), g.op("Concat", count, g.integers(1), axis=0))

    def _checked(self, out: Passed) -> Passed:
        self.finite.append(out.finite)
        return out

    def _settled(self, g: Graph, name: str, decoder: Decoder, ids: str, limit: str, done: int) -> Passed:
        """Greedy autoregression from a guess that took `done` passes."""
        steps = self.network.steps
        if self.passes is not None:
            for _ in range(max(1, self.passes[name == "cross"] - done)):
                out, settled = decoder.causal(g, ids, limit)
                ids = self._checked(out).ids
            self.flags.append(settled)
            return out

        never = g.op("Less", limit, number(g, 0))
        carried = [
            (ids, INT32, ("N", steps)),
            (g.op("Cast", g.op("Mul", ids, number(g, 0)), to=FLOAT), FLOAT, ("N", steps)),
            (g.op("Not", never), BOOL, ("N", 1)),
            (never, BOOL, ("N", 1)),
        ]
        again = self._again if self.flexible else self._repeat
        ids, probs, finite, settled = again(g, name, decoder, carried, limit)
        self.flags.append(settled)
        return self._checked(Passed(ids, probs, finite))

    def _repeat(self, g: Graph, name: str, decoder: Decoder, carried: Sequence[Carried], limit: str) -> list[str]:
        """Passes until all rows are settled, where flexible half of them. carried: ids, probs, finite, settled."""

        def step(body: Graph, ids: str, _: str, finite: str, __: str) -> tuple[str, list[str]]:
            out, settled = decoder.causal(body, ids, limit)
            if self.flexible:
                more = body.op(
                    "Sub", number(body, 1), body.op("Mul", body.op("Cast", settled, to=INT32), number(body, 2))
                )
                going = body.op("Not", body.op("Less", reduce(body, "Sum", more, 0, 1), number(body, 0)))
            else:
                going = body.op("Not", every(body, settled, 0, 1))
            return body.op("Squeeze", going), [out.ids, out.probs, body.op("And", finite, out.finite), settled]

        return loop(g, name, self.network.steps, carried, step)

    def _again(self, g: Graph, name: str, decoder: Decoder, carried: Sequence[Carried], limit: str) -> list[str]:
        """_repeat with the rows that are not settled, until there are none."""

        def step(body: Graph, *values: str) -> tuple[str, list[str]]:
            places = body.op("NonZero", body.op("Not", body.op("Reshape", values[-1], body.integers(-1))))
            rows = body.op("Squeeze", places, body.integers(0))
            memory = {key: body.op("Gather", value, rows) for key, value in decoder.memory.items()}
            chosen = [(body.op("Gather", value, rows), dtype, ("R", *shape[1:]))
                      for value, (_, dtype, shape) in zip(values, carried)]  # fmt: skip
            some_ = replace(decoder, memory=memory)
            found = self._repeat(body, f"{name}_rows", some_, chosen, body.op("Gather", limit, rows))
            index = body.op("Unsqueeze", rows, body.integers(1))
            whole = [body.op("ScatterND", value, index, part) for value, part in zip(values, found)]
            return body.op("Squeeze", body.op("Not", every(body, whole[-1], 0, 1))), whole

        return loop(g, name, self.network.steps, carried, step)

    def _captions(self, g: Graph, words: str) -> str:
        """CLIP's tokens of words."""
        assert self.network.tokens is not None
        tokens, decoded = self.network.tokens(g, words, first_end(g, words, self.network.steps))
        if decoded is not None:
            self.flags.append(g.op("Not", decoded))
        return tokens

    def _reread(self, g: Graph, words: str, refined: str, bpe: str, text_kv: str) -> tuple[str, str]:
        """Tokens and keys and values of the refined words, which mostly are the words."""
        stages, context = self.network.stages, ("N", "X")
        if not self.flexible:
            bpe = self._captions(g, refined)
            return bpe, stages.call(g, "text", ["text_kv"], bpe=bpe)[0]
        steps, plain = self.network.steps, g.op("Equal", self._rows(g, text_kv), number(g, 0))

        def encode(body: Graph) -> list[str]:
            before = len(self.flags)
            tokens = self._captions(body, refined)
            said = self.flags[before:] or [plain]
            del self.flags[before:]
            changed = some(body, body.op("Not", body.op("Equal", tokens, bpe)), 1)

            def read(inner: Graph) -> list[str]:
                rows = inner.op("Reshape", inner.op("NonZero", inner.op("Reshape", changed, inner.integers(-1))),
                                inner.integers(-1))  # fmt: skip
                (kv,) = stages.call(inner, "text", ["text_kv"], bpe=inner.op("Gather", tokens, rows))
                return [inner.op("ScatterND", text_kv, inner.op("Unsqueeze", rows, inner.integers(1)), kv)]

            any_ = body.op("Squeeze", some(body, changed, 0, 1))
            return [tokens, *branch(body, "read", any_, read, [(text_kv, *self.network.text)]), said[0]]

        kept = [g.op("Where", g.op("Less", iota(g, steps), first_end(g, word, steps)), word, number(g, END))
                for word in (words, refined)]  # fmt: skip
        changed = g.op("Squeeze", some(g, g.op("Not", g.op("Equal", *kept)), 0, 1))
        same = [(bpe, INT32, context), (text_kv, *self.network.text), (plain, BOOL, ("N", 1))]
        bpe, text_kv, said = branch(g, "reread", changed, encode, same)
        self.flags.append(said)
        return bpe, text_kv

    def _collapsed(self, g: Graph, frames: str) -> str:
        """core.drafts.collapse, without a shape that depends on the words."""
        steps = self.network.steps
        count = g.op("Shape", frames, start=1, end=2)
        shows = g.op("And", g.op("Greater", frames, number(g, END)),
                     g.op("Not", g.op("Less", number(g, self.network.characters), frames)))  # fmt: skip
        before = g.op("Concat", g.op("Mul", g.op("Slice", frames, g.integers(0), g.integers(1), g.integers(1)),
                                     number(g, 0)), frames, axis=1)  # fmt: skip
        before = g.op("Slice", before, g.integers(0), count, g.integers(1))
        shows = g.op("And", shows, g.op("Not", g.op("Equal", frames, before)))
        place = g.op("Mul", g.op("CumSum", g.op("Cast", shows, to=INT32), number(g, 1)), g.op("Cast", shows, to=INT32))
        wanted = numbers(g, f"places_{steps - 1}", np.arange(1, steps)[:, None])
        here = g.op("Equal", g.op("Unsqueeze", place, g.integers(1)), wanted)  # [N, T - 1, F]
        word = reduce(
            g, "Sum", g.op("Where", here, g.op("Unsqueeze", frames, g.integers(1)), number(g, 0)), 2, keepdims=0
        )
        return g.op("Concat", word, g.op("Mul", self._rows(g, frames), number(g, 0)), axis=1)

    def _cut(self, g: Graph, out: Passed, stays: str) -> Passed:
        """End tokens of probability 1 where nothing stays."""
        ids = g.op("Where", stays, out.ids, number(g, END))
        return Passed(ids, g.op("Where", stays, out.probs, g.constant("f32_1", np.array(1, np.float32))), out.finite)

    def _all(self, g: Graph, flags: Sequence[str]) -> str:
        found = flags[0]
        for flag in flags[1:]:
            found = g.op("And", found, flag)
        return found
