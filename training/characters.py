"""What a run learns to write: its charset, and what weights of a checkpoint with another one, or with other lengths of
words, are worth to it. Characters are told by what they are, never by their number."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from clip4str.core.charset_file import read_charset
from clip4str.core.errors import UsageError
from clip4str.core.text import CHARSET_94, default_test
from clip4str.model import Clip4Str
from clip4str.model.config import Config

from .vocabulary import MAX_LENGTH

DECODERS = ("visual_decoder", "cross_decoder")


def is_checkpoint(init: str) -> bool:
    """Is --init a checkpoint's path?"""
    return init.partition(":")[0] not in ("random", "clip")


def charset_of(args: argparse.Namespace, start: Config | None) -> tuple[tuple[str, str] | None, str]:
    """(charset, test charset) of a run, None for the usual ones, and a line on where they are from, "" for those.

    start: the network of --init, or of the run that goes on, where there is one. Raises UsageError, CharsetError.
    """
    if args.charset is None:
        if start is None or (start.charset == CHARSET_94 and not is_checkpoint(args.init)):
            return None, ""
        usual = start.charset == CHARSET_94
        said = "" if usual else f"charset: that of the checkpoint, {len(start.charset):,} characters"
        return (start.charset, start.charset_test), said
    given = read_charset(args.charset)
    same = start is not None and start.charset == given.characters
    test = start.charset_test if start is not None and same else default_test(given.characters)
    return (given.characters, test), f"charset: {given.said}"


def check_rendering(config: Config) -> None:
    """Raises UsageError if a network cannot write what --render draws: words of ASCII, of up to 25 characters."""
    lacking = "".join(c for c in CHARSET_94 if c not in set(config.charset))
    if lacking:
        raise UsageError(
            f"--render draws all characters of ASCII, and the charset lacks {lacking[:20]!r}: leave it out"
        )
    if config.steps <= MAX_LENGTH:
        raise UsageError(
            f"--render draws words of up to {MAX_LENGTH} characters, the network writes {config.steps - 1}: leave it "
            f"out, or --network steps={MAX_LENGTH + 1}"
        )


def carry_characters(state: dict[str, Tensor], old: Clip4Str, new: Clip4Str) -> list[str]:
    """Make an old network's state fit a new one's charset and word length; lines on what begins anew.

    In heads, token embeddings and the draft head the rows of shared characters, of end, start and pad stay, of other
    characters they are the new network's own; of positional queries the first ones stay.
    """
    said, own = [], new.state_dict()
    if old.config.charset != new.config.charset:
        taken = [old.charset.encode(c)[0] if c in old.charset else -1 for c in new.config.charset]
        classes = torch.tensor([0, *taken])
        tokens = torch.tensor([0, *taken, old.charset.start, old.charset.pad])
        for decoder in DECODERS:
            for name, rows in (
                ("head.weight", classes),
                ("head.bias", classes),
                ("text_embed.embedding.weight", tokens),
            ):
                key = f"{decoder}.{name}"
                state[key] = _rows(state[key], own[key], rows)
        if old.draft_head is not None and new.draft_head is not None:
            for key in ("draft_head.weight", "draft_head.bias"):
                before = state[key].unflatten(0, (-1, len(old.config.charset) + 1)).transpose(0, 1)
                after = own[key].unflatten(0, (-1, len(classes))).transpose(0, 1)
                state[key] = _rows(before, after, classes).transpose(0, 1).flatten(0, 1)
        kept = sum(row >= 0 for row in taken)
        said.append(
            f"charset: {kept:,} of {len(taken):,} characters are the checkpoint's and keep their weights, "
            f"{len(taken) - kept:,} begin anew, {len(set(old.config.charset) - set(new.config.charset)):,} are given up"
        )
    if old.config.steps != new.config.steps:
        kept = min(old.config.steps, new.config.steps)
        for key in (f"{decoder}.pos_queries" for decoder in DECODERS):
            if state[key].shape[2] == own[key].shape[2]:
                state[key] = torch.cat((state[key][:, :kept], own[key][:, kept:].to(state[key])), dim=1)
        said.append(
            f"words of up to {new.config.steps - 1} characters, the checkpoint's of up to {old.config.steps - 1}: "
            f"positions from {kept} on {'begin anew' if kept < new.config.steps else 'are given up'}"
        )
    if old.config.context != new.config.context:
        said.append(
            f"captions of {new.config.context} tokens, the checkpoint's of {old.config.context} "
            f"(--network context={old.config.context})"
        )
    return said


def _rows(before: Tensor, own: Tensor, taken: Tensor) -> Tensor:
    """Rows of `before` by number, -1 for that of `own`; `before` where it is of another size altogether."""
    if before.shape[1:] != own.shape[1:]:
        return before
    known = (taken >= 0).view(-1, *[1] * (before.dim() - 1))
    return torch.where(known, before[taken.clamp(min=0)], own.to(before))


def network_of(path: Path) -> Config | None:
    """Charset and test charset of the run that a last.ckpt is of. None if it does not say."""
    said = torch.load(path, map_location="cpu", weights_only=True, mmap=True).get("hyper_parameters", {})
    charset, test = said.get("charset_train"), said.get("charset_test")
    return Config(charset=charset, charset_test=test) if isinstance(charset, str) and isinstance(test, str) else None
