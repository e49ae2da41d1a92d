"""Whether a batch can be read in one launch (program.py): the kernels that takes beside those of the decoders' passes.

They are the tokeniser, whose tables are made of the driver's own tokenizer and charset, and the collapse of a draft
head's frames. Both are compared with the host's at load.
"""

from __future__ import annotations

import os
import warnings
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np

from clip4str.core.caption_tables import caption_tables
from clip4str.core.drafts import collapse
from clip4str.core.driver import PredictAndRefine
from clip4str.core.errors import BackendError, CharsetError, KernelError, UsageError
from clip4str.core.reading import Decoding

from ...bundle import Bundle
from ...cuda import CudaContextLost, CudaOutOfMemory
from .fused import Weights
from .memory import Memory, Stream
from .stage_by_stage import VARIABLE

OTHERWISE = "words are read stage by stage, not in one launch"
CONTEXT = 16  # of clip4str_tokenize's answers


@dataclass(frozen=True)
class OneLaunch:
    """The kernels between the stages, and whom they serve. Their arguments are addresses; they are sent to the stream.

    frames: of the draft head, 0 where it is not used. tables: arguments of clip4str_tokenize, empty where nothing is
    tokenised.
    """

    library: Any
    stream: int
    decoding: Decoding
    charset: tuple[str, str]  # characters, and those of the test charset
    steps: int
    frames: int
    tables: dict[str, int]

    def serves(self, driver: PredictAndRefine) -> bool:
        mine = self.decoding, self.charset, self.steps
        return mine == (driver.decoding, (driver.charset.characters, driver.charset.test), driver.steps)

    def tokenize(self, n: int, ids: int, out: int) -> None:
        """Characters (n, T) int32 before the first end token -> byte pairs of their captions (n, 16) int32."""
        self.library.tokenize(stream=self.stream, n=n, T=self.steps, ids=ids, last=0, out=out, **self.tables)

    def collapse(self, n: int, frames: int, out: int) -> None:
        """The draft head's frames (n, F) int32 -> words (n, T) int32."""
        self.library.collapse(
            stream=self.stream, n=n, frames=self.frames, T=self.steps, C=len(self.charset[0]) + 1, ids=frames, out=out
        )


def open_one_launch(
    bundle: Bundle, driver: PredictAndRefine, weights: Weights | None, graphs: bool, stack: ExitStack, stream: Stream
) -> OneLaunch | None:
    """None where words are to be read stage by stage; with a RuntimeWarning where it was not chosen so.

    graphs: are they wanted? stack: gets what closes it. Raises UsageError for a switch that is neither on nor off,
    CudaOutOfMemory.
    """
    switch = os.environ.get(VARIABLE, "")
    if switch not in ("", "0", "1"):
        raise UsageError(f"{VARIABLE} is 0 (stage by stage) or 1, not {switch[:40]!r}")
    how = driver.decoding
    if weights is None or switch == "0" or how.refine > 1 or not (graphs and stream.cuda.captures):
        return None
    with ExitStack() as mine:
        memory = Memory(stream)
        mine.callback(memory.close)
        drafts = how.draft and how.decode == "ar"
        try:
            one = OneLaunch(
                weights.library,
                stream.handle,
                how,
                (driver.charset.characters, driver.charset.test),
                driver.steps,
                bundle.manifest.draft_positions if drafts else 0,
                _tables(driver, memory, stream) if how.branch == "cross" else {},
            )
            _try(one, driver, stream)
        except (CudaContextLost, CudaOutOfMemory):
            raise
        except (BackendError, CharsetError, KernelError) as error:
            warnings.warn(f"{OTHERWISE}: {error}", RuntimeWarning, stacklevel=9)
            return None
        stack.push(mine.pop_all())
    return one


def _tables(driver: PredictAndRefine, memory: Memory, stream: Stream) -> dict[str, int]:
    tokenizer = driver.tokenizer
    if tokenizer.context != CONTEXT:
        raise BackendError(f"the compiled tokeniser writes {CONTEXT} tokens of a caption, not {tokenizer.context}")
    characters, pairs = caption_tables(tokenizer, driver.charset)
    places = {}
    for name, table in (("characters", characters), ("pairs", pairs)):
        places[name] = memory.on_device(table.nbytes)
        stream.upload(places[name], table)
    sizes = {"characters_count": len(characters), "pairs_bits": pairs.shape[1].bit_length() - 1}
    return {**places, **sizes, "start": tokenizer.start, "end": tokenizer.end}


def _try(one: OneLaunch, driver: PredictAndRefine, stream: Stream) -> None:
    """Words of all characters there are: what the library does not serve, and what it does otherwise than the host,
    shows here, not in the first request."""
    steps, count = one.steps, len(driver.charset.characters)
    ids = np.zeros((-(-count // max(1, steps - 1)), steps), np.int32)
    ids[:, : max(1, steps - 1)].flat[:count] = np.arange(1, count + 1)
    if one.tables:
        tokens = driver.tokenizer([driver.charset.caption(row) for row in ids])
        _compare("tokeniser", one.tokenize, ids, tokens, stream)
    if one.frames:
        frames = np.resize(np.repeat(ids, 2, axis=1), (len(ids), one.frames)).astype(np.int32)
        _compare("collapse", one.collapse, frames, collapse(frames, steps, count), stream)


def _compare(name: str, launch: Any, given: np.ndarray, want: np.ndarray, stream: Stream) -> None:
    memory = Memory(stream)
    try:
        source, to = memory.on_device(given.nbytes), memory.on_device(4 * want.size)
        stream.upload(source, given)
        launch(len(given), source, to)
        if not np.array_equal(stream.download(np.empty(want.shape, np.int32), to), want):
            raise BackendError(f"the compiled {name} and the host's differ")
    finally:
        memory.close()
