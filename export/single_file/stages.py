"""A bundle's stage graphs, copied node by node into a larger graph, as often as they are called there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper, version_converter

from clip4str.core.errors import BundleError, first_line
from clip4str.export.graph import Graph
from clip4str.runtime.bundle import Bundle

from .bodies import Body


@dataclass(frozen=True)
class Stage:
    """A stage's nodes, its initialisers as arrays, and the types of its outputs."""

    nodes: Sequence[onnx.NodeProto]
    weights: Mapping[str, np.ndarray]
    outputs: Mapping[str, int]


class StageGraphs:
    """The stages of a bundle by their names, all of one operator set: the highest that one of them needs, or `opset`.

    Raises BundleError for a stage file that is damaged, or of an operator set that cannot be converted.
    """

    def __init__(self, bundle: Bundle, names: Sequence[str], opset: int = 0) -> None:
        models = {name: _loaded(bundle, name) for name in names}
        self.opset = max(opset, *(_opset(model) for model in models.values()))
        self._stages = {name: _stage(bundle, name, model, self.opset) for name, model in models.items()}
        self._computed: dict[tuple[str, str], str] = {}
        self._names: dict[tuple[str, str], str] = {}

    def call(self, g: Graph, stage: str, outputs: Sequence[str], **inputs: str) -> list[str]:
        """The named outputs of a stage. What none of them needs is left out; what depends on initialisers alone, such
        as weights that are stored in half, is computed once, in the outermost graph."""
        taken, root = self._stages[stage], g.root if isinstance(g, Body) else g
        known = dict(inputs)
        for node in _needed(taken.nodes, outputs):
            given = [name for name in node.input if name]
            fixed = all(name in taken.weights or (stage, name) in self._computed for name in given)
            if fixed and (stage, node.output[0]) in self._computed:
                continue
            for name in given:
                if name not in known:
                    known[name] = self._computed.get((stage, name)) or self._weight(root, stage, name)
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            copy.name = g.unique(f"/{stage}{node.name}")
            del copy.input[:], copy.output[:]
            copy.input.extend(known[name] if name else "" for name in node.input)
            copy.output.extend(g.unique(f"/{stage}{name}") if name else "" for name in node.output)
            (root if fixed else g).nodes.append(copy)
            if fixed:
                self._computed.update(((stage, name), value) for name, value in zip(node.output, copy.output))
            else:
                known.update(zip(node.output, copy.output))
        return [known[output] for output in outputs]

    def type_of(self, stage: str, output: str) -> int:
        """Of an output of a stage, as TensorProto numbers them."""
        return self._stages[stage].outputs[output]

    def _weight(self, root: Graph, stage: str, name: str) -> str:
        """An initialiser; under the stage's name where another stage has another one of this name."""
        if (stage, name) not in self._names:
            array = self._stages[stage].weights[name]
            other = root.weights.get(name)
            same = other is None or (other.dtype == array.dtype and np.array_equal(other, array))
            self._names[stage, name] = root.constant(name if same else f"{stage}/{name}", array)
        return self._names[stage, name]


def _loaded(bundle: Bundle, stage: str) -> onnx.ModelProto:
    """With the values of its tensors in it, those of other files, too."""
    with bundle.graph(stage) as (source, elsewhere):
        try:
            if isinstance(source, bytes):
                model = onnx.load_model_from_string(source)
            else:
                model = onnx.load(source, load_external_data=False)
            arrays = {tensor.name: tensor.array(bundle.content(tensor.location)) for tensor in elsewhere}
        except BundleError:
            raise
        except Exception as error:  # protobuf's DecodeError, ValueError
            raise BundleError(f"{bundle.path(stage)}: damaged ONNX file ({first_line(error)})") from None
    for tensor in model.graph.initializer:
        if tensor.name in arrays:
            tensor.CopyFrom(numpy_helper.from_array(arrays[tensor.name], tensor.name))
    return model


def _opset(model: onnx.ModelProto) -> int:
    return max(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))


def _stage(bundle: Bundle, name: str, model: onnx.ModelProto, opset: int) -> Stage:
    if _opset(model) != opset:
        try:
            model = version_converter.convert_version(model, opset)
        except Exception as error:  # of onnx, a RuntimeError or a ConvertError
            raise BundleError(f"{bundle.path(name)}: no operator set {opset} for it ({first_line(error)})") from None
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    outputs = {value.name: value.type.tensor_type.elem_type for value in model.graph.output}
    return Stage(list(model.graph.node), weights, outputs)


def _needed(nodes: Sequence[onnx.NodeProto], outputs: Sequence[str]) -> list[onnx.NodeProto]:
    """The nodes that the outputs depend on, in their order."""
    wanted, found = set(outputs), []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            found.append(node)
            wanted.update(node.input)
    return found[::-1]
