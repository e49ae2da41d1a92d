"""Times captions' byte pairs on a GPU: `python kernels/tokenize/bench.py`.

A launch takes as long as the word with the most merges: typical words, and words of 25 letters that merge often.
"""

from __future__ import annotations

import functools
import sys
from dataclasses import replace

import torch

from clip4str.core.bpe import BytePairTokenizer
from clip4str.core.text import Charset
from clip4str.kernels.shared.bench import BATCHES, Arguments, Case, run_cases
from clip4str.kernels.tokenize import TokenizerTables, candidates, tokenize

STEPS, CONTEXT = 26, 16
WORDS = {
    "typical": ["street", "coffee", "hotel", "2024", "Pizza", "Parking", "bank", "TAXI", "open", "Library", "no1"],
    "long": ["internationalizationalist", "straightforwardnessandall", "representationalitysignal"],
}


def cases(capability: tuple[int, int] = (9, 0)) -> list[Case]:
    """CLIP's whole vocabulary."""
    return [_case(kind, batch) for kind in WORDS for batch in BATCHES]


def _case(kind: str, batch: int) -> Case:
    def make(device: torch.device, dtype: torch.dtype) -> Arguments:
        charset, tables = Charset(), _tables()
        words = [charset.encode(WORDS[kind][i % len(WORDS[kind])]) for i in range(batch)]
        ids = torch.tensor([[*word, *[0] * (STEPS - len(word))] for word in words], dtype=torch.int32, device=device)
        there = replace(tables, characters=tables.characters.to(device), pairs=tables.pairs.to(device))
        return {"tables": there, "ids": ids}

    return Case(
        name=f"{kind} words batch {batch}",
        function=tokenize,
        make=make,
        bytes=batch * 4 * (STEPS + CONTEXT),  # the look-ups besides are latency, not bandwidth
        flops=0,
        configs=candidates(batch),
    )


@functools.cache
def _tables() -> TokenizerTables:
    """On the host; they take half a second to build."""
    return TokenizerTables.build(BytePairTokenizer(), Charset())


if __name__ == "__main__":
    sys.exit(run_cases("kernels/tokenize/bench.py", cases()))
