"""Float32 graphs whose weights lie in half precision in weights.safetensors, once for all stages and the torch backend.

Training writes half precision, so nothing is lost: a graph reads a weight's bytes where they are (ONNX's external data)
and makes float32 of them in nodes that runtimes work out while they load. A weight that is not in the file (a table, a
sum) stays in the graph, in float32.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import NodeProto, TensorProto, helper
from safetensors import safe_open

from clip4str.core.errors import CheckpointError

LEAST_BYTES = 1024  # of float32: below, a node costs more than it saves, and checkers want to see shapes and the like


def is_half(path: Path) -> bool:
    """Are all tensors of a safetensors file float16?"""
    with safe_open(path, "np") as file:
        return all(file.get_slice(key).get_dtype() == "F16" for key in file.keys())  # noqa: SIM118


class HalfStorage:
    """The tensors of a float16 safetensors file, found by their bytes. Raises CheckpointError for other types."""

    def __init__(self, path: Path) -> None:
        if not is_half(path):
            raise CheckpointError(f"{path.name}: not all float16, as weights that stages share must be")
        self.location, self._content = path.name, path.read_bytes()

    def parts(
        self, name: str, array: np.ndarray, factor: np.ndarray | None = None
    ) -> tuple[list[TensorProto], list[NodeProto]] | None:
        """Initialisers and nodes that make the float32 value `name`, array or array x factor; None if `array` is not in
        the file."""
        if array.dtype != np.float32 or array.nbytes < LEAST_BYTES:
            return None
        half = array.astype(np.float16)
        offset = self._content.find(half.tobytes()) if np.array_equal(half, array) else -1
        if offset < 0:
            return None
        stored = external_tensor(f"{name}.half", half, self.location, offset)
        whole = name if factor is None else f"{name}.whole"
        cast = helper.make_node("Cast", [stored.name], [whole], f"/{name}/Cast", to=TensorProto.FLOAT)
        if factor is None:
            return [stored], [cast]
        scale = helper.make_tensor(f"{name}.factor", TensorProto.FLOAT, factor.shape, factor.tobytes(), raw=True)
        return [stored, scale], [cast, helper.make_node("Mul", [whole, scale.name], [name], f"/{name}/Mul")]


class Halves:
    """Every weight of a float32 graph as float16 within the graph, rounded where it is not float16 already. Takes
    HalfStorage's place; a weight that half precision does not hold stays as it is."""

    def parts(
        self, name: str, array: np.ndarray, factor: np.ndarray | None = None
    ) -> tuple[list[TensorProto], list[NodeProto]] | None:
        if array.dtype != np.float32 or array.nbytes < LEAST_BYTES:
            return None
        with np.errstate(over="ignore"):
            half = (array if factor is None else array * factor).astype(np.float16)
        if not np.isfinite(half).all():
            return None
        stored = helper.make_tensor(f"{name}.half", TensorProto.FLOAT16, half.shape, half.tobytes(), raw=True)
        return [stored], [helper.make_node("Cast", [stored.name], [name], f"/{name}/Cast", to=TensorProto.FLOAT)]


def external_tensor(name: str, array: np.ndarray, location: str, offset: int) -> TensorProto:
    """An initialiser whose values lie in another file of the folder."""
    tensor = TensorProto(name=name, dims=array.shape, data_type=helper.np_dtype_to_tensor_dtype(array.dtype))
    tensor.data_location = TensorProto.EXTERNAL
    place = {"location": location, "offset": str(offset), "length": str(array.nbytes)}
    for key, value in place.items():
        tensor.external_data.add(key=key, value=value)
    return tensor
