"""The kernels of a bundle's four engines, stage by stage: what TensorRT makes of export/towers.py and decoders.py.

costs.py counts the one-shot program, which fuses more. Here they are as TensorRT-RTX 1.7's build logs list them for
the half-precision graphs of small and B/16: ten in a block of a tower (queries, keys and values are set apart by a
copy each), 10 L + 8 and 10 L + 4 in all, five more with a draft head; 18 in a pass of either decoder. With int8 a
block has twelve: its products read 8 bits, and what follows them (activation, residual, quantisation of the next) is a
launch of its own. Float32 graphs are laid out for CPUs: they transpose more, and keep the cross-modal decoder's two
segments of memory apart. Their attention is counted as one kernel too, though TensorRT-RTX has none for float32 (it
launches 16 L + 7 for an image tower). Other TensorRTs may fuse otherwise.

Shapes: N images, M memory tokens, d features, h decoder heads, T = S = 26 steps, X text tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING

from clip4str.benchmarks.gpu import costs

if TYPE_CHECKING:
    from clip4str.model import Config

STAGES = ("image", "visual", "text", "cross")
PRECISIONS = ("fp32", "fp16", "int8")
SIZE = {"fp32": 4, "fp16": 2, "int8": 2}  # bytes of an element, int8: of what is left in half


@dataclass(frozen=True)
class Kernel:
    """A launch, and what its matrices are multiplied in: "int8", "fp16" or "fp32"."""

    launch: costs.Launch
    kind: str

    def times(self, count: int) -> Kernel:
        return replace(self, launch=self.launch.times(count))


def stage_kernels(c: Config, stage: str, images: int, precision: str) -> list[Kernel]:
    """One call of a stage with N = images."""
    if stage == "image":
        return image(c, images, precision)
    if stage == "text":
        return text(c, images, precision)
    return decoder(c, images, c.context if stage == "cross" else 0, precision)


def image(c: Config, images: int, precision: str) -> list[Kernel]:
    """Pixels (N, 3, H, W) -> keys and values of both decoders."""
    patches, rows, width = images * (c.memory_tokens - 1), images * c.memory_tokens, c.image_width
    pixels, size = images * 3 * prod(c.image_size), SIZE[precision]
    return [
        *_kernels(
            precision,
            costs.stream("image.pixels", pixels, passes=4 + size, size=1),  # float32 in
            costs.linear("image.conv1", patches, 3 * prod(c.patch_size), width, size=size),
            costs.stream("image.positions", rows * width, size=size),
        ),
        *tower("image", images, c.memory_tokens, width, c.image_layers, c.image_heads, precision),
        *_kernels(precision, *_memory("image", rows, width, c.d, 2, size)),
        *(_kernels(precision, *_draft(c, images, size)) if c.draft_frames else ()),
    ]


def text(c: Config, images: int, precision: str) -> list[Kernel]:
    """Byte pairs (N, X) -> keys and values of the cross-modal decoder. Embedding is the first normalisation's input."""
    rows, size, kernels = images * c.context, SIZE[precision], []
    if precision == "fp32":  # whose products have the weights on the left
        transposed = costs.stream("text.transpose", rows * c.text_width, size=size).times(2 * c.text_layers - 1)
        kernels = _kernels(precision, transposed)
    return [
        *kernels,
        *tower("text", images, c.context, c.text_width, c.text_layers, c.text_heads, precision),
        *_kernels(precision, *_memory("text", rows, c.text_width, c.d, 1, size)),
    ]


def tower(name: str, images: int, tokens: int, width: int, layers: int, heads: int, precision: str) -> list[Kernel]:
    """The residual blocks."""
    rows, size = images * tokens, SIZE[precision]
    apart: list[costs.Launch] = []
    if precision == "int8":  # half in, 8 bits out
        normalize = costs.stream(f"{name}.normalize", rows * width, passes=3, size=1)
        apart = [
            costs.stream(f"{name}.merge", rows * width, passes=2, size=1),  # of the heads, quantised
            costs.stream(f"{name}.gelu", rows * 4 * width, passes=3, size=1),
        ]
    else:
        normalize = costs.stream(f"{name}.normalize", rows * width, size=size)
    block = [
        *_kernels(precision, normalize),
        _product(f"{name}.qkv", rows, width, 3 * width, precision),
        *_kernels(
            precision,
            costs.stream(f"{name}.split", rows * width, size=size).times(3),
            costs.attention(f"{name}.attention", images, heads, tokens, width // heads, size),
        ),
        _product(f"{name}.out", rows, width, width, precision, residual=True),
        *_kernels(precision, normalize),
        _product(f"{name}.up", rows, width, 4 * width, precision),
        *_kernels(precision, *apart),
        _product(f"{name}.down", rows, 4 * width, width, precision, residual=True),
    ]
    return [kernel.times(layers) for kernel in block]


def decoder(c: Config, images: int, text: int, precision: str) -> list[Kernel]:
    """One pass of a decoder over image memory and `text` tokens of text memory. Never 8 bits."""
    size, d, t = SIZE[precision], c.d, c.steps
    rows, classes = images * t, len(c.charset) + 1
    copy = costs.stream("decode.transpose", rows * d, size=size)
    normalize = costs.stream("decode.normalize", rows * d, size=size)  # with the residual or the positions before it
    attend = _attend(c, images, c.memory_tokens + text, size)
    if precision == "fp32":
        attend = _two_segments(c, images, text, size) if text else [*attend, copy]
    return _kernels(
        precision,
        costs.stream("decode.gather", 2 * rows * d, size=size),  # keys and values of the content
        costs.stream("decode.mask", rows * t, size=size),
        costs.attention("decode.self_attention", images, c.decoder_heads, t, d // c.decoder_heads, size),
        costs.linear("decode.self_out", rows, d, d, size=size),
        normalize,
        costs.linear("decode.query", rows, d, d, size=size),
        copy,
        *attend,
        costs.linear("decode.out", rows, d, d, residual=True, size=size),
        normalize,
        costs.linear("decode.up", rows, d, c.decoder_mlp, size=size),
        costs.linear("decode.down", rows, c.decoder_mlp, d, size=size),
        normalize,
        costs.linear("decode.head", rows, d, classes, size=size),
        costs.stream("decode.answer", rows * classes, size=4).times(3),  # of float32 logits: softmax, argmax, types
    )


def floor(kernels: Sequence[Kernel]) -> tuple[float, dict[str, float]]:
    """(bytes, {kind: flops}) of all of them."""
    flops = {kind: costs.total_flops([k.launch for k in kernels if k.kind == kind]) for kind in PRECISIONS}
    return costs.total_bytes([k.launch for k in kernels]), flops


def _product(name: str, rows: int, k: int, f: int, precision: str, residual: bool = False) -> Kernel:
    """(rows, k) @ (k, f). With int8 both factors are 8 bits, the outcome is half."""
    if precision != "int8":
        return Kernel(costs.linear(name, rows, k, f, residual, SIZE[precision]), precision)
    launch = costs.linear(name, rows, k, f, residual, size=1)
    wider = rows * f * (2 if residual else 1)
    return Kernel(replace(launch, bytes=launch.bytes + wider), "int8")


def _memory(name: str, rows: int, width: int, d: int, decoders: int, size: int) -> list[costs.Launch]:
    """The tower's last normalisation and projection; keys and values of all decoders at once, then by heads."""
    return [
        costs.stream(f"{name}.ln_post", rows * width, size=size),
        costs.linear(f"{name}.proj", rows, width, d, size=size),
        costs.linear(f"{name}.key_value", rows, d, 2 * d * decoders, size=size),
        costs.stream(f"{name}.heads", rows * 2 * d, size=size).times(decoders),
    ]


def _draft(c: Config, images: int, size: int) -> list[costs.Launch]:
    """The draft head on the memory: columns of patches put side by side, one product, the best class of each frame."""
    (rows, columns), classes = c.grid, len(c.charset) + 1
    return [
        costs.stream("draft.columns", images * rows * columns * c.d, size=size),
        costs.linear("draft.head", images * columns, rows * c.d, c.draft_frames * classes, size=size),
        costs.stream("draft.ids", images * c.draft_positions * classes, passes=1, size=size).times(3),
    ]


def _attend(c: Config, images: int, tokens: int, size: int) -> list[costs.Launch]:
    """T queries of every head over the keys and values of one segment of memory, which are copied first."""
    d, h, t = c.d, c.decoder_heads, c.steps
    cut = costs.Cut(images * h, 2 * (t + tokens) * (d // h) * size, 4.0 * costs.QUERIES * tokens * (d // h))
    moved, flops = 2.0 * images * (t + tokens) * d * size, 4.0 * images * t * tokens * d
    return [
        costs.stream("decode.memory", 2 * images * tokens * d, size=size),
        costs.Launch("decode.attend_memory", moved, flops, (cut,)),
    ]


def _two_segments(c: Config, images: int, text: int, size: int) -> list[costs.Launch]:
    """Attention over image and text memory: two products for each, scores joined, and taken apart again."""
    launches = []
    for tokens in (c.memory_tokens, text):
        memory, attend = _attend(c, images, tokens, size)
        cuts = tuple(costs.Cut(cut.blocks, cut.bytes / 2, cut.flops / 2) for cut in attend.cuts)
        half = replace(attend, name="decode.segment", bytes=attend.bytes / 2, flops=attend.flops / 2, cuts=cuts)
        launches += [memory, half.times(2)]
    scores = images * c.decoder_heads * c.steps * (c.memory_tokens + text)
    return [*launches, costs.stream("decode.scores", scores, size=size).times(7)]


def _kernels(precision: str, *launches: costs.Launch) -> list[Kernel]:
    """What is never in 8 bits."""
    return [Kernel(launch, "fp16" if precision == "int8" else precision) for launch in launches]
