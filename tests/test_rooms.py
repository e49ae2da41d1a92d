"""The house holds: every room imports only rooms before it, no files of a room import each other in a circle, and the
ground floor loads numpy alone."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import clip4str

ROOT = Path(clip4str.__file__).resolve().parents[1]
EXCEPTIONS = {  # (file, room that it imports although it comes later): why
    ("export/quantization/samples.py", "data"): "words of an LMDB folder to choose scales by, where one is named",
    ("export/quantization/samples.py", "training"): "words drawn from a font to choose scales by, where one is named",
}


def files() -> dict[str, Path]:
    """Every module of the package by its dotted name; a package's is its __init__.py."""
    found = {}
    for room in clip4str.ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(("clip4str", *(parts[:-1] if parts[-1] == "__init__" else parts)))] = path
    return found


FILES = files()


def imported(name: str, path: Path, known: dict[str, Path] = FILES) -> Iterator[str]:
    """The modules of this package that a file names anywhere: at its top, in functions, under TYPE_CHECKING."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("clip4str."))
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join((*above, *base.split("."))).rstrip(".")
            if not base.startswith("clip4str."):
                continue
            for alias in node.names:
                yield f"{base}.{alias.name}" if f"{base}.{alias.name}" in known else base


def room(name: str) -> str:
    return name.split(".")[1]


def upwards(modules: dict[str, Path]) -> dict[tuple[str, str], set[str]]:
    """(file, later room) -> the modules of that room that it imports."""
    order, found = {name: i for i, name in enumerate(clip4str.ROOMS)}, {}
    for name, path in modules.items():
        for target in imported(name, path, modules):
            if order[room(target)] > order[room(name)]:
                key = ("/".join(name.split(".")[1:]) + ".py", room(target))
                found.setdefault(key, set()).add(target)
    return found


def circle(modules: dict[str, Path]) -> list[str]:
    """The files of one, empty if there is none. A file may not import the __init__.py that imports it, either."""
    graph = {
        name: {t for t in imported(name, path, modules) if room(t) == room(name) and t != name}
        for name, path in modules.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_every_folder_with_python_in_it_is_a_room():
    tracked = {path.parent.name for path in ROOT.glob("*/*.py")} - {"clip4str", "tests", "examples"}
    linked = {path.name for path in (ROOT / "clip4str").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert tracked == linked == set(clip4str.ROOMS)


def test_imports_run_downwards():
    found = upwards(FILES)
    assert set(found) == set(EXCEPTIONS), found
    assert len(EXCEPTIONS) <= 3


def test_no_room_circles():
    assert circle(FILES) == []


@pytest.mark.parametrize(
    "line, room_meant",
    [
        ("from clip4str.runtime import Recognizer", "runtime"),
        ("def f():\n    from clip4str.benchmarks.latency import main", "benchmarks"),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import clip4str.training.train", "training"),
        ("from ..export import graph", "export"),
    ],
)
def test_the_search_sees_an_import(line, room_meant, tmp_path):
    path = tmp_path / "probe.py"
    path.write_text(line)
    assert set(upwards({**FILES, "clip4str.core.probe": path})) - set(EXCEPTIONS) == {("core/probe.py", room_meant)}


def test_the_search_sees_a_circle(tmp_path):
    for name, other in (("one", "two"), ("two", "one")):
        (tmp_path / f"{name}.py").write_text(f"def f():\n    from .{other} import f")
    modules = {f"clip4str.core.{name}": tmp_path / f"{name}.py" for name in ("one", "two")}
    assert {"clip4str.core.one", "clip4str.core.two"} == set(circle(modules))


def test_the_ground_floor_loads_numpy_alone():
    code = (
        "import sys; import numpy; numpys = set(sys.modules)\n"
        "import pkgutil, importlib, clip4str.core as core\n"
        "for module in pkgutil.iter_modules(core.__path__): importlib.import_module(f'clip4str.core.{module.name}')\n"
        "loaded = {name.partition('.')[0] for name in set(sys.modules) - numpys} - set(sys.stdlib_module_names)\n"
        "print(*sorted(loaded))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["clip4str"]
