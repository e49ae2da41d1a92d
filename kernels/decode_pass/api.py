"""One pass of the two-stream decoder."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from clip4str.core.errors import LayoutError, UsageError
from clip4str.core.masks import MODES

from ..cross_attention import cross_attention
from ..linear import linear
from ..shared.checks import begin_alike, check_contiguous, check_dtype, check_same_device, check_shape
from ..shared.launch import on_device, use_kernel
from . import reference
from .weights import DecoderWeights


class Answer(NamedTuple):
    """A pass's answer for N words at T positions.

    ids (N, T) int32: the most likely class of each position, the lowest of equals. probs (N, T) float32: its softmax
    probability. last (N,) int32: index of the last position that belongs to the word, min(first end token or T, limit).
    unsettled (N,) int32: 1 if a position before `last` differs from the ids that the pass was given. logits (N, T, C)
    float32, or None.
    """

    ids: Tensor
    probs: Tensor
    last: Tensor
    unsettled: Tensor
    logits: Tensor | None = None

    @classmethod
    def empty(cls, weights: DecoderWeights, n: int, logits: bool = False) -> Answer:
        """Uninitialised, for n words."""
        ids = torch.empty(n, weights.steps, dtype=torch.int32, device=weights.device)
        last = ids.new_empty(n)
        probs = torch.empty_like(ids, dtype=torch.float32)
        rows = probs.new_empty(n, weights.steps, weights.classes) if logits else None
        return cls(ids, probs, last, torch.empty_like(last), rows)


def decode_pass(
    weights: DecoderWeights,
    ids: Tensor | None,
    memory: Tensor,
    text: Tensor | None = None,
    *,
    mode: str,
    keep: Tensor | None = None,
    limit: Tensor | None = None,
    logits: bool = False,
    through_last: bool = False,
    out: Answer | None = None,
    implementation: str = "auto",
) -> Answer:
    """Every position of N words at once, from the tokens before it (or around it) and the image and text memory:

        x1 = base + self-attention over [start, ids[:, :-1]]        from tables, see weights.py
        x2 = x1 + cross-attention over memory and text
        x3 = x2 + down(gelu(up(n(x2))))
        ids, probs = argmax, max of softmax(n(x3) Wh^T + bh)

    ids (N, T) int32: clamped to 0..K - 1, so past the end token any values are legal. Position j >= 1 of the content is
    ids[:, j - 1], position 0 the start token.
    mode: what query i sees: "start" content 0 alone (ids are not read and may be None); "causal" j <= i; "cloze" all
    but its own token, j != i + 1, and only j <= keep[n].
    keep (N,) int32: for "cloze" and only there, the last content position that counts.
    memory (N, 2, h, M, e), text (N, 2, h, X, e) or None: as cross_attention takes them.
    limit (N,) int32: index of the last position that may belong to the word; None: T - 1.
    logits: return them, too. through_last: `unsettled` also where the id at `last` alone is another one: the answer is
    settled, but the word that the pass was given is longer or shorter. out: an Answer to write to (Answer.empty), its
    ids not the ids given.

    In "causal" mode the answer is the greedy word, exactly, once `unsettled` is 0: position i came from the tokens
    before it, which no longer change. `last` is what a cloze pass over this answer takes as `keep`, and what a
    following decoder that may not run longer takes as `limit`.

    Six or seven launches, no synchronisation, shapes that depend on no data: it can be captured in a CUDA graph. A
    word's answer does not depend on the other words where the configuration is the same.

    Raises ShapeError, DtypeError, LayoutError, DeviceError, UsageError.
    """
    fused = _check(weights, ids, memory, text, mode, keep, limit, logits, out, implementation)
    n = memory.shape[0]
    out = Answer.empty(weights, n, logits) if out is None else out
    if n == 0:
        return out
    before = ids if mode == "causal" else None
    if not fused:
        x = reference.self_attention(weights, ids, mode, keep, n)
        x = _between(weights, x, memory, text, implementation)
        for place, answer in zip(out, reference.head(weights, x, before, limit, through_last)):
            if place is not None:
                place.copy_(answer)
        return out
    from . import kernel

    with on_device(weights.device):
        x = kernel.self_attention(weights, ids, mode, keep, n)
        x = _between(weights, x, memory, text, implementation)
        kernel.head(weights, x, before, limit, out if logits else out._replace(logits=None), through_last=through_last)
    return out


def _between(w: DecoderWeights, x: Tensor, memory: Tensor, text: Tensor | None, implementation: str) -> Tensor:
    """x1 -> x3, in x1's memory."""
    cross_attention(
        x, memory, text, query_weight=w.query_weight, query_bias=w.query_bias, out_weight=w.out_weight,
        out_bias=w.out_bias, heads=w.heads, out=x, implementation=implementation,
    )  # fmt: skip
    hidden = linear(x, w.up_weight, w.up_bias, normalize=True, activation="gelu", implementation=implementation)
    return linear(hidden, w.down_weight, w.down_bias, residual=x, out=x, implementation=implementation)


def _check(
    w: DecoderWeights,
    ids: Tensor | None,
    memory: Tensor,
    text: Tensor | None,
    mode: str,
    keep: Tensor | None,
    limit: Tensor | None,
    logits: bool,
    out: Answer | None,
    implementation: str,
) -> bool:
    """Raises what decode_pass raises; does the kernel run? cross_attention checks the memories' lengths."""
    if mode not in MODES:
        raise UsageError(f"mode is one of {', '.join(MODES)}, not {mode!r}")
    if mode != "start" and ids is None:
        raise UsageError(f"ids: mode {mode!r} decodes from tokens, give them")
    if (mode == "cloze") != (keep is not None):
        raise UsageError(f"keep: mode 'cloze' needs it and no other takes it; mode is {mode!r}")
    sizes: dict[str, int] = {"T": w.steps, "C": w.classes, "h": w.heads, "e": w.width // w.heads}
    check_shape("memory", memory, ("N", 2, "h", "M", "e"), sizes)
    check_dtype("memory", memory, w.dtype)
    if text is not None:
        check_shape("text", text, ("N", 2, "h", "X", "e"), sizes)
        check_dtype("text", text, w.dtype)
    whole: dict[str, tuple[Tensor | None, tuple[str, ...]]] = {
        "ids": (ids, ("N", "T")), "keep": (keep, ("N",)), "limit": (limit, ("N",)),
    }  # fmt: skip
    if out is not None:
        whole |= {f"out.{name}": (getattr(out, name), shape) for name, shape in _ANSWER.items()}
        if logits and out.logits is None:
            raise UsageError("out.logits: logits are wanted but out has no room for them")
        if ids is not None and begin_alike(out.ids, ids):
            raise LayoutError("out.ids: expected memory other than ids': the pass compares the two")
    for name, (tensor, shape) in whole.items():
        if tensor is not None:
            check_shape(name, tensor, shape, sizes)
            check_dtype(name, tensor, torch.float32 if name in ("out.probs", "out.logits") else torch.int32)
            check_contiguous(name, tensor)
    tensors = {name: tensor for name, (tensor, _) in whole.items()}
    device = check_same_device({"weights": w.values, "memory": memory, "text": text, **tensors})
    return use_kernel(device, implementation)


_ANSWER = {"ids": ("N", "T"), "probs": ("N", "T"), "last": ("N",), "unsettled": ("N",), "logits": ("N", "T", "C")}
