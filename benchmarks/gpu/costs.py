"""What the one-shot program must do, launch by launch: bytes, arithmetic, blocks. Counted from the network's
dimensions alone, so that times can be predicted before a GPU has been seen, and compared after.

Bytes are those that must cross device memory: every input read once, every output written once. Arithmetic counts a
multiply-add as two. Blocks say how the work is cut, since a launch of few blocks is bound by what one multiprocessor
can load, not by the memory.

Shapes: N images, M memory tokens, d features, h decoder heads of width e, T = 26 steps padded to 32, X text tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, prod
from typing import TYPE_CHECKING

from clip4str.kernels.linear.api import FUSED_ROWS  # rows up to which `linear` is one fused kernel

if TYPE_CHECKING:
    from clip4str.model import Config

QUERIES = 32  # T padded to what tensor cores multiply
_TILES = ((128, 256), (128, 128), (64, 128), (64, 64), (32, 64), (32, 32), (32, 16))


@dataclass(frozen=True)
class Cut:
    """One way to cut a launch into blocks: how many, and what each of them loads and computes."""

    blocks: int
    bytes: float
    flops: float


@dataclass(frozen=True)
class Launch:
    """One kernel, launched `count` times. bytes, flops: of one launch. matrix: does it use tensor cores?"""

    name: str
    bytes: float
    flops: float
    cuts: tuple[Cut, ...]
    count: int = 1
    matrix: bool = True

    def times(self, count: int) -> Launch:
        return replace(self, count=self.count * count)


def linear(name: str, rows: int, k: int, f: int, residual: bool = False, size: int = 2) -> Launch:
    """(rows, k) @ (k, f); the best of the usual tiles is what a tuned kernel runs."""
    cuts = tuple(
        Cut(ceil(rows / m) * ceil(f / n), (min(m, rows) + n) * k * size, 2.0 * m * n * k)
        for m, n in _TILES
        if m <= max(32, rows)
    )
    moved = (rows * k + k * f + rows * f * (2 if residual else 1)) * size
    return Launch(name, moved, 2.0 * rows * k * f, cuts)


def stream(name: str, elements: float, passes: int = 2, size: int = 2) -> Launch:
    """An elementwise kernel: `passes` reads and writes of every element."""
    moved = elements * passes * size
    return Launch(name, moved, 0.0, (Cut(max(1, ceil(elements / 4096)), moved / max(1, ceil(elements / 4096)), 0.0),),
                  matrix=False)  # fmt: skip


def attention(name: str, images: int, heads: int, tokens: int, e: int, size: int = 2) -> Launch:
    """Self-attention of a tower, fused."""
    tile = 64 if tokens >= 64 else 16
    cut = Cut(images * heads * ceil(tokens / tile), (tile + 2 * tokens) * e * size, 4.0 * tile * tokens * e)
    return Launch(name, 4.0 * images * heads * tokens * e * size, 4.0 * images * heads * tokens * tokens * e, (cut,))


def layer(
    name: str,
    rows: int,
    k: int,
    f: int,
    normalize: bool = False,
    residual: bool = False,
    size: int = 2,
) -> list[Launch]:
    """One call of kernels.linear: one launch, and one to normalise where rows are many."""
    product = linear(name, rows, k, f, residual, size)
    apart = normalize and rows > FUSED_ROWS
    return [stream(f"{name}.normalize", rows * k, size=size), product] if apart else [product]


def tower(name: str, images: int, tokens: int, width: int, layers: int, heads: int, size: int = 2) -> list[Launch]:
    """The residual blocks of a CLIP tower."""
    rows = images * tokens
    block = [
        *layer(f"{name}.qkv", rows, width, 3 * width, normalize=True, size=size),
        attention(f"{name}.attention", images, heads, tokens, width // heads, size),
        *layer(f"{name}.out", rows, width, width, residual=True, size=size),
        *layer(f"{name}.up", rows, width, 4 * width, normalize=True, size=size),
        *layer(f"{name}.down", rows, 4 * width, width, residual=True, size=size),
    ]
    return [launch.times(layers) for launch in block]


def image_tower(c: Config, images: int, size: int = 2) -> list[Launch]:
    """Pixels -> keys and values of both decoders."""
    patches, pixels = c.memory_tokens - 1, 3 * prod(c.image_size)
    rows, width = images * c.memory_tokens, c.image_width
    return [
        stream("image.patches", images * pixels, size=size),
        linear("image.conv1", images * patches, 3 * prod(c.patch_size), width, size=size),
        stream("image.positions", rows * width, size=size).times(2),  # and the class token
        stream("image.ln_pre", rows * width, size=size),
        *tower("image", images, c.memory_tokens, width, c.image_layers, c.image_heads, size),
        *(draft(c, images, size) if c.draft_frames else ()),
        *layer("image.memory", rows, width, 4 * c.d, normalize=True, size=size),
    ]


def draft(c: Config, images: int, size: int = 2) -> list[Launch]:
    """The draft head behind the tower: patches normalised, columns put side by side, one product, the collapse."""
    (rows, columns), width, classes = c.grid, c.image_width, len(c.charset) + 1
    logits = images * c.draft_positions * classes
    collapse = Cut(images, c.draft_positions * classes * size, 0.0)
    return [
        stream("draft.normalize", images * c.memory_tokens * width, size=size),
        stream("draft.columns", images * rows * columns * width, size=size),
        linear("draft.head", images * columns, rows * width, c.draft_frames * classes, size=size),
        Launch("draft.collapse", logits * size + 4 * images * c.steps, 0.0, (collapse,), matrix=False),
    ]


def text_tower(c: Config, images: int, size: int = 2) -> list[Launch]:
    rows = images * c.context
    return [
        stream("text.embed", rows * c.text_width, size=size).times(2),  # and the positions
        *tower("text", images, c.context, c.text_width, c.text_layers, c.text_heads, size),
        *layer("text.memory", rows, c.text_width, 2 * c.d, normalize=True, size=size),
    ]


def attend_memory(c: Config, images: int, text: int, size: int = 2) -> Launch:
    """Normalise, project the queries of one head, attend to image and text memory: one block for each head."""
    d, h, tokens = c.d, c.decoder_heads, c.memory_tokens + text
    e, t = d // h, c.steps
    cut = Cut(images * h, (t * d + e * d + 2 * tokens * e) * size, 2.0 * QUERIES * d * e + 4.0 * QUERIES * tokens * e)
    moved = (2 * images * t * d + d * d + 2 * images * tokens * d) * size
    return Launch("decode.attend_memory", moved, images * (2.0 * t * d * d + 4.0 * t * tokens * d), (cut,))


def decode_pass(c: Config, images: int, text: int, start: bool = False, size: int = 2) -> list[Launch]:
    """The six launches of one pass. start: content is the start token alone."""
    d, h, t = c.d, c.decoder_heads, c.steps
    content, rows, block = (1 if start else t), images * c.steps, 64
    table = content * h * (d * size + 32 * 4)  # values and scores of this sample's characters
    cut = Cut(images * ceil(d / block), content * h * (block * size + 32 * 4), 2.0 * QUERIES * content * h * block)
    attend = Launch(
        "decode.self_attention", images * table + rows * d * size, 2.0 * images * t * content * h * d, (cut,)
    )
    classes = len(c.charset) + 1
    head = Launch(
        "decode.head", (rows * d + d * classes) * size + images * t * 8, 2.0 * rows * d * classes,
        (Cut(images, (t + 128) * d * size, 2.0 * QUERIES * d * 128),),
    )  # fmt: skip
    return [
        attend,
        attend_memory(c, images, text, size),
        *layer("decode.out", rows, d, d, residual=True, size=size),
        *layer("decode.up", rows, d, c.decoder_mlp, normalize=True, size=size),
        *layer("decode.down", rows, c.decoder_mlp, d, residual=True, size=size),
        head,
    ]


def after_image(c: Config, images: int, visual: int = 3, cross: int = 2, size: int = 2) -> list[Launch]:
    """Everything after the image tower: `visual` and `cross` passes, one of each kind to refine, text once. The first
    visual pass is from the start token alone, unless there is a draft."""
    first = [] if c.draft_frames else decode_pass(c, images, 0, start=True, size=size)
    small = stream("program.small", images * c.steps, size=4)  # tokenize twice, compare captions, pack the answer
    return [
        *first,
        *(launch.times(visual + (not first)) for launch in decode_pass(c, images, 0, size=size)),  # the cloze pass too
        *text_tower(c, images, size),
        *(launch.times(cross + 1) for launch in decode_pass(c, images, c.context, size=size)),
        small.times(5),
    ]


def program(c: Config, images: int, visual: int = 3, cross: int = 2, size: int = 2) -> list[Launch]:
    """The whole one-shot program, image to word."""
    return [*image_tower(c, images, size), *after_image(c, images, visual, cross, size)]


def launches(parts: Sequence[Launch]) -> int:
    return sum(part.count for part in parts)


def total_flops(parts: Sequence[Launch]) -> float:
    return sum(part.count * part.flops for part in parts)


def total_bytes(parts: Sequence[Launch]) -> float:
    return sum(part.count * part.bytes for part in parts)


def published_flops(c: Config, images: int, steps: int = 7) -> float:
    """Arithmetic of the published way: memory projected at every step, text read twice."""
    towers = [launch for launch in image_tower(c, images) if launch.name != "image.memory"]
    text = [launch for launch in text_tower(c, images) if launch.name != "text.memory"]
    ends = [
        linear("image.proj", images * c.memory_tokens, c.image_width, c.d),
        *[linear("text.projection", images * c.context, c.text_width, c.d)] * 2,
    ]
    projected = [linear("memory", images * c.memory_tokens, c.d, 2 * c.d).times(steps + 1),
                 linear("memory", images * (c.memory_tokens + c.context), c.d, 2 * c.d).times(steps + 1)]  # fmt: skip
    whole = total_flops(decode_pass(c, images, 0)) + total_flops(decode_pass(c, images, c.context))
    steps_of_one = whole * steps / c.steps
    return total_flops([*towers, *text, *text, *ends, *projected]) + whole + steps_of_one
