"""The launches of a detection network, out of its ONNX file: a convolution, with what is fused into it, is one."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

from clip4str.benchmarks.launches import Cut, Launch, linear


def detector_launches(model: Path, size: tuple[int, int], half: int = 2) -> list[Launch]:
    """model: takes (1, 3, h, w); size: (h, w). Elementwise operators are taken for fused. half: bytes of a number."""
    import onnx

    graph = onnx.load(str(model))
    for dimension, value in zip(graph.graph.input[0].type.tensor_type.shape.dim, (1, 3, *size)):
        dimension.Clear()
        dimension.dim_value = value
    inferred = onnx.shape_inference.infer_shapes(graph, data_prop=True).graph
    shapes = {
        v.name: [d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in (*inferred.input, *inferred.value_info, *inferred.output)
    }
    shapes |= {tensor.name: list(tensor.dims) for tensor in inferred.initializer}
    return [
        _launch(node, shapes, half)
        for node in inferred.node
        if node.op_type in ("Conv", "ConvTranspose", "MatMul", "Gemm")
    ]


def _launch(node: Any, shapes: dict[str, list[int]], half: int) -> Launch:
    taken, weight, made = (shapes[name] for name in (node.input[0], node.input[1], node.output[0]))
    if not prod(taken) or not prod(made):
        raise ValueError(f"{node.name}: its shape is not known: {taken} -> {made}")
    moved = half * (prod(taken) + prod(weight) + prod(made))
    if node.op_type in ("MatMul", "Gemm"):
        return linear(node.name, prod(made[:-1]), taken[-1], made[-1])
    groups = next((a.i for a in node.attribute if a.name == "group"), 1)
    # of a transposed convolution the weights meet every input, of another every output
    meets, channels = (taken, weight[1]) if node.op_type == "ConvTranspose" else (made, weight[1])
    taps = prod(weight[2:])
    flops = 2.0 * prod(meets) * channels * taps
    if groups > 1:  # by channel: bound by memory
        blocks = max(1, prod(made) // 4096)
        return Launch(node.name, moved, flops, (Cut(blocks, moved / blocks, 0.0),))
    rows = prod(meets) // meets[1]
    like = linear(
        node.name,
        rows,
        channels * taps if node.op_type == "Conv" else meets[1],
        made[1] if node.op_type == "Conv" else made[1] * taps,
    )
    return Launch(node.name, moved, flops, like.cuts)
