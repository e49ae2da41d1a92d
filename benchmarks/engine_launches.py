"""The kernels of a bundle's four engines, stage by stage, as TensorRT builds them of export/towers.py and decoders.py.

Counts are those of TensorRT-RTX 1.7's build logs for the half-precision graphs of small and B/16: ten in a tower's
block (queries, keys and values are split by a copy each), 10 L + 8 and 10 L + 4 in all, five more with a draft head; 18
in a pass of either decoder. With 8 bits products read those, and what follows them (activation, residual, the next
quantisation) is a launch of its own; queries, keys and values are split by one kernel. A block has ten with int8, 10 L
+ 7 and 10 L + 4, and nine with fp8, where attention writes 8 bits itself. Other versions may fuse otherwise.

Shapes: N images, M memory tokens, d features, h decoder heads, T = S = 26 steps, X text tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import prod

from clip4str.benchmarks.launches import QUERIES, Cut, Launch, attention, linear, stream
from clip4str.model import Config

STAGES = ("image", "visual", "text", "cross")
PRECISIONS = ("fp16", "int8", "fp8")


def stage_launches(c: Config, stage: str, images: int, precision: str) -> list[Launch]:
    """One call of a stage with N = images."""
    if stage == "image":
        return image(c, images, precision)
    if stage == "text":
        return text(c, images, precision)
    return decoder(c, images, c.context if stage == "cross" else 0)


def image(c: Config, images: int, precision: str) -> list[Launch]:
    """Pixels (N, 3, H, W) -> keys and values of both decoders."""
    patches, rows, width = images * (c.memory_tokens - 1), images * c.memory_tokens, c.image_width
    return [
        stream("image.pixels", images * 3 * prod(c.image_size), passes=6, size=1),  # float32 in, half out
        linear("image.conv1", patches, 3 * prod(c.patch_size), width),
        *([stream("image.positions", rows * width)] if precision == "fp16" else []),  # else fused with what follows
        *tower("image", images, c.memory_tokens, width, c.image_layers, c.image_heads, precision),
        *_memory("image", rows, width, c.d, 2),
        *(_draft(c, images) if c.draft_frames else ()),
    ]


def text(c: Config, images: int, precision: str) -> list[Launch]:
    """Byte pairs (N, X) -> keys and values of the cross-modal decoder. The first normalisation reads the embedding."""
    return [
        *tower("text", images, c.context, c.text_width, c.text_layers, c.text_heads, precision),
        *_memory("text", images * c.context, c.text_width, c.d, 1),
    ]


def tower(name: str, images: int, tokens: int, width: int, layers: int, heads: int, precision: str) -> list[Launch]:
    """The residual blocks."""
    rows, apart = images * tokens, list[Launch]()
    product: Callable[..., Launch] = linear
    normalize = stream(f"{name}.normalize", rows * width)
    split = stream(f"{name}.split", rows * width).times(3)
    if precision in ("int8", "fp8"):
        normalize = stream(f"{name}.normalize", rows * width, passes=3, size=1)  # half in, 8 bits out
        apart = [stream(f"{name}.gelu", rows * 4 * width, passes=3, size=1)]
        product = partial(_linear_eight, precision)
        split = stream(f"{name}.split", rows * 3 * width)
    if precision == "int8":
        apart.append(stream(f"{name}.merge", rows * width, passes=2, size=1))  # of the heads, quantised
    block = [
        normalize,
        product(f"{name}.qkv", rows, width, 3 * width),
        split,
        attention(f"{name}.attention", images, heads, tokens, width // heads),
        product(f"{name}.out", rows, width, width, residual=True),
        normalize,
        product(f"{name}.up", rows, width, 4 * width),
        *apart,
        product(f"{name}.down", rows, 4 * width, width, residual=True),
    ]
    return [launch.times(layers) for launch in block]


def decoder(c: Config, images: int, text: int) -> list[Launch]:
    """One pass of a decoder over image memory and `text` tokens of text memory. Never 8 bits."""
    d, h, t, tokens = c.d, c.decoder_heads, c.steps, c.memory_tokens + text
    rows, classes = images * t, len(c.charset) + 1
    normalize = stream("decode.normalize", rows * d)  # with the residual or the positions before it
    cut = Cut(images * h, 4 * (t + tokens) * (d // h), 4.0 * QUERIES * tokens * (d // h))
    return [
        stream("decode.gather", 2 * rows * d),  # keys and values of the content
        stream("decode.mask", rows * t),
        attention("decode.self_attention", images, h, t, d // h),
        linear("decode.self_out", rows, d, d),
        normalize,
        linear("decode.query", rows, d, d),
        stream("decode.transpose", rows * d),
        stream("decode.memory", 2 * images * tokens * d),  # keys and values, copied
        Launch("decode.attend_memory", 4.0 * images * (t + tokens) * d, 4.0 * images * t * tokens * d, (cut,)),
        linear("decode.out", rows, d, d, residual=True),
        normalize,
        linear("decode.up", rows, d, c.decoder_mlp),
        linear("decode.down", rows, c.decoder_mlp, d),
        normalize,
        linear("decode.head", rows, d, classes),
        stream("decode.answer", rows * classes, size=4).times(3),  # of float32 logits: softmax, argmax, types
    ]


def _linear_eight(kind: str, name: str, rows: int, k: int, f: int, residual: bool = False) -> Launch:
    """(rows, k) @ (k, f), both in 8 bits; the result is half."""
    launch = linear(name, rows, k, f, residual, size=1)
    return replace(launch, kind=kind, bytes=launch.bytes + rows * f * (2 if residual else 1))


def _memory(name: str, rows: int, width: int, d: int, decoders: int) -> list[Launch]:
    """The tower's last normalisation and projection; keys and values of all decoders at once, then by heads."""
    return [
        stream(f"{name}.ln_post", rows * width),
        linear(f"{name}.proj", rows, width, d),
        linear(f"{name}.key_value", rows, d, 2 * d * decoders),
        stream(f"{name}.heads", rows * 2 * d).times(decoders),
    ]


def _draft(c: Config, images: int) -> list[Launch]:
    """The draft head on the memory: columns of patches put side by side, one product, the best class of each frame."""
    (rows, columns), classes = c.grid, len(c.charset) + 1
    return [
        stream("draft.columns", images * rows * columns * c.d),
        linear("draft.head", images * columns, rows * c.d, c.draft_frames * classes),
        stream("draft.ids", images * c.draft_positions * classes, passes=1).times(3),
    ]
