"""A decoder's weights as the kernels take them: tables for self-attention, LayerNorms folded into the next layer.

With one layer the content stream is never updated, so self-attention depends only on which token stands at which
position. Its scores and its values become tables, looked up by (position j, token):

    scores[j, token, head, i]  = q_i . k_(j, token) / sqrt(e)      for query position i
    values[j, token, head, :]  = Wo[:, head] v_(j, token, head)    the output projection is already in
    base[i]                    = pos_queries[i] + out_proj bias

and a pass's self-attention, residual included, is x1[i] = base[i] + sum_head sum_j softmax_j(scores)[i, j] values[j].

The value table holds d numbers for each of T x K x heads: B/16 in half precision 21 MB, L/14 31 MB, H/14 41 MB, for
each of the two decoders. The plain alternative, values before the projection (2.6 to 5.2 MB), needs another launch
and reads the d x d projection: 14 MFLOP a word at B/16 against the table's 8. A pass reads the table
rows of its tokens: T x h x d numbers, 213 KB a word at B/16 where the alternative reads 27 KB. At a few
words that is negligible; at 64 it is 14 MB, most of it from the L2 cache, where the rows of common characters stay:
about the time of the launch saved.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip4str.core.errors import DtypeError, ShapeError
from clip4str.model.network import Decoder

from ..shared.checks import (
    FLOATS,
    check_contiguous,
    check_dtype,
    check_range,
    check_same_device,
    check_shape,
)

MOST_STEPS = 32  # queries and content positions: one tile of the matrix units
MOST_TOKENS = 256
MOST_CLASSES = 128  # one tile of the head kernel
LEAST_WIDTH, MOST_WIDTH = 16, 1024


@dataclass(frozen=True)
class DecoderWeights:
    """One decoder, packed. T steps, K tokens, C classes, h heads, d width, F width of the MLP.

    All contiguous on one device; tables and matrices in the network's dtype; what is only added in float32, unless a
    library's matrix product takes it. The start token is number C, as in every CLIP4STR charset: end token,
    characters, start, pad.

    Raises ShapeError, DtypeError, LayoutError or DeviceError for tensors that do not form one decoder, or one larger
    than the kernels take: T up to 32, K up to 256, C up to 128, d from 16 to 1024.
    """

    scores: Tensor  # [T, K, h, 32] float32, query positions past T are 0
    values: Tensor  # [T, K, h, d]
    base: Tensor  # [T, d] float32
    query_weight: Tensor  # [d, d] norm1 and the scale folded in
    query_bias: Tensor  # [d]
    out_weight: Tensor  # [d, d]
    out_bias: Tensor  # [d]
    up_weight: Tensor  # [F, d] norm2 folded in
    up_bias: Tensor  # [F]
    down_weight: Tensor  # [d, F]
    down_bias: Tensor  # [d]
    head_weight: Tensor  # [C, d] the final norm folded in
    head_bias: Tensor  # [C] float32

    def __post_init__(self) -> None:
        tensors = {f.name: getattr(self, f.name) for f in fields(self)}
        check_same_device(tensors)
        check_dtype("values", self.values, FLOATS)
        sizes: dict[str, int] = {}
        for name, shape in _SHAPES.items():
            check_shape(name, tensors[name], shape, sizes)
            check_dtype(name, tensors[name], torch.float32 if name in _FLOAT32 else self.values.dtype)
            check_contiguous(name, tensors[name])
        check_range("steps T", self.steps, 1, MOST_STEPS)
        check_range("classes C", self.classes, 1, MOST_CLASSES)
        check_range("tokens K", self.tokens, self.classes + 1, MOST_TOKENS)
        check_range("width d", self.width, LEAST_WIDTH, MOST_WIDTH)
        if self.width % self.heads:
            raise ShapeError(f"width d: expected a multiple of the {self.heads} heads, got {self.width}")

    @property
    def steps(self) -> int:
        return self.scores.shape[0]

    @property
    def tokens(self) -> int:
        return self.scores.shape[1]

    @property
    def heads(self) -> int:
        return self.scores.shape[2]

    @property
    def width(self) -> int:
        return self.values.shape[3]

    @property
    def classes(self) -> int:
        return self.head_weight.shape[0]

    @property
    def start(self) -> int:
        """The start token."""
        return self.classes

    @property
    def dtype(self) -> torch.dtype:
        return self.values.dtype

    @property
    def device(self) -> torch.device:
        return self.values.device


_FLOAT32 = ("scores", "base", "head_bias")
_SHAPES: dict[str, tuple[int | str, ...]] = {
    "scores": ("T", "K", "h", MOST_STEPS),
    "values": ("T", "K", "h", "d"),
    "base": ("T", "d"),
    "query_weight": ("d", "d"),
    "query_bias": ("d",),
    "out_weight": ("d", "d"),
    "out_bias": ("d",),
    "up_weight": ("F", "d"),
    "up_bias": ("F",),
    "down_weight": ("d", "F"),
    "down_bias": ("d",),
    "head_weight": ("C", "d"),
    "head_bias": ("C",),
}


@torch.no_grad()
def pack_decoder(decoder: Decoder, dtype: torch.dtype, device: torch.device | str) -> DecoderWeights:
    """Fold and tabulate in float64, round once to `dtype` (float16, bfloat16 or float32).

    Raises DtypeError for another dtype, ShapeError for a decoder larger than the kernels take (see DecoderWeights).
    """
    if dtype not in FLOATS:
        raise DtypeError(f"dtype: expected float16 or bfloat16 or float32, got {str(dtype).removeprefix('torch.')}")
    exact = copy.deepcopy(decoder).double()
    layer = exact.layer
    check_range("steps T", exact.pos_queries.shape[1], 1, MOST_STEPS)
    cross, width = layer.cross_attn, exact.pos_queries.shape[2]
    scale = (width // cross.heads) ** -0.5
    query = _fold(layer.norm1, cross.in_proj_weight[:width], cross.in_proj_bias[:width])
    scores, values, base = _tables(exact)
    packed = {
        **{"scores": scores, "values": values, "base": base},
        **_named("query", query[0] * scale, query[1] * scale),
        **_named("out", cross.out_proj.weight, cross.out_proj.bias),
        **_named("up", *_fold(layer.norm2, layer.linear1.weight, layer.linear1.bias)),
        **_named("down", layer.linear2.weight, layer.linear2.bias),
        **_named("head", *_fold(exact.norm, exact.head.weight, exact.head.bias)),
    }

    def place(name: str, tensor: Tensor) -> Tensor:
        return tensor.detach().to(torch.float32 if name in _FLOAT32 else dtype).to(device).contiguous()

    return DecoderWeights(**{name: place(name, tensor) for name, tensor in packed.items()})


@torch.no_grad()
def content_tables(decoder: Decoder) -> tuple[Tensor, Tensor, Tensor]:
    """Everything self-attention can see, in the decoder's dtype: queries (h, T, e) by position, scaled;
    keys and values (h, T x K, e) by position and token. The ONNX graphs look up the same rows."""
    attention, positions = decoder.layer.self_attn, decoder.pos_queries[0]  # [T, d]
    embedded = decoder.text_embed(torch.arange(decoder.text_embed.embedding.num_embeddings, device=positions.device))
    content = embedded + F.pad(positions[:-1], (0, 0, 1, 0))[:, None]  # [T, K, d], the start token gets no position
    keys, values = attention.key_value(decoder.layer.norm_c(content.flatten(0, 1))[None])[0]
    return content_queries(decoder), keys, values


@torch.no_grad()
def content_queries(decoder: Decoder) -> Tensor:
    """Of self-attention: (h, T, e) by position, the scale in them."""
    queries = decoder.layer.self_attn.query(decoder.layer.norm_q(decoder.pos_queries[0])[None])[0]
    return queries * queries.shape[-1] ** -0.5


def _tables(decoder: Decoder) -> tuple[Tensor, Tensor, Tensor]:
    """scores (T, K, h, 32), values (T, K, h, d) and base (T, d), as at the top."""
    attention, positions = decoder.layer.self_attn, decoder.pos_queries[0]
    queries, keys, values = content_tables(decoder)
    shape = len(positions), -1
    scores = torch.einsum("hie,hre->rhi", queries, keys).unflatten(0, shape)
    out = attention.out_proj.weight.unflatten(1, (attention.heads, -1))  # [d, h, e]
    projected = torch.einsum("hre,dhe->rhd", values, out).unflatten(0, shape)
    return F.pad(scores, (0, MOST_STEPS - len(positions))), projected, positions + attention.out_proj.bias


def _fold(norm: nn.LayerNorm, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Linear(LayerNorm(x)) = weight' normalised(x) + bias'"""
    return weight * norm.weight, bias + weight @ norm.bias


def _named(name: str, weight: Tensor, bias: Tensor) -> dict[str, Tensor]:
    return {f"{name}_weight": weight, f"{name}_bias": bias}
