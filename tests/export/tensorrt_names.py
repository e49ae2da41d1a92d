"""Which names of TensorRT a piece of our source uses, by its syntax; and which of them a library has.

A use is (owner, name, number of positional arguments or None). The owner is "" for the module, "BuilderFlag" or
"ILogger.Severity" for what hangs below a class, and a class for its objects: those are found by the names of variables,
which `objects` tells.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

# what TensorRT calls in classes of ours that derive from its own
CALLBACKS = {"ILogger": {"log"}, "IProgressMonitor": {"phase_start", "step_complete", "phase_finish"}}


class Use(NamedTuple):
    owner: str
    name: str
    arguments: int | None = None


def uses(source: str, objects: Mapping[str, str], modules: frozenset[str] = frozenset({"library", "trt"})) -> set[Use]:
    """Of one file. Methods that our classes override count too, with the arguments they take."""
    found: set[Use] = set()
    calls: dict[ast.AST, int] = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            has_star = any(isinstance(a, ast.Starred) for a in node.args)
            calls[node.func] = -1 if has_star or node.keywords else len(node.args)
        if isinstance(node, ast.ClassDef):
            for base in node.bases:
                if (owner := _owner(base, objects, modules)) is not None:
                    found |= {Use(owner, m.name, len(m.args.args) - 1) for m in node.body if _called_back(m, owner)}
        if isinstance(node, ast.Attribute) and (owner := _owner(node.value, objects, modules)) is not None:
            arguments = calls.get(node)
            found.add(Use(owner, node.attr, None if arguments == -1 else arguments))
    return {use for use in found if not use.name.startswith("__")}


def _called_back(node: ast.AST, owner: str) -> bool:
    return isinstance(node, ast.FunctionDef) and node.name in CALLBACKS.get(owner, ())


def _owner(node: ast.AST, objects: Mapping[str, str], modules: frozenset[str]) -> str | None:
    """What an expression is: "" the module, a class or enum, an object of a class; None: nothing of TensorRT's."""
    name = _variable(node)
    if name in objects:
        return objects[name]
    if name in modules:
        return ""
    if isinstance(node, ast.Call):  # library.Runtime(logger).x
        return _owner(node.func, objects, modules)
    if isinstance(node, ast.Attribute) and node.attr[:1].isupper():  # a class, an enum, a member of one
        owner = _owner(node.value, objects, modules)
        return None if owner is None else f"{owner}.{node.attr}".lstrip(".")
    return None


def _variable(node: ast.AST) -> str:
    """The name of `name`, `self.name` or `self._name`; "" of anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
        return node.attr.lstrip("_")
    return ""


def problem(library: Any, use: Use) -> str | None:
    """Why a library does not have this use, in words; None if it does."""
    thing = library
    for part in (use.owner.split(".") if use.owner else []) + [use.name]:
        if not hasattr(thing, part):
            return f"no {part} in {getattr(thing, '__name__', thing)}"
        thing = getattr(thing, part)
    takes = _arguments(thing) if use.owner and use.arguments is not None else []
    if takes and not any(least <= use.arguments <= most for least, most in takes):
        return f"{use.owner}.{use.name} takes {takes} arguments, not {use.arguments}"
    return None


def _arguments(method: Any) -> list[tuple[int, int]]:
    """(fewest, most) positional arguments besides self of every overload, as pybind11 writes them in the docstring."""
    name = getattr(method, "__name__", "")
    found = []
    for line in (getattr(method, "__doc__", None) or "").splitlines():
        signature = re.match(rf"\s*(?:\d+\. )?{re.escape(name)}\((.*)\) -> ", line)
        if signature is None or signature[1].startswith("*args"):
            continue
        text = re.sub(r"<[^>]*>|\[[^\]]*\]", "", signature[1])
        arguments = [argument for argument in text.split(", ") if argument and not argument.startswith("self")]
        found.append((sum("=" not in argument for argument in arguments), len(arguments)))
    return found
