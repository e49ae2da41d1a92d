"""Writes one ONNX graph, node by node.

Stage graphs are written directly, not traced: what ONNX Runtime and TensorRT get to see is then exactly what
stands in towers.py and decoders.py, weights keep their published names, nothing is stored twice, and a build
takes seconds. That it computes what the torch network computes is checked by every build (parity.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import onnx
from onnx import TensorProto, helper

from clip4str.core.errors import CheckpointError
from clip4str.export.half_storage import HalfStorage, Halves, external_tensor

OPSET = 17  # the first with LayerNormalization as one operator
IR_VERSIONS = {17: 8, 18: 8, 19: 9, 20: 9}  # the one that came with an operator set: older runtimes read it too
MASKED = -3e4  # a score no query gives by itself, in range for half precision; exp() of it is exactly 0
MAX_EMBEDDED_BYTES = 1_800_000_000  # protobuf ends at 2 GiB; beyond this, weights go to NAME.data
_ALIGNMENT = 4096  # of external tensors, so that they can be mapped


class Graph:
    """One stage. Values are names; `op` returns the names of what a node gives.

    precision: type of every floating-point value between input and output ("fp32" or "fp16"). What callers see
    (pixels, probabilities, logits) is float32 in both: `input` and `float32` put the casts, the only ones there are.
    Keys and values, which only go from stage to stage, are of `float_type`. In half precision LayerNormalization
    still accumulates in float32 (its stash_type). opset: 17, or a later one for what it lacks.
    """

    def __init__(self, name: str, precision: str, opset: int = OPSET) -> None:
        self.name, self.precision, self.opset = name, precision, opset
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, np.ndarray] = {}
        self.products: dict[str, tuple[np.ndarray, np.ndarray]] = {}  # what some of the weights are made of
        self.notes: list[str] = []  # what a reader of the build log should know
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._scope: list[str] = []
        self._taken: set[str] = set()

    @property
    def float_type(self) -> int:
        return TensorProto.FLOAT16 if self.precision == "fp16" else TensorProto.FLOAT

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Nodes made inside are called NAME/..., as profilers and engine logs will show them."""
        self._scope.append(name)
        yield
        self._scope.pop()

    def input(self, name: str, dtype: int, shape: Sequence[str | int]) -> str:
        self._inputs.append(helper.make_tensor_value_info(name, dtype, shape))
        self._taken.add(name)
        if dtype == TensorProto.FLOAT and self.precision == "fp16":
            return self.op("Cast", name, to=TensorProto.FLOAT16, name=name)
        return name

    def output(self, value: str, name: str, dtype: int, shape: Sequence[str | int]) -> None:
        """Give `value`, which is of type `dtype` already, out as `name`."""
        for node in self.nodes:
            for names in (node.input, node.output):
                for i, used in enumerate(names):
                    if used == value:
                        names[i] = name
        self._outputs.append(helper.make_tensor_value_info(name, dtype, shape))

    def float32(self, value: str) -> str:
        """A floating-point value as float32."""
        return self.op("Cast", value, to=TensorProto.FLOAT) if self.precision == "fp16" else value

    def weight(self, name: str, array: np.ndarray) -> str:
        """A floating-point initialiser, in the graph's precision. Raises CheckpointError if it does not fit in half."""
        if self.precision == "fp16":
            array = self.halved(name, array)
        return self.constant(name, array)

    def product(self, name: str, array: np.ndarray, factor: np.ndarray) -> np.ndarray:
        """array x factor, which will be the weight `name`: what stores the network's own tensors stores the factor."""
        self.products[name] = (array, factor)
        return array * factor

    def integers(self, *values: int) -> str:
        """An int64 vector, as shapes and axes are."""
        return self.constant("i64_" + "_".join(map(str, values)).replace("-", "m"), np.array(values, np.int64))

    def constant(self, name: str, array: np.ndarray) -> str:
        """An initialiser that keeps its own type. A name stands for one array: the first is kept."""
        self.weights.setdefault(name, array)
        return name

    def op(self, kind: str, *inputs: str, name: str | None = None, outputs: int = 1, **attributes: Any) -> Any:
        """Add a node; returns the name of its output, a list of names if there are several."""
        path = self.unique("/" + "/".join((*self._scope, name or kind)))
        results = [f"{path}_{i}" for i in range(outputs)] if outputs > 1 else [path + "_0"]
        self.nodes.append(helper.make_node(kind, inputs, results, path, **attributes))
        return results if outputs > 1 else results[0]

    def save(
        self, path: Path, metadata: Mapping[str, str], doc: str, storage: HalfStorage | Halves | None = None
    ) -> list[Path]:
        """Write the model, and NAME.data beside it if it is too large for one file; returns the paths. Checked.

        storage: a file beside it that weights are read from, where they are in it; or how they are stored inside.
        """
        stored: list[Any] = []
        restore: list[Any] = []
        weights = dict(self.weights)
        for name, array in self.weights.items():
            if storage is not None and (parts := storage.parts(name, *self.products.get(name, (array,)))) is not None:
                stored, restore = stored + parts[0], restore + parts[1]
                del weights[name]
        graph = helper.make_graph(restore + self.nodes, self.name, self._inputs, self._outputs, stored, doc_string=doc)
        paths = [path]
        if sum(array.nbytes for array in weights.values()) <= MAX_EMBEDDED_BYTES:
            graph.initializer.extend(_embedded(name, array) for name, array in weights.items())
        else:
            paths.append(path.with_name(path.name + ".data"))
            with paths[1].open("wb") as file:
                graph.initializer.extend(_external(n, a, file, paths[1].name) for n, a in weights.items())
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", self.opset)],
            ir_version=IR_VERSIONS[self.opset],
            producer_name="clip4str",
        )
        helper.set_model_props(model, dict(metadata))
        with path.open("wb") as file:
            file.write(model.SerializeToString())
        del model, graph
        onnx.checker.check_model(str(path), full_check=True)
        return paths

    def unique(self, path: str) -> str:
        candidate, n = path, 1
        while candidate in self._taken:
            candidate, n = f"{path}_{n}", n + 1
        self._taken.add(candidate)
        return candidate

    def halved(self, name: str, array: np.ndarray) -> np.ndarray:
        """A weight in half precision. Raises CheckpointError if it does not fit."""
        with np.errstate(over="ignore"):
            half = array.astype(np.float16)
        if not np.isfinite(half).all():
            raise CheckpointError(
                f"{name} reaches {np.abs(array).max():.3g}: half precision ends at 65504; build with --fp32"
            )
        lost = np.count_nonzero(array) - np.count_nonzero(half)
        if lost > 0.01 * array.size:
            self.notes.append(f"{name}: {100 * lost / array.size:.1f}% of its values round to 0 in half precision")
        return half


def _normal(array: np.ndarray) -> np.ndarray:
    """Without float32's denormal numbers, that is, 0 for what is below 2^-126: no sum can tell, and Intel's CPUs take a
    hundred times as long for each. Weight decay leaves them where a weight is of no use."""
    if array.dtype != np.float32:
        return array
    denormal = (np.abs(array) < np.finfo(np.float32).tiny) & (array != 0)
    flushed: np.ndarray = np.where(denormal, np.float32(0), array)
    return flushed if denormal.any() else array


def _embedded(name: str, array: np.ndarray) -> TensorProto:
    if array.dtype == object:  # of strings
        return helper.make_tensor(name, TensorProto.STRING, array.shape, [text.encode() for text in array.ravel()])
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    return TensorProto(
        name=name, dims=array.shape, data_type=kind, raw_data=_normal(np.ascontiguousarray(array)).tobytes()
    )


def _external(name: str, array: np.ndarray, file: BinaryIO, location: str) -> TensorProto:
    """Append to the data file, one tensor at a time: a network of 4 GB is never in memory twice."""
    if array.nbytes < 1024:  # shapes and the like: checkers want to see their values
        return _embedded(name, array)
    file.write(b"\0" * (-file.tell() % _ALIGNMENT))
    tensor = external_tensor(name, array, location, file.tell())
    _normal(np.ascontiguousarray(array)).tofile(file)
    return tensor


def last(name: str) -> str:
    """What a node is called within its scope."""
    return name.rpartition(".")[2]
