"""Permuted sequence modelling: one batch read in K orders at once, by both branches.

Bautista and Atienza, "Scene Text Recognition with Permuted Autoregressive Sequence Models", ECCV 2022, as CLIP4STR
trains with it. Positions of a word of L characters: 0 the start token, 1..L the characters, L + 1 the end token; its
T = L + 1 queries predict positions 1..L + 1 and its S = L + 1 content tokens are positions 0..L.

Shapes: N images, K orders, T = S of the batch's longest word, M memory tokens, d features, C classes.
"""

from __future__ import annotations

from itertools import permutations
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from clip4str.core.text import END
from clip4str.model.clip4str import Clip4Str
from clip4str.model.network import Decoder

IGNORED = -100
# Up to here all orders are listed and drawn without repeats; beyond, repeats are too rare to matter.
_LISTED = 4


class Losses(NamedTuple):
    """Mean cross-entropy per predicted token, and the share of characters the visual branch gets right."""

    visual: Tensor
    cross: Tensor | None
    accuracy: Tensor


def draw_orders(length: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Orders to read a word of `length` characters in: (K, length + 2) int64, each row every position once.

    Row 0 is forward, row 1 its mirror with the end token first (null context: what a single parallel pass needs),
    then random orders, each followed by its mirror. K is at most `count`: short words have fewer orders.
    """
    if length == 1:
        return np.arange(3)[None]
    forward = np.arange(length)
    if length <= _LISTED:
        # One of each mirrored pair, in lexical order, so that the forward order comes first and is left out.
        pairs = [p for p in permutations(range(length)) if p[0] < p[-1]][1:]
        drawn = rng.permutation(len(pairs))[: count // 2 - 1]
        chosen = [forward, *(np.array(pairs[i]) for i in drawn)]
    else:
        chosen = [forward, *(rng.permutation(length) for _ in range(count // 2 - 1))]
    orders = np.array([order for one in chosen for order in (one, one[::-1])])
    framed = np.pad(orders + 1, ((0, 0), (1, 1)), constant_values=((0, 0), (0, length + 1)))
    framed[1, 1:] = np.arange(length + 1, 0, -1)
    return framed


def order_masks(orders: np.ndarray) -> np.ndarray:
    """What each query may see: (K, T, S) bool. A query sees exactly the content that its order puts before it."""
    rank = np.argsort(orders, axis=1)
    return rank[:, None, :-1] < rank[:, 1:, None]


def psm_losses(
    model: Clip4Str, memory: Tensor, tokens: Tensor, orders: np.ndarray, cross: bool = True, alone: bool = False
) -> Losses:
    """Losses of both branches over all orders, each the mean over every token predicted in any order.

    memory (N, M, d): the image tower's answer. tokens (N, T + 1): [start] word [end], padded. orders: from
    draw_orders, for the longest word. The end token is predicted in the first two orders only. The cross-modal
    branch reads the same ground truth under the same masks, the image features detached, and the text tower's
    features of what the visual branch has just predicted in that order. cross=False leaves that branch out.

    alone=True adds what non-autoregressive decoding asks and two orders never teach: every token of the word, the end
    too, knowing the start token only. Of K random orders each has but one such token. (Ours, not the paper's.)
    """
    content, target = tokens[:, :-1], tokens[:, 1:]
    pad = model.charset.pad
    masks = torch.from_numpy(order_masks(orders)).to(tokens.device)
    if alone:
        masks = torch.cat((masks, (torch.arange(masks.shape[2], device=masks.device) == 0).expand_as(masks[:1])))
    rows = len(masks)
    readable = (content != pad) & (content != END)
    attend = (masks[:, None] & readable[:, None]).flatten(0, 1)  # [K * N, T, S]
    content = content.repeat(rows, 1)
    target = target.masked_fill(target == pad, IGNORED)
    without_end = target.masked_fill(target == END, IGNORED)
    with_end = (*range(min(2, len(orders))), *range(len(orders), rows))
    targets = torch.cat([target if k in with_end else without_end for k in range(rows)])

    kv = model.visual_decoder.project_memory(memory)
    visual = _decode(model.visual_decoder, content, attend, _repeat(kv, rows))
    with torch.no_grad():
        ids = visual.argmax(dim=-1)
        counted = targets != IGNORED
        accuracy = (ids == targets)[counted].float().mean()
    visual_loss = _cross_entropy(visual, targets)
    if not cross:
        return Losses(visual_loss, None, accuracy)
    image_kv = model.cross_decoder.project_memory(memory.detach())
    memory_kv = torch.cat((_repeat(image_kv, rows), caption_kv(model, ids)), dim=3)
    cross_loss = _cross_entropy(_decode(model.cross_decoder, content, attend, memory_kv), targets)
    return Losses(visual_loss, cross_loss, accuracy)


def caption_kv(model: Clip4Str, ids: Tensor) -> Tensor:
    """Predictions (N, T) -> the cross-modal decoder's keys and values of their captions' features.

    Equal captions, of which the K orders make many, pass the text tower once; their gradients add up.
    """
    captions = [model.charset.caption(row) for row in ids.cpu().numpy()]
    distinct = list(dict.fromkeys(captions))
    where = {caption: i for i, caption in enumerate(distinct)}
    bpe = torch.from_numpy(model.tokenizer(distinct)).to(ids.device)
    kv = model.cross_decoder.project_memory(model.clip_model.encode_text(bpe))
    return kv[torch.tensor([where[c] for c in captions], device=ids.device)]


def _decode(decoder: Decoder, content: Tensor, attend: Tensor, memory_kv: Tensor) -> Tensor:
    return decoder(content, attend, memory_kv).float()


def _repeat(kv: Tensor, times: int) -> Tensor:
    """(N, ...) -> (times * N, ...)"""
    return kv.expand(times, *kv.shape).flatten(0, 1)


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)
