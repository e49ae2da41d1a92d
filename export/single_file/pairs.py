"""The tokenizer's merges as a table that a graph finds a pair in with two look-ups and an addition.

Each symbol that begins a merge has a row, with a cell for each symbol that may follow. All rows lie in one array,
shifted so that no two of their cells meet (row displacement: Tarjan and Yao, "Storing a sparse table", 1979), and a
cell says whose it is:

    cell = offsets[left] + right        is (left, right) a merge?  owners[cell] == left       its rank: ranks[cell]

It takes half the nodes of the hash that kernels/tokenize has for the same merges, and no 64-bit numbers, which phones
and browsers lack.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from clip4str.core.bpe import BytePairTokenizer
from clip4str.core.errors import CharsetError

NONE = 0  # no symbol


@dataclass(frozen=True)
class Pairs:
    """Symbols are numbered anew, those alone that a charset can reach, NONE first.

    tokens: CLIP's token of every symbol, (S,). offsets: of its row, (S,). owners, ranks: of the cells, (P,). merged:
    the symbol that the merge of each rank makes, (R,). All int32. numbers: symbol -> its number.
    """

    tokens: np.ndarray
    offsets: np.ndarray
    owners: np.ndarray
    ranks: np.ndarray
    merged: np.ndarray
    numbers: dict[str, int]

    @classmethod
    def build(cls, tokenizer: BytePairTokenizer, first: Iterable[str]) -> Pairs:
        """Of what can come of the symbols `first`, bytes within and at the end of a piece. Deterministic.

        Raises CharsetError for a tokenizer with a merge that stands before one of its parts, as CLIP's has none: taking
        the leftmost pair of the lowest rank, one at a time, is then another order than its own.
        """
        numbers = {symbol: number for number, symbol in enumerate(dict.fromkeys(first), NONE + 1)}
        merges: list[tuple[int, int, int]] = []
        for (a, b), rank in tokenizer.ranks.items():  # by rank: what a merge is made of has been made before it
            if a in numbers and b in numbers:
                if a + b in numbers:
                    raise CharsetError(
                        f"two merges of the tokenizer make {a + b!r}: a single file has no order for them"
                    )
                merges.append((numbers[a], numbers[b], rank))
                numbers[a + b] = len(numbers) + 1
        tokens = np.array([0, *(tokenizer.ids[symbol] for symbol in numbers)], np.int32)
        made = np.arange(len(numbers) - len(merges) + 1, len(numbers) + 1, dtype=np.int32)
        columns = np.array(merges, np.int64).reshape(-1, 3).T
        offsets, owners, ranks = _packed(columns[0], columns[1], len(tokens))
        return cls(tokens, offsets, owners, ranks, made if len(made) else np.zeros(1, np.int32), numbers)


def _packed(lefts: np.ndarray, rights: np.ndarray, symbols: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """offsets, owners, ranks of pairs in the order of their rank. The fullest rows are placed first, each at the first
    offset where it fits; those of a single cell then fill the gaps."""
    size = 4 * symbols + len(lefts)
    free, owners, ranks = np.ones(size, bool), np.full(size, -1, np.int32), np.zeros(size, np.int32)
    offsets = np.zeros(symbols, np.int32)
    order = np.argsort(lefts, kind="stable")
    rows = np.split(order, np.flatnonzero(np.diff(lefts[order])) + 1) if len(order) else []
    for row in sorted(rows, key=len, reverse=True):
        cells = np.sort(rights[row])
        offset = _first_fit(free, cells)
        left = lefts[row[0]]
        offsets[left] = offset
        places = offset + rights[row]
        free[places], owners[places], ranks[places] = False, left, row
    end = int(offsets.max(initial=0)) + symbols  # whatever symbol follows, there is a cell
    assert end <= size
    return offsets, owners[:end], ranks[:end]


def _first_fit(free: np.ndarray, cells: np.ndarray, block: int = 4096) -> int:
    """The least offset, 0 or more, at which all `cells` of a row are free."""
    most = len(free) - int(cells[-1])
    for start in range(0, most, block):
        fits = np.ones(min(block, most - start), bool)
        for cell in cells:
            fits &= free[start + cell : start + cell + len(fits)]
            if not fits.any():
                break
        else:
            return start + int(fits.argmax())
    raise AssertionError("a table of merges that is too small")
