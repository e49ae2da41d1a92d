"""Records what pyds has, out of the source of its bindings (github.com/NVIDIA-AI-IOT/deepstream_python_apps), for
pyds_standin.py: python tests/video/record_pyds.py BINDINGS/src > tests/video/pyds_api.json"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

FILES = ("pyds.cpp", "bindfunctions.cpp", "bindnvdsmeta.cpp", "bindnvosd.cpp", "bindnvdsinfer.cpp")
KINDS = {"STRING_CHAR_ARRAY": "char array", "STRING_FREE_EXISTING": "char pointer", "STRING_PROPERTY": "char pointer"}


def call(text: str, start: int) -> str:
    """From the opening bracket at `start` to its closing one."""
    depth = 0
    for at in range(start, len(text)):
        depth += (text[at] == "(") - (text[at] == ")")
        if depth == 0:
            return text[start : at + 1]
    raise ValueError(text[start : start + 80])


def parameters(body: str) -> list[list[str]]:
    """[name, C++ type] of each parameter of a bound function: names as Python knows them, "" where it knows none;
    types where the binding is a lambda, else ""."""
    names = re.findall(r'"(\w+)"_a', body)
    found = re.search(r"\[\]\s*\(([^)]*)\)", body)
    if found is None:
        return [[name, ""] for name in names]
    types = [part.strip() for part in found[1].split(",") if part.strip()]
    types = [re.sub(r"\s*[*&]?\w+$", lambda m: "*" if "*" in m[0] else "", t) for t in types]
    return [[names[i] if i < len(names) else "", t] for i, t in enumerate(types)]


def functions(text: str) -> dict[str, list[list[str]]]:
    return {m[1]: parameters(call(text, m.end(0) - len(m[0]) + 5)) for m in re.finditer(r'm\.def\("(\w+)"', text)}


def classes(text: str) -> tuple[dict[str, dict[str, str]], dict[str, list[str]]]:
    """Fields of each class and how they are bound; names of each enumeration's values."""
    fields: dict[str, dict[str, str]] = {}
    values: dict[str, list[str]] = {}
    starts = [*re.finditer(r"py::(class|enum)_<\w+>\(\s*m,\s*\"(\w+)\"", text)]
    for start, following in zip(starts, [*starts[1:], None]):
        body = text[start.end() : following.start() if following else len(text)]
        if start[1] == "enum":
            values[start[2]] = re.findall(r'\.value\(\s*"(\w+)"', body)
            continue
        mine = fields.setdefault(start[2], {})
        for m in re.finditer(r'\.def_(readwrite|readonly|property_readonly|property)\(\s*"(\w+)"', body):
            bound = call(body, m.start() + len(".def_") + len(m[1]))
            macro = next((kind for name, kind in KINDS.items() if name in bound), None)
            mine[m[2]] = macro or {"property": "array", "property_readonly": "readonly"}.get(m[1], m[1])
        for m in re.finditer(r'(?<!m)\.def\(\s*"(\w+)"', body):
            mine[m[1]] = "method"
    return fields, values


def main(folder: Path) -> None:
    text = "\n".join((folder / name).read_text(encoding="utf-8") for name in FILES)
    version = re.search(r'PYDS_VERSION "([\d.]+)"', text)
    fields, values = classes(text)
    record = {
        "version": version[1] if version else "",
        "functions": functions(text),
        "classes": fields,
        "enums": values,
    }
    print(json.dumps(record, indent=0, sort_keys=True))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
