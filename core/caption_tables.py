"""A tokenizer and a charset as two small tables of integers, and the hash that finds a merge in them: what GPU kernels
tokenise captions with. numpy alone, so that those who have no torch can make them."""

from __future__ import annotations

import re

import numpy as np

from .bpe import BytePairTokenizer
from .errors import CharsetError
from .text import Charset

# Odd, below 2^31: a product with a 32-bit key fits int64. Fixed, so that a kernel needs to know nothing but the size.
MULTIPLIERS = (0x2C1B3C6D, 0x68E31DA5)
DROPPED = -1
_MERGE = re.compile(r"[a-z]+ [a-z]+(</w>)?")
_CHARACTER = re.compile(r"[0-9a-zA-Z]?")
_ROUNDS = 200


def caption_tables(tokenizer: BytePairTokenizer, charset: Charset) -> tuple[np.ndarray, np.ndarray]:
    """(characters (C,) int32, pairs (2, S) int64), as kernels.tokenize.TokenizerTables describes them. Deterministic;
    about 0.1 s for CLIP's whole vocabulary.

    Raises CharsetError if captions may hold anything but letters and digits of ASCII: pairs of other characters follow
    other rules (`'s` is a piece, entities are undone); the host's tokenizer knows them.
    """
    return _characters(tokenizer, charset), cuckoo(_merges(tokenizer))


def _characters(tokenizer: BytePairTokenizer, charset: Charset) -> np.ndarray:
    ids = tokenizer.ids
    table = np.full(len(charset.characters) + 1, DROPPED, np.int32)
    for i in range(1, len(table)):
        caption = charset.caption([i])
        if not _CHARACTER.fullmatch(caption):
            raise CharsetError(
                f"the test charset makes {charset.characters[i - 1]!r} into {caption!r}; on the device it is a letter "
                "or digit of ASCII or nothing: use core.bpe.BytePairTokenizer"
            )
        symbol = caption.lower()  # as the tokenizer does
        if symbol:
            closing = ids[symbol + "</w>"]
            table[i] = closing << 16 | (closing if symbol.isdigit() else ids[symbol])
    return table


def _merges(tokenizer: BytePairTokenizer) -> np.ndarray:
    """Entries of all merges whose both sides are letters: (P,) uint64.

    Digits and ends of runs need no special case: their symbols are never the left side of an entry, and every run ends
    in one, so no entry spans two runs.
    """
    ids = tokenizer.ids
    merges = [
        (ids[a], ids[b], rank, ids[a + b]) for (a, b), rank in tokenizer.ranks.items() if _MERGE.fullmatch(f"{a} {b}")
    ]
    columns = np.array(merges, np.uint64).reshape(-1, 4).T
    return columns[0] << 48 | columns[1] << 32 | columns[2] << 16 | columns[3]


def cuckoo(entries: np.ndarray) -> np.ndarray:
    """Entries with different upper halves -> table of two rows, (P,) uint64 -> (2, S) int64.

    All entries are placed at once; evicted ones go to their other row in the next round (Alcantara et al.,
    "Real-time parallel hashing on the GPU", 2009). If this does not terminate, the table is doubled.
    """
    bits = max(4, (len(entries) + len(entries) // 4).bit_length())
    while (table := _place(entries, bits)) is None:
        bits += 1
    return table.view(np.int64)


def _place(entries: np.ndarray, bits: int) -> np.ndarray | None:
    """None if it does not terminate."""
    keys = entries >> 32
    # Cells of the flat table: row 0, then row 1.
    choices = np.stack([_hash(keys, row, bits) + (row << bits) for row in range(2)])
    row = np.zeros(len(entries), np.int64)
    owner = np.full(2 << bits, -1)
    homeless = np.arange(len(entries))
    for _ in range(_ROUNDS):
        cells, winners = np.unique(choices[row[homeless], homeless], return_index=True)
        evicted = owner[cells]
        owner[cells] = homeless[winners]
        homeless = np.sort(np.concatenate((np.delete(homeless, winners), evicted[evicted >= 0])))
        if not len(homeless):
            table = np.zeros(2 << bits, np.uint64)
            table[owner >= 0] = entries[owner[owner >= 0]]
            return table.reshape(2, -1)
        row[homeless] ^= 1
    return None


def _hash(keys: np.ndarray, row: int, bits: int) -> np.ndarray:
    """The upper bits of a 32-bit product; the kernel and the reference do the same."""
    return (keys * np.uint64(MULTIPLIERS[row]) & 0xFFFFFFFF).astype(np.int64) >> (32 - bits)
