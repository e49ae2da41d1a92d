"""Byte-pair encoding with one symbol for each lane of a warp."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from clip4str.core.caption_tables import DROPPED, MULTIPLIERS

from ..shared.dependent import dependent, launch_dependents, wait
from ..shared.launch import on_device
from .config import TokenizeConfig, configuration
from .tables import SLOTS, TokenizerTables

_NONE = tl.constexpr(0xFFFF)  # no symbol: larger than any token
_NEVER = tl.constexpr(1 << 30)
_DROPPED = tl.constexpr(DROPPED)
_FIRST, _SECOND = tl.constexpr(MULTIPLIERS[0]), tl.constexpr(MULTIPLIERS[1])


@triton.jit(do_not_specialize=["n", "row", "steps", "classes", "bits", "start", "end"])
def tokenize_kernel(
    ids,  # [N, T] int32
    last,  # [N] int32, or None
    characters,  # [C] int32
    pairs,  # [2, S] int64
    out,  # [N, CONTEXT] int32
    n,  # words
    row,  # elements from one word's ids to the next
    steps,  # T
    classes,  # C
    bits,  # log2(S)
    start,
    end,
    WORDS: tl.constexpr,
    SLOTS: tl.constexpr,
    CONTEXT: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """Merges until nothing merges; the formula is api.tokenize's, the tables are TokenizerTables'.

    A round merges ONE pair of a word: the leftmost of the lowest rank, and that rank again as long as it occurs (only
    one pair has it). So a rank's occurrences merge from left to right before any other pair, "aaa" as (aa)a, without a
    rule for overlaps; and the gap is closed by taking the right neighbour's symbol, which the look-up has fetched
    anyway. There are as many rounds as merges, and few words have a pair twice.

    The lowest rank of the whole word may be taken, not of each run of letters: merging it changes nothing in runs that
    do not have it, and in one that has it, it is that run's lowest too.
    """
    launch_dependents(DEPENDENT)
    wait(DEPENDENT)
    word = tl.program_id(0) * WORDS + tl.arange(0, WORDS)
    is_word = word < n
    slot = tl.arange(0, SLOTS)[None, :]
    is_step = is_word[:, None] & (slot < steps)
    token = tl.load(ids + word.to(tl.int64)[:, None] * row + slot, mask=is_step, other=0)  # [W, SLOTS], as all below
    stop = tl.min(tl.where(token == 0, slot, SLOTS), axis=1)
    if last is not None:
        stop = tl.minimum(stop, tl.load(last + word, mask=is_word, other=0))
    is_character = (slot < stop[:, None]) & (token > 0) & (token < classes)
    letters = tl.load(characters + token, mask=is_character, other=_DROPPED)

    # Kept characters move together: slot j takes that of the first slot up to which more than j are kept.
    kept = tl.cumsum((letters != _DROPPED).to(tl.int32), axis=1)
    count = tl.max(kept, axis=1)[:, None]
    source = tl.zeros((WORDS, SLOTS), tl.int32)
    for power in tl.static_range(5):  # a binary search, SLOTS = 2^5
        step = SLOTS >> (power + 1)
        source += tl.where(tl.gather(kept, source + (step - 1), axis=1) <= slot, step, 0)
    letters = tl.gather(letters, source, axis=1)
    right_slot = tl.minimum(slot + 1, SLOTS - 1) + tl.zeros((WORDS, SLOTS), tl.int32)
    inside, closing = letters & 0xFFFF, letters >> 16
    is_letter = (inside != closing) & (slot < count)
    goes_on = (tl.gather(is_letter.to(tl.int32), right_slot, axis=1) != 0) & (slot + 1 < SLOTS)
    symbol = tl.where(slot < count, tl.where(goes_on, inside, closing), _NONE)

    shift, second_row = (32 - bits).to(tl.uint32), (1 << bits).to(tl.uint32)
    rank = tl.full((WORDS, 1), -1, tl.int32)
    running = True
    while running:
        right = tl.where(slot + 1 < SLOTS, tl.gather(symbol, right_slot, axis=1), _NONE)
        key = (symbol << 16 | right).to(tl.uint32)
        first = tl.load(pairs + (tl.mul(key, _FIRST, sanitize_overflow=False) >> shift))
        second = tl.load(pairs + ((tl.mul(key, _SECOND, sanitize_overflow=False) >> shift) | second_row))
        in_first, in_second = (first >> 32).to(tl.uint32) == key, (second >> 32).to(tl.uint32) == key
        entry = tl.where(in_first, first, second).to(tl.uint32)  # rank, merged symbol
        ranks = (entry >> 16).to(tl.int32)
        order = tl.where(ranks == rank, 0, ranks + 1) * SLOTS + slot
        best = tl.min(tl.where(in_first | in_second, order, _NEVER), axis=1)[:, None]  # [W, 1]
        rank = tl.where(best < SLOTS, rank, best // SLOTS - 1)
        at = tl.where(best == _NEVER, SLOTS, best % SLOTS)
        merged = (entry & 0xFFFF).to(tl.int32)
        symbol = tl.where(slot < at, symbol, tl.where(slot == at, merged, right))
        running = tl.min(best) < _NEVER

    count = tl.minimum(tl.sum((symbol != _NONE).to(tl.int32), axis=1)[:, None], CONTEXT - 2)
    answer = tl.where(slot < count, symbol, tl.where(slot == count, end, 0))
    answer = tl.where(slot == SLOTS - 1, start, answer)  # a lane whose symbol is never kept
    place = (slot + 1) % SLOTS
    tl.store(out + word.to(tl.int64)[:, None] * CONTEXT + place, answer, mask=is_word[:, None] & (place < CONTEXT))


def tokenize_triton(
    tables: TokenizerTables, ids: Tensor, last: Tensor | None = None, config: TokenizeConfig | None = None
) -> Tensor:
    """As api.tokenize, which checks; N at least 1."""
    n, config = len(ids), config or configuration(len(ids))
    early = dependent(ids.device)
    out = torch.empty((n, tables.context), dtype=torch.int32, device=ids.device)
    with on_device(ids.device):
        tokenize_kernel[(triton.cdiv(n, config.words),)](
            ids,
            last,
            tables.characters,
            tables.pairs,
            out,
            n,
            ids.stride(0),
            ids.shape[1],
            len(tables.characters),
            tables.bits,
            tables.start,
            tables.end,
            WORDS=config.words,
            SLOTS=SLOTS,
            CONTEXT=tables.context,
            DEPENDENT=early,
            num_warps=config.warps,
            launch_pdl=early,
        )
    return out
