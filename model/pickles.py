"""Pickles as data: nothing that one names is imported, nothing is called, and what it may take is bounded.

What the pickle would have built of foreign classes are Foreign values here; dictionaries, lists, numbers and texts are
themselves. A call of anything that checkpoints have no need to call is refused: it would be harmless here, but it is a
sign of a file that means harm.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from typing import IO, Any

from clip4str.core.errors import CheckpointError, UnsafeCheckpointError

# Of one pickle. A network of a billion parameters with its optimizer's state takes 200,000 operations and 5 MB. What
# one operation makes is 250 bytes at most, beside the text in the file.
MOST_OPERATIONS = 1_000_000
MOST_BYTES = 2**26
_MOST_INTEGER = 2**256  # random generators' states

# Called in checkpoints: hyper-parameters, the schedule, metrics, paths. Classes, and functions that make values.
_CALLED = (
    "omegaconf.", "pytorch_lightning.", "lightning.", "lightning_fabric.", "lightning_utilities.", "hydra.", "strhub.",
    "torchmetrics.", "torch.optim.", "torch.nn.", "torch.storage.", "torch._utils.", "torch._tensor.", "torch.amp.",
    "torch.cuda.amp.", "torch.torch_version.", "collections.", "datetime.", "pathlib.", "typing.", "numpy.dtype",
    "numpy._core.multiarray.", "numpy.core.multiarray.", "numpy.random.", "numpy.ndarray", "argparse.Namespace",
    "types.SimpleNamespace", "enum.", "uuid.UUID",
)  # fmt: skip
_CALLED_EXACTLY = {
    "torch.Size", "torch.device", "torch.Generator", "torch.Tensor", "torch.serialization._get_layout",
    "_codecs.encode", "copyreg._reconstructor", "decimal.Decimal", "functools.partial", "builtins.getattr",
    "builtins.dict", "builtins.list", "builtins.tuple", "builtins.set", "builtins.frozenset", "builtins.int",
    "builtins.float", "builtins.str", "builtins.bool", "builtins.bytes", "builtins.complex", "builtins.slice",
    "builtins.range", "builtins.object",
}  # fmt: skip
_DICTIONARIES = {"collections.OrderedDict", "collections.defaultdict", "builtins.dict"}
_PYTHON_2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}  # protocol 2 spells them so

_PUSHED = {
    "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "INT", "LONG", "BINFLOAT", "FLOAT", "BINUNICODE",
    "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BINSTRING",
    "SHORT_BINSTRING", "STRING",
}  # fmt: skip
_PUT, _GET = {"PUT", "BINPUT", "LONG_BINPUT"}, {"GET", "BINGET", "LONG_BINGET"}
_MADE: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False, "EMPTY_DICT": dict, "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple, "EMPTY_SET": list,
}  # fmt: skip


class Name:
    """A class or function that a pickle names."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


class Foreign:
    """What stands for a value of a foreign class: its class, the arguments, state and items it was to be made from."""

    __slots__ = ("args", "elements", "items", "name", "state")

    def __init__(self, name: str, args: tuple[Any, ...]) -> None:
        self.name, self.args = name, args
        self.state: Any = None
        self.items: dict[Any, Any] | None = None
        self.elements: list[Any] | None = None


class Damaged(CheckpointError):
    """A pickle that is cut, damaged or beyond what is read."""


class _Bounded:
    """A file of which one pickle reads no more than MOST_BYTES."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.left = file, MOST_BYTES

    def read(self, size: int) -> bytes:
        return self._took(self.file.read(min(size, self.left + 1)))

    def readline(self) -> bytes:
        return self._took(self.file.readline(self.left + 1))

    def _took(self, data: bytes) -> bytes:
        self.left -= len(data)
        if self.left < 0:
            raise Damaged(f"its pickle has more than {MOST_BYTES >> 20} MiB beside the weights")
        return data


def read_pickle(file: IO[bytes], makers: Mapping[str, Callable[..., Any]], persistent: Callable[[Any], Any]) -> Any:
    """The value of the pickle at the file's position, which ends up behind it.

    makers: what to call, by the name that the pickle calls, in place of making a Foreign. persistent: makes a value
    of what the pickle keeps elsewhere. Raises Damaged, UnsafeCheckpointError.
    """
    machine = _Machine(makers, persistent)
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(_Bounded(file))):  # type: ignore[arg-type]
            if opcode.name == "STOP":
                return machine.stack.pop()
            if count > MOST_OPERATIONS:
                raise Damaged(f"its pickle has more than {MOST_OPERATIONS:,} operations")
            machine.step(opcode.name, argument)
    except CheckpointError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, EOFError,
            RecursionError) as error:  # fmt: skip
        raise Damaged(f"truncated or damaged pickle ({error})") from None
    raise Damaged("truncated pickle")


class _Machine:
    """The pickle machine (see pickletools), without any operation that finds, calls or builds code."""

    def __init__(self, makers: Mapping[str, Callable[..., Any]], persistent: Callable[[Any], Any]) -> None:
        self.makers, self.persistent = makers, persistent
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in _PUT:
            self.memo[argument] = stack[-1]
        elif name in _GET:
            stack.append(self.memo[argument])
        elif name in _PUSHED:
            if type(argument) is int and abs(argument) > _MOST_INTEGER:
                raise Damaged("a number of hundreds of digits in its pickle")
            stack.append(argument)
        elif name in _MADE:
            stack.append(_MADE[name]())
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif name == "MARK":
            self.marked.append(stack)
            self.stack = []
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            size = int(name[-1])
            if len(stack) < size:
                raise IndexError("empty stack")
            stack[-size:] = [tuple(stack[-size:])]
        elif name in ("PROTO", "FRAME"):
            pass
        elif (operation := getattr(self, f"_{name.lower()}", None)) is not None:
            operation(argument)
        else:
            self._refuse(name)

    def _refuse(self, name: str) -> None:
        if name in ("INST", "OBJ", "EXT1", "EXT2", "EXT4"):
            raise UnsafeCheckpointError("refused, reading it would run code of the oldest form of pickles")
        raise Damaged(f"damaged: {name} in its pickle")

    def _items(self) -> list[Any]:
        """What was pushed since the last mark."""
        items, self.stack = self.stack, self.marked.pop()
        return items

    def _tuple(self, _: Any) -> None:
        items = tuple(self._items())
        self.stack.append(items)

    _frozenset = _tuple

    def _list(self, _: Any) -> None:
        items = self._items()
        self.stack.append(items)

    def _dict(self, _: Any) -> None:
        items, made = self._items(), dict[Any, Any]()
        _set_items(made, items)
        self.stack.append(made)

    def _append(self, _: Any) -> None:
        item = self.stack.pop()
        _extend(self.stack[-1], [item])

    def _appends(self, _: Any) -> None:
        items = self._items()
        _extend(self.stack[-1], items)

    _additems = _appends

    def _setitem(self, _: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        _set_items(self.stack[-1], [key, value])

    def _setitems(self, _: Any) -> None:
        items = self._items()
        _set_items(self.stack[-1], items)

    def _pop(self, _: Any) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self._items()

    def _pop_mark(self, _: Any) -> None:
        self._items()

    def _dup(self, _: Any) -> None:
        self.stack.append(self.stack[-1])

    def _global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self.stack.append(Name(f"{_PYTHON_2.get(module, module)}.{name}"))

    def _stack_global(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self._global(f"{module} {name}")

    def _reduce(self, _: Any) -> None:
        args = self.stack.pop()
        called = self.stack.pop().name
        if not isinstance(args, tuple):
            raise TypeError("arguments that are no tuple")
        if called in self.makers:
            self.stack.append(self.makers[called](*args))
        elif called in _DICTIONARIES:
            made: dict[Any, Any] = {}
            if args and isinstance(args[0], list):  # Python 2's: a list of pairs
                _set_items(made, [part for pair in args[0] for part in pair[:2]])
            self.stack.append(made)
        elif called == "copyreg._reconstructor":
            self.stack.append(Foreign(args[0].name, args[1:]))
        elif called in _CALLED_EXACTLY or called.startswith(_CALLED):
            self.stack.append(Foreign(called, args))
        else:
            raise UnsafeCheckpointError(
                f"refused, reading it would run {called}; convert it to .safetensors where it was made, or get it from "
                f"a source you trust"
            )

    def _newobj(self, _: Any) -> None:
        args = self.stack.pop()
        made = self.stack.pop().name
        self.stack.append({} if made in _DICTIONARIES else Foreign(made, tuple(args)))

    def _newobj_ex(self, _: Any) -> None:
        self.stack.pop()
        self._newobj(None)

    def _build(self, _: Any) -> None:
        state = self.stack.pop()
        if isinstance(self.stack[-1], Foreign):
            self.stack[-1].state = state

    def _binpersid(self, _: Any) -> None:
        self.stack.append(self.persistent(self.stack.pop()))


def _set_items(target: Any, items: list[Any]) -> None:
    """Keys that are no plain values (a hash of nested tuples may never end) are left out."""
    if isinstance(target, Foreign):
        target.items = {} if target.items is None else target.items
        target = target.items
    if not isinstance(target, dict):
        raise TypeError(f"items of a {type(target).__name__}")
    for key, value in zip(items[::2], items[1::2]):
        if isinstance(key, (str, bytes, float)) or (isinstance(key, int) and abs(key) < 2**63) or key is None:
            target[key] = value


def _extend(target: Any, items: list[Any]) -> None:
    if isinstance(target, Foreign):
        target.elements = [] if target.elements is None else target.elements
        target = target.elements
    if not isinstance(target, list):
        raise TypeError(f"elements of a {type(target).__name__}")
    target.extend(items)
