"""The specification of `tokenize` in plain torch, without a loop over words."""

from __future__ import annotations

import torch
from torch import Tensor

from clip4str.core.caption_tables import DROPPED, MULTIPLIERS

from .tables import TokenizerTables

_NONE = 0xFFFF  # no symbol: larger than any token


def tokenize_reference(tables: TokenizerTables, ids: Tensor, last: Tensor | None = None) -> Tensor:
    """As api.tokenize."""
    symbols = _first_symbols(tables, ids, last)
    rank = torch.full((len(ids),), -1, device=ids.device)
    position = torch.arange(ids.shape[1], device=ids.device)
    while True:
        right = torch.cat((symbols[:, 1:], torch.full_like(symbols[:, :1], _NONE)), dim=1)
        ranks, merged = _look_up(tables, symbols, right)  # [N, T]
        # One merge at a time: the leftmost pair of the lowest rank; that rank again as long as it occurs. Only one
        # pair has a rank, so this merges all its occurrences from left to right before any other pair.
        order = torch.where(ranks == rank[:, None], -1, ranks)
        best, where = order.min(dim=1)  # the first of equals
        found = best < _NONE
        if not found.any():
            return _tokens(tables, symbols)
        rank = torch.where(found & (best >= 0), best, rank)
        where = torch.where(found, where, ids.shape[1])[:, None]
        symbols = torch.where(position < where, symbols, torch.where(position == where, merged, right))


def _first_symbols(tables: TokenizerTables, ids: Tensor, last: Tensor | None) -> Tensor:
    """The characters that captions keep, as symbols, without gaps, then _NONE: (N, T) int64."""
    position = torch.arange(ids.shape[1], device=ids.device)
    ended = (ids == 0).cumsum(dim=1) > 0
    if last is not None:
        ended |= position >= last[:, None]
    known = ~ended & (ids > 0) & (ids < len(tables.characters))
    letters = tables.characters[torch.where(known, ids, 0).long()].long()  # id 0 is DROPPED
    order = (letters == DROPPED).byte().argsort(dim=1, stable=True)
    letters = letters.gather(1, order)
    inside, closing = letters & 0xFFFF, letters >> 16
    is_letter = inside != closing
    is_letter &= letters != DROPPED
    goes_on = torch.cat((is_letter[:, 1:], torch.zeros_like(is_letter[:, :1])), dim=1)
    return torch.where(letters == DROPPED, _NONE, torch.where(goes_on, inside, closing))


def _look_up(tables: TokenizerTables, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Rank and merged symbol of every pair; rank _NONE if it is no merge."""
    key = left << 16 | right
    found = torch.zeros_like(key)
    for row, multiplier in zip(tables.pairs, MULTIPLIERS):
        entry = row[(key * multiplier & 0xFFFFFFFF) >> (32 - tables.bits)]
        found = torch.where((entry >> 32 & 0xFFFFFFFF) == key, entry, found)
    return torch.where(found == 0, _NONE, found >> 16 & 0xFFFF), found & 0xFFFF


def _tokens(tables: TokenizerTables, symbols: Tensor) -> Tensor:
    """Start, symbols, end, cut to the context with the end kept, then zeros: (N, context) int32."""
    room = tables.context - 2
    tokens = torch.zeros((len(symbols), tables.context), dtype=torch.int32, device=symbols.device)
    kept = symbols[:, :room]
    tokens[:, 0] = tables.start
    tokens[:, 1 : 1 + kept.shape[1]] = torch.where(kept == _NONE, 0, kept)
    count = (kept != _NONE).sum(dim=1, keepdim=True)
    return tokens.scatter_(1, count + 1, tables.end)
