"""core/caption_tables.py's tables on a device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from clip4str.core.bpe import BytePairTokenizer
from clip4str.core.caption_tables import caption_tables
from clip4str.core.text import Charset

from ..shared.checks import check_range

SLOTS = 32  # symbols of a word, and the longest context: one for each lane of a warp


@dataclass(frozen=True)
class TokenizerTables:
    """The look-up tables of `tokenize`; made by `build`.

    characters: (C,) int32. For a character's id the symbol that it starts as inside a run of letters, and in the
        upper 16 bits the one at the run's end ("</w>"). Equal for digits, which are runs of their own. DROPPED for
        characters that captions leave out, and for id 0.
    pairs: (2, S) int64, S a power of two, about a third full: a cuckoo hash of the merges that letters can reach. A
        pair is in row 0 at hash 0 or in row 1 at hash 1 or nowhere. Entry: left symbol, right symbol, rank, merged
        symbol, 16 bits each from the top; 0 where empty (no letter is symbol 0).
    start, end: tokens around every caption. context: length of the answer.
    """

    characters: Tensor
    pairs: Tensor
    start: int
    end: int
    context: int

    @classmethod
    def build(
        cls, tokenizer: BytePairTokenizer, charset: Charset, device: torch.device | str = "cpu"
    ) -> TokenizerTables:
        """As caption_tables, whose CharsetError it raises. Raises ShapeError for a context longer than 32."""
        check_range("context", tokenizer.context, 2, SLOTS)
        characters, pairs = (torch.from_numpy(table) for table in caption_tables(tokenizer, charset))
        return cls(characters.to(device), pairs.to(device), tokenizer.start, tokenizer.end, tokenizer.context)

    @property
    def bits(self) -> int:
        """Logarithm of the slots in each row of `pairs`."""
        return self.pairs.shape[1].bit_length() - 1

    @property
    def device(self) -> torch.device:
        return self.pairs.device
