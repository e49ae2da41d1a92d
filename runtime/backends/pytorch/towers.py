"""The two towers on packed weights: images and captions in, the decoders' cross-attention keys and values out.

Shapes: N images, M memory tokens (1 + patches), P = M - 1, X text positions, h decoder heads of size e, d = h e.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from clip4str.kernels import short_attention
from clip4str.kernels.linear import add_product_, adds_in_place, linear, normalize, split_counters
from clip4str.model.config import Config
from clip4str.model.network import IMAGE_LAYER_NORM_EPS

from .attention import attention
from .weights import Affine, Block, DraftWeights, ImageWeights, TextWeights, Weights


def patch_shape(c: Config) -> tuple[int, ...]:
    """Shape of one image's patches, in the order in which the patch embedding's weights lie."""
    return (*c.grid, 3, *c.patch_size)


def patch_view(pixels: Tensor, c: Config) -> Tensor:
    """pixels (N, 3, H, W) seen as (N, rows, columns, 3, patch height, patch width); copying it unfolds the image."""
    (rows, columns), (height, width) = c.grid, c.patch_size
    pixels = pixels[:, :, : rows * height, : columns * width]  # what fills no patch is not looked at
    return pixels.unflatten(3, (columns, width)).unflatten(2, (rows, height)).permute(0, 2, 4, 1, 3, 5)


def image_tower(
    w: ImageWeights, patches: Tensor, out: Tensor | None = None, drafts: bool = True
) -> tuple[Tensor, Tensor | None]:
    """patches (N, *patch_shape) in the weights' dtype -> keys and values of every decoder, (N, M, 2 d or 4 d), and
    logits of the draft head, (N, F, C), None where there is none or no `drafts` are wanted. out: where keys and values
    go."""
    n, (tokens, width) = len(patches), w.positions.shape
    embedded = linear(patches.view(n, tokens - 1, -1), w.patch.weight)  # [N, P, width]
    x = embedded.new_empty(n, tokens, width)
    torch.add(embedded, w.positions[1:], out=x[:, 1:])
    x[:, 0] = w.positions[0]
    x = F.layer_norm(x, (width,), w.norm.weight, w.norm.bias, IMAGE_LAYER_NORM_EPS)
    x, shift = _blocks(w, x, causal=False)
    draft = draft_logits(w.draft, x, shift) if drafts and w.draft is not None else None
    return _memory(w, x, shift, out), draft


def draft_logits(w: DraftWeights, x: Tensor, shift: Tensor | None = None) -> Tensor:
    """The residual stream's last state (N, M, width), the class token first, plus shift (width,) -> (N, F, C)."""
    patches = normalize(x, shift=shift)[:, 1:].unflatten(1, w.grid)  # each by itself, before they are side by side
    return apply(w.head, patches.transpose(1, 2).flatten(2).contiguous()).view(len(x), -1, w.classes)


def text_tower(w: TextWeights, bpe: Tensor) -> Tensor:
    """Tokens (N, X) int32 -> keys and values of the cross-modal decoder, (N, X, 2 d)."""
    x = F.embedding(bpe, w.embedding) + w.positions[: bpe.shape[1]]
    return _memory(w, *_blocks(w, x, causal=True))


def key_value_view(kv: Tensor, heads: int, decoder: int = 0, decoders: int = 1) -> Tensor:
    """One decoder's keys and values out of a tower's (N, M, decoders * 2 d), as a view (N, 2, h, M, e)."""
    return kv.unflatten(-1, (decoders, 2, heads, -1))[:, :, decoder].permute(0, 2, 3, 1, 4)


def memory_views(kv: Tensor, w: Weights) -> tuple[Tensor, Tensor]:
    """The visual and the cross-modal decoder's keys and values; the visual one's twice where it is alone."""
    first, last = (key_value_view(kv, w.visual.heads, i, w.decoders) for i in (0, w.decoders - 1))
    return first, last


def apply(
    affine: Affine,
    x: Tensor,
    *,
    normalize: bool = False,
    activation: str = "none",
    residual: Tensor | None = None,
    out: Tensor | None = None,
    counters: Tensor | None = None,
) -> Tensor:
    return linear(
        x,
        affine.weight,
        affine.bias,
        normalize=normalize,
        activation=activation,
        residual=residual,
        out=out,
        counters=counters,
    )


def _blocks(w: ImageWeights | TextWeights, x: Tensor, causal: bool) -> tuple[Tensor, Tensor | None]:
    """The residual stream after all blocks, and what is to be added to it, (width,) float32 or None. x may change."""
    in_place, counters = adds_in_place(x), split_counters(x, len(w.blocks))
    for i, block in enumerate(w.blocks):
        if in_place:
            x = _block_in_place(block, x, w.heads, causal)
        else:
            x = _block(block, x, w.heads, causal, None if counters is None else counters[i])
    return x, w.carried if in_place else None


def _memory(w: ImageWeights | TextWeights, x: Tensor, shift: Tensor | None, out: Tensor | None = None) -> Tensor:
    """Keys and values of the decoders out of what `_blocks` returns."""
    if shift is None:
        return apply(w.key_value, x, normalize=True, out=out)
    return apply(w.key_value, normalize(x, shift=shift), out=out)


def _block(block: Block, x: Tensor, heads: int, causal: bool, counters: Tensor | None = None) -> Tensor:
    """A pre-norm residual block: x (N, S, width) -> (N, S, width). counters: see split_counters."""
    qkv = apply(block.qkv, x, normalize=True)
    if short_attention.fits(x, heads):
        out = block.out
        x = short_attention.short_attention(qkv, x, weight=out.weight, bias=out.bias, heads=heads, causal=causal)
    else:
        x = apply(block.out, _attend(qkv, heads, causal), residual=x)
    hidden = apply(block.up, x, normalize=True, activation="quick_gelu")
    return apply(block.down, hidden, residual=x, counters=counters)


def _block_in_place(block: Block, x: Tensor, heads: int, causal: bool) -> Tensor:
    """The same in x's memory, by the library: what x lacks in biases is added where its rows are normalised."""
    before, between = block.carried
    qkv = apply(block.qkv, normalize(x, shift=before))
    add_product_(x, _attend(qkv, heads, causal), block.out.weight)
    hidden = apply(block.up, normalize(x, shift=between), activation="quick_gelu")
    return add_product_(x, hidden, block.down.weight)


def _attend(qkv: Tensor, heads: int, causal: bool) -> Tensor:
    """Self-attention: (N, S, 3 width) -> (N, S, width)."""
    n, length, _ = qkv.shape
    q, k, v = qkv.view(n, length, 3, heads, -1).permute(2, 0, 3, 1, 4)  # [N, heads, S, width / heads] each
    attended = attention(q, k, v, causal)
    return attended.transpose(1, 2).reshape(n, length, -1)
