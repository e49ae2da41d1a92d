"""Reading TensorRT's list of layers, and how far a build is: on lines as TensorRT 1.7 for RTX and 10 wrote them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from clip4str.export.engines.build_log import facts_of
from clip4str.export.engines.listening import Listener, Progress, one_line

HALF, FLOAT = SimpleNamespace(precision="fp16"), SimpleNamespace(precision="fp32")


def tensor(name: str, sizes: str, kind: str) -> str:
    strides = ",".join("1" for _ in sizes.split(","))
    return (
        f"{{ Name: {name}, Dimensions: [{sizes}], Strides: [{strides}], StrideOrder: [1,0], Datatype: {kind}, "
        "Format: (Linear) Row major linear format }"
    )


def layer(name: str, kind: str, inputs=(), constants=(), outputs=(), onnx=()) -> str:
    parts = [", ".join(tensor(*t) for t in group) for group in (inputs, constants, outputs)]
    inside = [f"[ {part} ]" if part else "[]" for part in parts]
    nodes = "".join(f"[ONNX Layer: {node}]" for node in onnx)
    return (
        f"Name: {name}, LayerType: {kind}, Inputs: {inside[0]}, Constants: {inside[1]}, Outputs: {inside[2]}, "
        f"TacticName: {name}_0xbd97, StreamId: 0, Metadata: {nodes}"
    )


# an in_proj of one product whose result is split: TensorRT unpacks its weights, and multiplies halves
UNPACKED = layer(
    "__myl_CastMulCastReshTranReshSlicSlicSlicConc_myl0_4", "kgen",
    constants=[("scale", "1,2304", "Half"), ("w", "768,2304", "Int8")], outputs=[("k16", "1,768,2304", "Half")],
    onnx=["/blocks.0/in_proj_WDQ", "/blocks.0/in_proj"],
)  # fmt: skip
WIDENED = layer(
    "__myl_CastMulFc_myl0_5", "runtime_fusion",
    inputs=[("x", "-1,768", "Int8"), ("k16", "1,768,2304", "Half")], outputs=[("y", "1,-1,2304", "Half")],
    onnx=["/blocks.0/in_proj", "/blocks.0/in_proj_DQ"],
)  # fmt: skip
EIGHT = layer(
    "/blocks.0/c_fc_myl0_13", "gemm", inputs=[("x", "-1,768", "Int8")],
    constants=[("w", "768,3072", "Int8"), ("alpha", "1", "Float"), ("beta", "1", "Float")],
    outputs=[("y", "-1,3072", "Half")], onnx=["/blocks.0/c_fc"],
)  # fmt: skip
FUSED_HALF = layer(
    "__myl_FcAddAdd_myl0_10", "runtime_fusion",
    inputs=[("residual", "-1,768", "Half"), ("x", "-1,768", "Half")],
    constants=[("w", "768,768", "Half"), ("b", "1,768", "Half")], outputs=[("y", "-1,768", "Half")],
    onnx=["/blocks.0/out_proj", "/blocks.0/residual_1"],
)  # fmt: skip
ATTENTION = layer(
    "_gemm_mha_v2_myl0_9", "kgen", inputs=[(n, "-1,197,64", "Half") for n in "qkv"],
    outputs=[("y", "-1,197,64", "Half")], onnx=["/blocks.0/attended", "/blocks.0/Softmax", "/blocks.0/scores"],
)  # fmt: skip
SOFTMAX = layer("__myl_SlicReshMaxrSubExpSumDivMul_myl0_9", "kgen", [("s", "-1,8,26,26", "Half")])
NORM = layer("__myl_CastMeanSubMulMeanAddSqrtDivMulCastMulAdd_myl0_11", "kgen", [("x", "-1,768", "Half")])
MOVE = layer("__myl_MoveReshTran_myl0_10", "kgen", [("x", "-1,64", "Int8")])
REFORMAT = layer("Reformatting CopyNode for Input Tensor 0", "Reformat", [("pixels", "-1,3,32,128", "Float")])
CALL = layer("__mye15638_0_myl0_0", "shape_call")
# TensorRT 10.3: no constants, and the type stands elsewhere
OLDER = (
    "Name: /blocks.0/c_proj+/blocks.0/residual_2_myl0_3, LayerType: gemm, Inputs: [ { Name: x, Dimensions: [-1,3072], "
    "Format/Datatype: Half }, { Name: w, Dimensions: [3072,768], Format/Datatype: Half }], Outputs: [ { Name: y, "
    "Dimensions: [-1,768], Format/Datatype: Half }], TacticName: sm80_xmma_gemm_f16f16, StreamId: 0, "
    "Metadata: [ONNX Layer: /blocks.0/c_proj]"
)


def facts(*lines: str):
    return facts_of("\n".join(["Layers:", *lines, "", "I/O Tensors:", " Name: pixels, IOMode: Input, DataType: Float"]))


def only(line: str):
    (found,) = facts(line).layers
    return found


@pytest.mark.parametrize(
    "line, kind",
    [(UNPACKED, None), (WIDENED, "Half"), (EIGHT, "Int8"), (FUSED_HALF, "Half"), (ATTENTION, None), (NORM, None),
     (MOVE, None), (OLDER, "Half"), (SOFTMAX, None)],
)  # fmt: skip
def test_types_of_products(line, kind):
    found = only(line)
    assert found.is_product == (kind is not None)
    if kind is not None:
        assert found.product_type == kind and facts(line).products == {kind: 1}
        assert facts(line).products_of(kind) == set(found.onnx)


def test_what_a_layer_is():
    assert [only(line).is_attention for line in (ATTENTION, SOFTMAX, FUSED_HALF)] == [True, False, False]
    assert [only(line).is_softmax for line in (ATTENTION, SOFTMAX, NORM)] == [False, True, False]
    assert [only(line).is_move for line in (MOVE, REFORMAT, UNPACKED, NORM, CALL)] == [True, True, False, False, False]
    assert [only(line).unpacks_weights for line in (UNPACKED, EIGHT, WIDENED, MOVE)] == [True, False, False, False]
    assert [only(line).is_launch for line in (CALL, MOVE)] == [False, True]
    found = only(FUSED_HALF)
    assert found.fused == ("Fc", "Add", "Add") and found.onnx == ("/blocks.0/out_proj", "/blocks.0/residual_1")
    assert [t.sizes for t in found.constants] == [(768, 768), (1, 768)] and found.outputs[0].name == "y"


def test_a_whole_engine():
    found = facts(CALL, UNPACKED, WIDENED, ATTENTION, FUSED_HALF, EIGHT, MOVE, NORM)
    assert found.launches == 7 and len(found.attentions) == 1 and len(found.moves) == 1
    assert found.to_dict() == {"launches": 7, "attentions": 1, "products": {"Half": 2, "Int8": 1}, "unpacked": 1}
    assert str(found) == "7 launches, 1 fused attentions, products: 2 half, 1 int8"
    assert facts_of("") is None and facts_of("Layers:\nnothing that we know\n") is None


def test_doubts():
    assert facts(ATTENTION, EIGHT).doubts("image", HALF) == []
    assert "1 products unpack their 8-bit weights" in facts(UNPACKED, WIDENED).doubts("image", HALF)[0]
    assert "1 attentions are not fused" in facts(SOFTMAX).doubts("text", HALF)[0]
    assert facts(SOFTMAX).doubts("visual", HALF) == []  # its probabilities
    assert facts(SOFTMAX, UNPACKED).doubts("image", FLOAT) == []


def test_the_share_that_is_done_never_falls():
    progress, shares = Progress(), []
    progress.start("all", None, 2)
    progress.start("first", "all", 10)
    shares += [progress.step("first", i) for i in range(5)]
    progress.start("deep", "first", 5)
    shares += [progress.step("deep", i) for i in range(5)]
    progress.finish("deep")
    progress.finish("first")
    shares.append(progress.step("all", 0))
    progress.start("second", "all", 1)
    shares += [progress.step("second", 0), progress.step("all", 1), progress.step("unknown", 3)]
    assert shares[:5] == pytest.approx([0.05, 0.1, 0.15, 0.2, 0.25])
    assert shares[5:10] == pytest.approx([0.26, 0.27, 0.28, 0.29, 0.3])
    assert shares[10:] == pytest.approx([0.5, 1.0, 1.0, 1.0])


def test_progress_survives_strange_phases():
    progress = Progress()
    progress.start("a", "b", 0)
    progress.start("b", "a", 3)
    assert 0 <= progress.step("a", 7) <= 1 and 0 <= progress.step("b", 2) <= 1
    progress.finish("never started")


def test_the_reason_is_the_last_error_on_one_line():
    listener, told = Listener(), []
    assert listener.reason == "it does not say why"
    listener.hear("WARNING", "slow")
    assert listener.reason == "slow"
    listener.hear("ERROR", "first")
    listener.hear("INTERNAL_ERROR", "Error Code 7: Canceled (by user In next at /src/a/b.cpp:92)\nand\tmore")
    listener.hear("WARNING", "later")
    assert listener.reason == "Error Code 7: Canceled (by user)" and listener.complaints == 4
    assert one_line("x" * 500) == "x" * 297 + "..." and one_line("") == "" and one_line("a\x1b[31mb") == "a [31mb"
    listener = Listener(told.append)
    listener.hear("INFO", "two\nlines")
    listener.hear("VERBOSE", "Layers:\nName: x")
    assert told == ["[I] two", "[I] lines", "[V] Layers:", "[V] Name: x"] and listener.layers == "Layers:\nName: x"
