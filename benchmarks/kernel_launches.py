"""The one-shot program over our kernels (runtime/backends/pytorch/program.py), launch by launch, in half precision.

Shapes: N images, M memory tokens, d features, h decoder heads of width e, T = 26 steps, X text tokens.
"""

from __future__ import annotations

from math import ceil, prod

from clip4str.benchmarks.launches import QUERIES, Cut, Launch, attention, linear, stream
from clip4str.kernels.shared.tiles import FUSED_ROWS
from clip4str.model import Config
from clip4str.runtime.backends.fixed_passes import DRAFTED, FIRST


def layer(name: str, rows: int, k: int, f: int, normalize: bool = False, residual: bool = False) -> list[Launch]:
    """One call of kernels.linear: one launch, and another to normalise where there are many rows."""
    product = linear(name, rows, k, f, residual)
    apart = normalize and rows > FUSED_ROWS
    return [stream(f"{name}.normalize", rows * k), product] if apart else [product]


def tower(name: str, images: int, tokens: int, width: int, layers: int, heads: int) -> list[Launch]:
    """The residual blocks of a CLIP tower."""
    rows = images * tokens
    block = [
        *layer(f"{name}.qkv", rows, width, 3 * width, normalize=True),
        attention(f"{name}.attention", images, heads, tokens, width // heads),
        *layer(f"{name}.out", rows, width, width, residual=True),
        *layer(f"{name}.up", rows, width, 4 * width, normalize=True),
        *layer(f"{name}.down", rows, 4 * width, width, residual=True),
    ]
    return [launch.times(layers) for launch in block]


def image_tower(c: Config, images: int) -> list[Launch]:
    """Pixels -> keys and values of both decoders, and the draft where there is a head for it."""
    patches, pixels = c.memory_tokens - 1, 3 * prod(c.image_size)
    rows, width = images * c.memory_tokens, c.image_width
    return [
        stream("image.patches", images * pixels),
        linear("image.conv1", images * patches, 3 * prod(c.patch_size), width),
        stream("image.positions", rows * width).times(2),  # and the class token
        stream("image.ln_pre", rows * width),
        *tower("image", images, c.memory_tokens, width, c.image_layers, c.image_heads),
        *(draft(c, images) if c.draft_frames else ()),
        *layer("image.memory", rows, width, 4 * c.d, normalize=True),
    ]


def draft(c: Config, images: int) -> list[Launch]:
    """The draft head after the tower: patches normalised, columns put side by side, one product, the collapse."""
    (rows, columns), width, classes = c.grid, c.image_width, len(c.charset) + 1
    logits = 2 * c.draft_positions * classes  # bytes
    return [
        stream("draft.normalize", images * c.memory_tokens * width),
        stream("draft.columns", images * rows * columns * width),
        linear("draft.head", images * columns, rows * width, c.draft_frames * classes),
        Launch("draft.collapse", images * (logits + 4 * c.steps), 0.0, (Cut(images, logits, 0.0),)),
    ]


def text_tower(c: Config, images: int) -> list[Launch]:
    rows = images * c.context
    return [
        stream("text.embed", rows * c.text_width).times(2),  # and the positions
        *tower("text", images, c.context, c.text_width, c.text_layers, c.text_heads),
        *layer("text.memory", rows, c.text_width, 2 * c.d, normalize=True),
    ]


def attend_memory(c: Config, images: int, text: int) -> Launch:
    """Normalise, project the queries of one head, attend to image and text memory: one block for each head."""
    d, h, tokens = c.d, c.decoder_heads, c.memory_tokens + text
    e, t = d // h, c.steps
    cut = Cut(images * h, 2 * (t * d + e * d + 2 * tokens * e), 2.0 * QUERIES * d * e + 4.0 * QUERIES * tokens * e)
    moved = 2 * (2 * images * t * d + d * d + 2 * images * tokens * d)
    return Launch("decode.attend_memory", moved, images * (2.0 * t * d * d + 4.0 * t * tokens * d), (cut,))


def decode_pass(c: Config, images: int, text: int, start: bool = False) -> list[Launch]:
    """The six launches of one pass. start: content is the start token alone."""
    d, h, t = c.d, c.decoder_heads, c.steps
    content, rows, block = (1 if start else t), images * c.steps, 64
    table = content * h * (2 * d + 32 * 4)  # values and scores of this sample's characters
    cut = Cut(images * ceil(d / block), content * h * (2 * block + 32 * 4), 2.0 * QUERIES * content * h * block)
    classes = len(c.charset) + 1
    head = Cut(images, 2 * (t + 128) * d, 2.0 * QUERIES * d * 128)
    return [
        Launch("decode.self_attention", images * table + 2 * rows * d, 2.0 * rows * content * h * d, (cut,)),
        attend_memory(c, images, text),
        *layer("decode.out", rows, d, d, residual=True),
        *layer("decode.up", rows, d, c.decoder_mlp, normalize=True),
        *layer("decode.down", rows, c.decoder_mlp, d, residual=True),
        Launch("decode.head", 2 * (rows * d + d * classes) + images * t * 8, 2.0 * rows * d * classes, (head,)),
    ]


def after_image(c: Config, images: int) -> list[Launch]:
    """Everything after the image tower: the program's passes, a refining one of each kind, the text tower once. Without
    a draft, the first visual pass is from the start token alone."""
    passes = DRAFTED if c.draft_frames else FIRST
    first = [] if c.draft_frames else decode_pass(c, images, 0, start=True)
    small = stream("program.small", images * c.steps, size=4)  # tokenize twice, compare captions, pack the answer
    return [
        *first,
        *(launch.times(passes.visual + (not first)) for launch in decode_pass(c, images, 0)),  # the cloze pass too
        *text_tower(c, images),
        *(launch.times(passes.cross + 1) for launch in decode_pass(c, images, c.context)),
        small.times(5),
    ]


def program(c: Config, images: int) -> list[Launch]:
    """All launches, image to word."""
    return [*image_tower(c, images), *after_image(c, images)]
