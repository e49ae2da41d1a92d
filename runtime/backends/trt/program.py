"""A batch in one go: pixels in, results out, all of it sent to the stream without waiting, which is one CUDA graph.

    image engine, visual passes, tokeniser, text engine, cross-modal passes, visual refinement, tokeniser, refinement

Engines and compiled kernels alternate; what one writes the next reads where it is. fixed_passes.py asks the questions
afterwards and has rows read further, each time in a graph too. Its answers are the driver's.

Rows to be read further stay where they are, and the others are computed once more with them, unless they fit into a
batch a quarter as large: then their keys and values are copied together first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from clip4str.core.driver import PredictAndRefine
from clip4str.core.reading import Reading

from ..fixed_passes import RESUMED, FixedPasses, Passes
from ..memory_limits import padded
from .engines import EngineStage
from .fused import Answer, Decoders
from .memory import Buffer, Memory, Stream
from .one_launch import CONTEXT, OTHERWISE, OneLaunch
from .replay import Graphs, Replay
from .rows import copy_runs

STAGE = "one launch"  # to Graphs
WORTH = 4  # copying rows together pays where the batch is so many times smaller


class Fields:
    """Arrays (rows, width) of 32 bits in one buffer, each in one piece for the number of rows in use, so that a single
    copy is of them all. shared: has it a twin on the host?"""

    def __init__(self, stream: Stream, memory: Memory, widths: Mapping[str, int], rows: int, shared: bool) -> None:
        self._widths, self._all = dict(widths), sum(widths.values())
        self._starts = {name: sum(list(widths.values())[:i]) for i, name in enumerate(widths)}
        self.buffer = Buffer(stream, memory, (self._all,), np.dtype(np.int32), rows, shared)

    def at(self, name: str, rows: int) -> int:
        """Its address."""
        return self.buffer.address + 4 * rows * self._starts[name]

    def write(self, rows: int, places: np.ndarray, values: Mapping[str, np.ndarray]) -> None:
        """values: (len(places), width) int32 each; zeros elsewhere."""
        packed = np.zeros(rows * self._all, np.int32)
        for name, array in values.items():
            self._view(packed, name, rows)[places] = array
        self.buffer.write(packed.reshape(rows, self._all))

    def values(self, rows: int) -> dict[str, np.ndarray]:
        """Once they are there."""
        packed = self.buffer.values(rows).reshape(-1)
        return {name: self._view(packed, name, rows) for name in self._widths}

    def _view(self, packed: np.ndarray, name: str, rows: int) -> np.ndarray:
        start, width = rows * self._starts[name], self._widths[name]
        return packed[start : start + rows * width].reshape(rows, width)


class Program(FixedPasses):
    """Over a pipeline's stages, decoders and buffers, which are one reader's at a time.

    buckets: numbers of rows that batches are padded to. buffers: by "stage.tensor". Raises CudaOutOfMemory.
    """

    passes: Passes | None = None

    def __init__(
        self,
        one: OneLaunch,
        stream: Stream,
        memory: Memory,
        graphs: Graphs,
        stages: Mapping[str, EngineStage],
        decoders: Decoders,
        buffers: Mapping[str, Buffer],
        buckets: Sequence[int],
    ) -> None:
        self.one, self.decoding = one, one.decoding
        self._stream, self._graphs, self._stages, self._decoders = stream, graphs, stages, decoders
        self._buffers, self._buckets, self._rows = buffers, buckets, 0
        self._runs: dict[tuple[str, int, bool], Replay] = {}
        T, X, rows, cross = self.steps, self.context, buckets[-1], self.decoding.branch == "cross"
        word = {"word": T, "word_probs": T, "last": 1, "unsettled": 1}
        if cross:
            word |= {"cross_word": T, "cross_probs": T, "keep": 1, "cross_unsettled": 1}
        if self.rereads:
            word |= {"caption": X, "refined": X, "refined_probs": T}
        if self.decoding.refine:
            word |= {"ids": T, "probs": T}
        given = {"word": T, "cross_word": T, "keep": 1, "caption": X}
        spare = {"word": T, "probs": T, "last": 1, "unsettled": 1}
        self._results = Fields(stream, memory, word, rows, shared=True)
        self._given = Fields(stream, memory, given, rows, shared=True)
        self._spare = Fields(stream, memory, spare, rows, shared=False)
        self._any = memory.on_device(4 * rows)  # `limit` of a word that may have any length
        stream.upload(self._any, np.full(rows, T - 1, np.int32))
        self._kept = {"visual.visual_kv": buffers["image.visual_kv"]}
        if cross:
            self._kept["cross.cross_kv"] = buffers["image.cross_kv"]
        few = rows // WORTH
        self._copied = {
            name: Buffer(stream, memory, kept.shape, kept.dtype, few, False) for name, kept in self._kept.items() if few
        }

    @property
    def steps(self) -> int:
        return self.one.steps

    @property
    def context(self) -> int:
        return CONTEXT

    @property
    def drafts(self) -> bool:
        return self.one.frames > 0

    @property
    def usable(self) -> bool:
        """False once it could not be captured, of which a warning told."""
        return self._graphs.wants(STAGE)

    def read(self, driver: PredictAndRefine, n: int, rows: int, filled: bool) -> Reading:
        """What the driver would read of the first n images in the image stage's pixels, padded to `rows`. filled: are
        they on the device already? Raises BackendError, NonFiniteError."""
        self._rows = rows
        self._run("read", rows, filled, partial(self._first, rows, filled))
        results = self._found(rows, np.arange(n))
        return self.finished(driver, results, partial(self._resume, results), partial(self._reread, results))

    def warm_up(self, rows: int) -> None:
        """Captures every graph that reading a batch of `rows` may need, over whatever lies in the buffers. Raises
        BackendError."""
        self._rows = rows
        for filled in (False, True):
            self._run("read", rows, filled, partial(self._first, rows, filled))
        results = np.zeros((rows, self.width), np.int32)
        for few in (rows, *(size for size in self._buckets if size * WORTH <= rows)):
            if self.decoding.decode == "ar":
                self._resume(results, np.arange(few))
            if self.rereads:
                self._reread(results, np.arange(few))

    def _resume(self, results: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        rows, places, kept = self._together(chosen, self._kept)
        names = [name for name in ("word", "cross_word") if name in self.columns]
        self._given.write(rows, places, {name: results[chosen, self.columns[name]] for name in names})
        self._run("resume", rows, kept is not self._kept, lambda: self._further(rows, kept))
        return self._found(rows, places)

    def _reread(self, results: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        rows, places, kept = self._together(chosen, ["cross.cross_kv"])
        names = {"cross_word": "cross_word", "keep": "keep", "caption": "refined"}
        self._given.write(rows, places, {to: results[chosen, self.columns[name]] for to, name in names.items()})
        self._run("reread", rows, kept is not self._kept, lambda: self._again(rows, kept))
        found = self._results.values(rows)
        return np.concatenate([found[name][places] for name in ("ids", "probs")], axis=1)

    def _run(self, kind: str, rows: int, other: bool, send: Callable[[], None]) -> None:
        """other: tells apart what else differs. Waits for the results."""
        key = kind, rows, other
        if key not in self._runs:
            self._runs[key] = Replay(self._stream, self._graphs, STAGE, send, OTHERWISE)
        try:
            self._runs[key]()
        finally:
            for fields in (self._results, self._given):
                fields.buffer.used()
            self._stages["image"].used()
        self._stream.synchronise()

    def _found(self, rows: int, places: np.ndarray) -> np.ndarray:
        """Results of some rows: (len(places), width) int32, see columns."""
        found = self._results.values(rows)
        if not self.decoding.refine:
            word, probs = ("cross_word", "cross_probs") if "cross_word" in found else ("word", "word_probs")
            found |= {"ids": found[word], "probs": found[probs]}
        return np.concatenate([found[name][places] for name in self.columns], axis=1)

    def _together(
        self, chosen: np.ndarray, names: Sequence[str] | Mapping[str, Buffer]
    ) -> tuple[int, np.ndarray, Mapping[str, Buffer]]:
        """Where some rows of the last batch are read further: (rows, places of theirs, keys and values)."""
        rows = padded(len(chosen), self._buckets)
        if rows * WORTH > self._rows:
            return self._rows, chosen, self._kept
        for name in names:
            source, to = self._kept[name], self._copied[name]
            pairs = [(to.address + i * to.row_bytes, source.address + int(row) * source.row_bytes)
                     for i, row in enumerate(chosen)]  # fmt: skip
            copy_runs(self._stream, pairs, to.row_bytes)
        return rows, np.arange(len(chosen)), self._copied

    # What is sent

    def _first(self, rows: int, filled: bool) -> None:
        self._stages["image"].send(rows, filled, fetched=False)
        guess = 0
        if self.drafts:
            guess = self._given.at("word", rows)
            self.one.collapse(rows, self._buffers["image.draft"].address, guess)
        passes = self.first_passes
        count = passes.visual if self.decoding.decode == "ar" else 1
        self._passes(count, "visual", rows, self._kept, self._visual_word(rows), guess, self._any)
        self._after(rows, self._kept, self._results.at("word", rows), passes.cross)

    def _further(self, rows: int, kept: Mapping[str, Buffer]) -> None:
        self._given.buffer.send(rows)
        word = self._given.at("word", rows)
        self._passes(RESUMED.visual, "visual", rows, kept, self._visual_word(rows), word, self._any)
        self._after(rows, kept, self._given.at("cross_word", rows), RESUMED.cross)

    def _again(self, rows: int, kept: Mapping[str, Buffer]) -> None:
        self._given.buffer.send(rows)
        bpe = self._buffers["text.bpe"]
        self._stream.copy(bpe.address, self._given.at("caption", rows), rows * bpe.row_bytes)
        self._stages["text"].send(rows, filled=True)
        word, keep = (self._given.at(name, rows) for name in ("cross_word", "keep"))
        self._pass("cross", "cloze", rows, kept, self._answer(rows), word, self._any, keep)
        self._results.buffer.fetch(rows)

    def _after(self, rows: int, kept: Mapping[str, Buffer], guess: int, passes: int) -> None:
        """All that follows the visual word. guess: the cross-modal branch's."""
        results, cross = partial(self._results.at, rows=rows), self.decoding.branch == "cross"
        if cross:
            bpe = self._buffers["text.bpe"]
            self.one.tokenize(rows, results("word"), bpe.address)
            if self.rereads:
                self._stream.copy(results("caption"), bpe.address, rows * bpe.row_bytes)
            self._stages["text"].send(rows, filled=True)
            to = Answer(*(results(name) for name in ("cross_word", "cross_probs", "keep", "cross_unsettled")))
            if self.decoding.decode == "ar":
                self._passes(passes, "cross", rows, kept, to, guess, results("last"))
            else:
                self._passes(1, "cross", rows, kept, to, 0, self._any)
        if self.decoding.refine:
            refined = self._spared(rows)._replace(probs=results("refined_probs")) if cross else self._answer(rows)
            self._pass("visual", "cloze", rows, kept, refined, results("word"), self._any, results("last"))
            if cross:
                self.one.tokenize(rows, refined.ids, results("refined"))
                answer = self._answer(rows)
                self._pass("cross", "cloze", rows, kept, answer, results("cross_word"), self._any, results("keep"))
        self._results.buffer.fetch(rows)

    def _passes(
        self, count: int, branch: str, rows: int, kept: Mapping[str, Buffer], to: Answer, ids: int, limit: int
    ) -> None:
        """`count` passes towards the greedy word, from a guess, or with ids = 0 from the start token; the last writes
        `to`."""
        for left in reversed(range(count)):
            answer = self._spared(rows) if left % 2 else to
            self._pass(branch, "causal" if ids else "start", rows, kept, answer, ids, limit)
            ids = answer.ids

    def _pass(
        self,
        branch: str,
        mode: str,
        rows: int,
        kept: Mapping[str, Buffer],
        to: Answer,
        ids: int,
        limit: int,
        keep: int = 0,
    ) -> None:
        memory = {name: buffer.address for name, buffer in kept.items()}
        if branch == "cross":
            memory["cross.text_kv"] = self._buffers["text.text_kv"].address
        self._decoders.launch(branch, mode, rows, memory, to, limit=limit, ids=ids, keep=keep)

    def _visual_word(self, rows: int) -> Answer:
        return Answer(*(self._results.at(name, rows) for name in ("word", "word_probs", "last", "unsettled")))

    def _answer(self, rows: int) -> Answer:
        """Of a refinement, of which `last` and `unsettled` say nothing."""
        ids, probs = (self._results.at(name, rows) for name in ("ids", "probs"))
        return self._spared(rows)._replace(ids=ids, probs=probs)

    def _spared(self, rows: int) -> Answer:
        """Of a pass whose answer another one reads and nobody else."""
        return Answer(*(self._spare.at(name, rows) for name in ("word", "probs", "last", "unsettled")))
