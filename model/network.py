"""CLIP4STR in plain torch: the reference for every export and kernel.

Zhao et al., "CLIP4STR: A Simple Baseline for Scene Text Recognition with Pre-trained Vision-Language Model",
IEEE TIP 2024 (arXiv 2305.14014). Module names are the published state_dict's.

Shapes: N images, M memory tokens (1 + patches), d features, T = 26 steps, S content positions, C classes.
"""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import Config
from .draft import DraftHead

IMAGE_LAYER_NORM_EPS = TEXT_LAYER_NORM_EPS = DECODER_LAYER_NORM_EPS = 1e-5


class Attention(nn.Module):
    """Multi-head attention with one fused input projection, parameters named as in nn.MultiheadAttention."""

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        self.heads, self.dropout = heads, dropout
        nn.init.xavier_uniform_(self.in_proj_weight)

    def split(self, x: Tensor) -> Tensor:
        """(N, S, width) -> (N, heads, S, width / heads)"""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def query(self, x: Tensor) -> Tensor:
        """(N, T, width) -> (N, heads, T, width / heads)"""
        width = x.shape[-1]
        return self.split(F.linear(x, self.in_proj_weight[:width], self.in_proj_bias[:width]))

    def key_value(self, x: Tensor) -> Tensor:
        """(N, S, width) -> (N, 2, heads, S, width / heads): keys, then values"""
        width = x.shape[-1]
        kv = F.linear(x, self.in_proj_weight[width:], self.in_proj_bias[width:])
        return kv.unflatten(-1, (2, self.heads, -1)).permute(0, 2, 3, 1, 4)

    def attend(self, q: Tensor, kv: Tensor, mask: Tensor | None = None) -> Tensor:
        """q over kv, out-projected: (N, T, width). mask (bool, True = visible) broadcasts to (N, heads, T, S)."""
        dropout = self.dropout if self.training else 0.0
        out = F.scaled_dot_product_attention(q, kv[:, 0], kv[:, 1], attn_mask=mask, dropout_p=dropout)
        return self.out_proj(out.transpose(1, 2).flatten(2))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Self-attention, (N, S, width) -> (N, S, width)."""
        q, k, v = F.linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)
        return self.attend(self.split(q), torch.stack((self.split(k), self.split(v)), 1), mask)


class QuickGELU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class TowerMLP(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.gelu = QuickGELU()
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(self.gelu(self.c_fc(x)))


class ResidualBlock(nn.Module):
    def __init__(self, width: int, heads: int, eps: float) -> None:
        super().__init__()
        self.attn = Attention(width, heads)
        self.ln_1 = nn.LayerNorm(width, eps)
        self.mlp = TowerMLP(width)
        self.ln_2 = nn.LayerNorm(width, eps)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = x + self.attn(self.ln_1(x), mask)
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    def __init__(self, width: int, layers: int, heads: int, eps: float) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(ResidualBlock(width, heads, eps) for _ in range(layers))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        for block in self.resblocks:
            x = block(x, mask)
        return x


class ImageTower(nn.Module):
    """CLIP's ViT. Unlike CLIP, ln_post and proj act on ALL tokens, not only on the class token."""

    def __init__(self, c: Config) -> None:
        super().__init__()
        width = c.image_width
        self.class_embedding = nn.Parameter(width**-0.5 * torch.randn(width))
        self.positional_embedding = nn.Parameter(width**-0.5 * torch.randn(c.memory_tokens, width))
        self.proj = nn.Parameter(width**-0.5 * torch.randn(width, c.d))
        self.conv1 = nn.Conv2d(3, width, kernel_size=c.patch_size, stride=c.patch_size, bias=False)
        self.ln_pre = nn.LayerNorm(width, IMAGE_LAYER_NORM_EPS)
        self.transformer = Transformer(width, c.image_layers, c.image_heads, IMAGE_LAYER_NORM_EPS)
        self.ln_post = nn.LayerNorm(width, IMAGE_LAYER_NORM_EPS)

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, 3, H, W) normalised -> memory (N, M, d)"""
        x = self.conv1(pixels).flatten(2).transpose(1, 2)  # [N, M - 1, width]
        x = torch.cat((self.class_embedding.expand(x.shape[0], 1, -1), x), dim=1) + self.positional_embedding
        return self.ln_post(self.transformer(self.ln_pre(x))) @ self.proj


class Clip(nn.Module):
    """CLIP's two towers; the text tower's parameters sit at this level, as in the published state_dict."""

    def __init__(self, c: Config) -> None:
        super().__init__()
        self.positional_embedding = nn.Parameter(0.01 * torch.randn(c.text_positions, c.text_width))
        self.text_projection = nn.Parameter(c.text_width**-0.5 * torch.randn(c.text_width, c.d))
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))  # unused; checkpoints have it
        self.visual = ImageTower(c)
        self.transformer = Transformer(c.text_width, c.text_layers, c.text_heads, TEXT_LAYER_NORM_EPS)
        self.token_embedding = nn.Embedding(c.vocabulary, c.text_width)
        self.ln_final = nn.LayerNorm(c.text_width, TEXT_LAYER_NORM_EPS)
        nn.init.normal_(self.token_embedding.weight, std=0.02)

    def encode_text(self, bpe: Tensor) -> Tensor:
        """(N, context) tokens -> features of every position, (N, context, d)"""
        length = bpe.shape[1]
        x = self.token_embedding(bpe) + self.positional_embedding[:length]
        causal = torch.ones(length, length, dtype=torch.bool, device=x.device).tril()
        return self.ln_final(self.transformer(x, causal)) @ self.text_projection


class TokenEmbedding(nn.Module):
    def __init__(self, tokens: int, d: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tokens, d)

    def forward(self, tokens: Tensor) -> Tensor:
        return math.sqrt(self.embedding.embedding_dim) * self.embedding(tokens)


class DecoderLayer(nn.Module):
    """PARSeq's pre-LN two-stream layer, query stream only: with one layer the content stream is never updated."""

    def __init__(self, d: int, heads: int, mlp: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = Attention(d, heads, dropout)
        self.cross_attn = Attention(d, heads, dropout)
        self.linear1 = nn.Linear(d, mlp)
        self.linear2 = nn.Linear(mlp, d)
        self.norm1, self.norm2 = (
            nn.LayerNorm(d, DECODER_LAYER_NORM_EPS),
            nn.LayerNorm(d, DECODER_LAYER_NORM_EPS),
        )
        self.norm_q, self.norm_c = (
            nn.LayerNorm(d, DECODER_LAYER_NORM_EPS),
            nn.LayerNorm(d, DECODER_LAYER_NORM_EPS),
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, query: Tensor, content: Tensor, memory_kv: Tensor, attend: Tensor) -> Tensor:
        content_kv = self.self_attn.key_value(self.norm_c(content))
        x = self.self_attn.attend(self.self_attn.query(self.norm_q(query)), content_kv, attend)
        x = query + self.dropout(x)
        x = x + self.dropout(self.cross_attn.attend(self.cross_attn.query(self.norm1(x)), memory_kv))
        return x + self.dropout(self.linear2(self.dropout(F.gelu(self.linear1(self.norm2(x))))))


class Decoder(nn.Module):
    """One decoder (visual or cross-modal): Bautista and Atienza, "Scene Text Recognition with Permuted
    Autoregressive Sequence Models", ECCV 2022."""

    def __init__(self, c: Config, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList([DecoderLayer(c.d, c.decoder_heads, c.decoder_mlp, dropout)])
        self.text_embed = TokenEmbedding(len(c.charset) + 3, c.d)
        self.pos_queries = nn.Parameter(0.02 * torch.randn(1, c.steps, c.d))
        self.norm = nn.LayerNorm(c.d, DECODER_LAYER_NORM_EPS)
        self.head = nn.Linear(c.d, len(c.charset) + 1)
        self.dropout = nn.Dropout(dropout)
        nn.init.normal_(self.text_embed.embedding.weight, std=0.02)

    @property
    def layer(self) -> DecoderLayer:
        return cast(DecoderLayer, self.layers[0])

    def project_memory(self, memory: Tensor) -> Tensor:
        """memory (N, M, d) -> cross-attention keys and values (N, 2, heads, M, d / heads)"""
        return self.layer.cross_attn.key_value(memory)

    def forward(self, tokens: Tensor, attend: Tensor, memory_kv: Tensor) -> Tensor:
        """One pass: logits of positions 0..T-1.

        tokens (N, S): content, the start token first. attend (T, S) or (N, T, S) bool: content that each of the
        first T queries may see. memory_kv: from project_memory. Returns (N, T, C).
        """
        positions = self.pos_queries[:, : tokens.shape[1] - 1]
        content = self.text_embed(tokens) + F.pad(positions, (0, 0, 1, 0))  # the start token gets no position
        query = self.pos_queries[:, : attend.shape[-2]].expand(tokens.shape[0], -1, -1)
        mask = attend[:, None] if attend.dim() == 3 else attend
        x = self.layer(self.dropout(query), self.dropout(content), memory_kv, mask)
        return self.head(self.norm(x))


class Network(nn.Module):
    """The parts of CLIP4STR, without the order they are called in."""

    def __init__(self, config: Config, dropout: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.clip_model = Clip(config)
        self.visual_decoder = Decoder(config, dropout)
        self.cross_decoder = Decoder(config, dropout)
        self.draft_head = DraftHead(config) if config.draft_frames else None
