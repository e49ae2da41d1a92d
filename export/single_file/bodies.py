"""Graphs within a graph, for Loop and If, and the few operators that operator sets spell differently."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper

from clip4str.export.graph import Graph

BOOL, FLOAT, INT32, INT64 = TensorProto.BOOL, TensorProto.FLOAT, TensorProto.INT32, TensorProto.INT64
Shape = Sequence[str | int]
Carried = tuple[str, int, Shape]  # a value from round to round: the first one, its type and shape
_AXES_ARE_INPUTS = {"ReduceMax": 18, "ReduceMin": 18, "ReduceProd": 18, "ReduceSum": 13}


class Body(Graph):
    """A graph within another: it sees that one's values and shares its initialisers."""

    def __init__(self, name: str, outer: Graph) -> None:
        super().__init__(name, "fp32", outer.opset)
        self.root: Graph = outer.root if isinstance(outer, Body) else outer
        self.weights, self._taken, self._scope = outer.weights, outer._taken, [*outer._scope, name]

    def argument(self, name: str, dtype: int, shape: Shape) -> str:
        value = self.unique("/" + "/".join((*self._scope, name)))
        self._inputs.append(helper.make_tensor_value_info(value, dtype, shape))
        return value

    def result(self, value: str, dtype: int, shape: Shape) -> None:
        """Give `value` out, under a name of its own."""
        self._outputs.append(helper.make_tensor_value_info(self.op("Identity", value), dtype, shape))

    def proto(self) -> onnx.GraphProto:
        return helper.make_graph(self.nodes, self.name, self._inputs, self._outputs)


def loop(
    g: Graph,
    name: str,
    most: int,
    carried: Sequence[Carried],
    step: Callable[..., tuple[str, Sequence[str]]],
) -> list[str]:
    """Repeat `step` until it says that it is enough, at most `most` times, at least once.

    step(body, *values) -> may it go on (bool, no dimensions)?, new values.
    Returns the last values.
    """
    body = Body(name, g)
    body.argument("round", INT64, ())
    body.argument("go", BOOL, ())
    values = [body.argument(f"in_{i}", dtype, shape) for i, (_, dtype, shape) in enumerate(carried)]
    go_on, new = step(body, *values)
    body.result(go_on, BOOL, ())
    for value, (_, dtype, shape) in zip(new, carried):
        body.result(value, dtype, shape)
    rounds = g.constant(f"rounds_{most}", np.array(most, np.int64))
    first = [value for value, _, _ in carried]
    go = g.constant("true", np.array(True))
    return _list(g.op("Loop", rounds, go, *first, name=name, outputs=len(first), body=body.proto()))


def branch(
    g: Graph,
    name: str,
    condition: str,
    then: Callable[[Graph], Sequence[str]],
    otherwise: Sequence[Carried],
) -> list[str]:
    """`then(body)` where the condition (bool, one number) holds, else the values `otherwise`, of these types."""
    bodies = Body(f"{name}_then", g), Body(f"{name}_else", g)
    for body, values in zip(bodies, (then(bodies[0]), [value for value, _, _ in otherwise])):
        for value, (_, dtype, shape) in zip(values, otherwise):
            body.result(value, dtype, shape)
    then_branch, else_branch = (body.proto() for body in bodies)
    return _list(g.op("If", condition, name=name, outputs=len(otherwise), then_branch=then_branch,
                      else_branch=else_branch))  # fmt: skip


def _list(found: str | list[str]) -> list[str]:
    return [found] if isinstance(found, str) else found


def reduce(g: Graph, kind: str, value: str, *axes: int, keepdims: int = 1) -> str:
    """Max, Min, Prod or Sum over axes."""
    kind = f"Reduce{kind}"
    if g.opset >= _AXES_ARE_INPUTS[kind]:
        return g.op(kind, value, g.integers(*axes), keepdims=keepdims)
    return g.op(kind, value, axes=list(axes), keepdims=keepdims)


def number(g: Graph, value: int) -> str:
    """An int32 that fits any shape."""
    return g.constant(f"i32_{value}".replace("-", "m"), np.array(value, np.int32))


def numbers(g: Graph, name: str, values: np.ndarray) -> str:
    """An array of int32 under a name that says what it is."""
    return g.constant(name, np.asarray(values, np.int32))


def iota(g: Graph, count: int, *shape: int) -> str:
    """0 ... count - 1 in the given shape, by default (1, count)."""
    shape = shape or (1, count)
    return numbers(g, f"iota_{'x'.join(map(str, shape))}", np.arange(count).reshape(shape))


def every(g: Graph, holds: str, *axes: int) -> str:
    """bool -> bool: does it hold along the axes, which become 1?"""
    return g.op("Cast", reduce(g, "Min", g.op("Cast", holds, to=INT32), *axes), to=BOOL)


def some(g: Graph, holds: str, *axes: int) -> str:
    return g.op("Cast", reduce(g, "Max", g.op("Cast", holds, to=INT32), *axes), to=BOOL)


def columns(g: Graph, value: str, name: str, places: np.ndarray) -> str:
    """Columns of a (N, ...) value by their places, of any shape."""
    return g.op("Gather", value, numbers(g, name, places), axis=1)
