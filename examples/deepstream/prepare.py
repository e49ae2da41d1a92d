"""clip4str export's fixed form, as nvinfer takes it: python examples/deepstream/prepare.py word.onnx FOLDER

nvinfer refuses engines with an output of bools, and wants a dimension behind the batch's. Writes FOLDER/words.onnx, in
which `settled` is int32, `confidence`, `length` and `settled` are (N, 1) and `probs` is left out; and FOLDER/charset.h,
the characters for parse_words.cpp.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from clip4str.core.console import Parser, run_script
from clip4str.core.errors import UsageError

FLAT = {"confidence": TensorProto.FLOAT, "length": TensorProto.INT32, "settled": TensorProto.INT32}


def prepared(model: onnx.ModelProto) -> onnx.ModelProto:
    """Changes the model; returns it. Raises UsageError if it is of another form."""
    said = {entry.key: entry.value for entry in model.metadata_props}
    if said.get("form") != "fixed" or said.get("input") != "float32":
        raise UsageError(
            "nvinfer needs the fixed form with float32 pixels: clip4str export --passes 3,2 --output word.onnx"
        )
    graph = model.graph
    graph.initializer.append(helper.make_tensor("nvinfer.axis", TensorProto.INT64, [1], [1]))
    outputs = {value.name: value for value in graph.output}
    del graph.output[:]
    graph.output.append(outputs["ids"])
    for name, kind in FLAT.items():
        for node in graph.node:
            node.output[:] = [f"{name}.flat" if value == name else value for value in node.output]
            node.input[:] = [f"{name}.flat" if value == name else value for value in node.input]
        graph.node.append(
            helper.make_node("Cast", [f"{name}.flat"], [f"{name}.cast"], f"/nvinfer/{name}/Cast", to=kind)
        )
        graph.node.append(helper.make_node("Unsqueeze", [f"{name}.cast", "nvinfer.axis"], [name], f"/nvinfer/{name}"))
        graph.output.append(helper.make_tensor_value_info(name, kind, ["N", 1]))
    onnx.checker.check_model(model, full_check=True)
    return model


def header(charset: str, steps: int) -> str:
    # In octal, which ends after three digits whatever follows.
    characters = ", ".join('"' + "".join(f"\\{byte:03o}" for byte in c.encode()) + '"' for c in charset)
    return (
        "// written by prepare.py: the characters of words.onnx, in the order of their ids, from 1 on\n"
        "#pragma once\n"
        "namespace clip4str {\n"
        f"constexpr int STEPS = {steps}, CHARACTERS = {len(charset)};\n"
        f"constexpr const char* CHARSET[] = {{{characters}}};\n"
        "}\n"
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="examples/deepstream/prepare.py", description=__doc__)
    parser.add_argument("file", type=Path, help="of clip4str export --passes 3,2")
    parser.add_argument("folder", type=Path, help="where words.onnx and charset.h are written")
    o = parser.parse_args(argv)
    if not o.file.is_file() or not o.folder.is_dir():
        raise UsageError(f"{o.file if o.folder.is_dir() else o.folder}: there is none")
    try:
        model = onnx.load(o.file)
    except Exception:
        raise UsageError(f"{o.file}: no ONNX file") from None
    said = {entry.key: entry.value for entry in model.metadata_props}
    onnx.save(prepared(model), o.folder / "words.onnx")
    (o.folder / "charset.h").write_text(header(said["charset"], int(said["steps"])), encoding="ascii")
    size = json.loads(said["image_size"])
    print(f"{o.folder}/words.onnx and charset.h; words.txt needs infer-dims=3;{size[0]};{size[1]}")
    return 0


if __name__ == "__main__":
    sys.exit(run_script("examples/deepstream/prepare.py", main))
