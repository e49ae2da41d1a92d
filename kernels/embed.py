"""Compiled kernels -> what the C library is built from: cubins.bin and kernels.c (see kernels/library/table.h).

Plain text and bytes, the same on every machine: a folder of them is all that a build with gcc and CMake needs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from clip4str.core.errors import BackendError
from clip4str.kernels.shared.variants import Entry, Variant, grid_factors

if TYPE_CHECKING:
    from clip4str.kernels.cubin import Cubin

NAMES = Path(__file__).parent / "library" / "names.def"
_KINDS = {"i32": "KIND_INT32", "u32": "KIND_INT32", "i64": "KIND_INT64", "u64": "KIND_INT64"}
_HEAD = """\
/* Written by kernels/aot.py. */
#include "table.h"

__asm__(
    ".section .rodata\\n"
    ".globl clip4str_cubins\\n"
    ".hidden clip4str_cubins\\n"
    "clip4str_cubins:\\n"
    ".incbin \\"cubins.bin\\"\\n"
    ".globl clip4str_cubins_end\\n"
    ".hidden clip4str_cubins_end\\n"
    "clip4str_cubins_end:\\n"
    ".byte 0\\n"
    ".previous\\n");

"""


def write_sources(
    entries: Sequence[Entry], cubins: dict[str, Cubin], networks: Sequence[str], folder: Path, names: Path = NAMES
) -> None:
    """cubins.bin and kernels.c into the folder. Raises BackendError for names that the library does not know."""
    from clip4str.kernels.cubin import write

    known = read_names(names)
    blob, places = bytearray(), {}
    for key in dict.fromkeys(entry.key for entry in entries):
        packed = (folder / "cache" / f"{key}.lz4").read_bytes()
        places[key] = (len(blob), len(packed))
        blob += packed
    arrays = _Arrays()
    rows = [_row(entry, cubins[entry.key], places[entry.key], list(networks), arrays, known) for entry in entries]
    built = sorted({(c.capability, c.specific) for c in (cubins[entry.key] for entry in entries)})
    architectures = " ".join(f"{major}{minor}{'a' if specific else ''}" for (major, minor), specific in built)
    text = [
        _HEAD,
        *arrays.lines,
        f"\nconst char clip4str_architectures[] = {_quote(architectures)};",
        f"const char *const clip4str_networks[] = {{{', '.join(map(_quote, networks))}, 0}};",
        f"const unsigned clip4str_networks_count = {len(networks)};",
        f"const unsigned clip4str_table_count = {len(rows)};",
        "const Kernel clip4str_table[] = {",
        *rows,
        "    {0}};",
    ]
    write(folder / "cubins.bin", bytes(blob))
    write(folder / "kernels.c", "\n".join([*text, ""]).encode())


def read_names(path: Path = NAMES) -> dict[str, dict[str, str]]:
    """{"VALUE": {"rows": "VALUE_rows", ...}, "LAUNCH": {"linear.linear": "LAUNCH_linear", ...}}"""
    text = re.sub(r"/\*.*?\*/", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    return {
        "VALUE": {name: f"VALUE_{name}" for name in re.findall(r"^VALUE\((\w+)\)", text, re.MULTILINE)},
        "LAUNCH": {t: f"LAUNCH_{n}" for n, t in re.findall(r'^LAUNCH\((\w+), "([^"]+)"\)', text, re.MULTILINE)},
    }


class _Arrays:
    """Static arrays that several table rows share."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._names: dict[tuple[str, str], str] = {}

    def add(self, kind: str, items: Sequence[str]) -> str:
        if not items:
            return "0"
        content = ", ".join(items)
        if (kind, content) not in self._names:
            name = self._names[kind, content] = f"{kind.lower()}_{len(self._names)}"
            self.lines.append(f"static const {kind} {name}[] = {{{content}}};")
        return self._names[kind, content]


def _row(
    entry: Entry,
    cubin: Cubin,
    place: tuple[int, int],
    networks: list[str],
    arrays: _Arrays,
    known: dict[str, dict[str, str]],
) -> str:
    variant = entry.variant

    def name(kind: str, text: str) -> str:
        if text not in known[kind]:
            raise BackendError(f"{variant.launch}: {text!r} is not in kernels/library/names.def")
        return known[kind][text]

    conditions = []
    for value, wanted in variant.where.items():
        least, most = (wanted, wanted) if isinstance(wanted, int) else wanted
        conditions.append(f"{{{name('VALUE', value)}, {int(least)}, {int(most)}}}")
    factors = []
    for axis, expression in enumerate(variant.grid):
        for factor, divisor in grid_factors(expression):
            number, symbol = (factor, "VALUE_COUNT") if isinstance(factor, int) else (0, name("VALUE", factor))
            factors.append(f"{{{axis}, {symbol}, {number}, {divisor}}}")
    parameters = [f"{{{name('VALUE', a)}, {_kind(variant, a)}, {_multiple(variant, a)}}}" for a in variant.arguments]
    fields = (
        name("LAUNCH", variant.launch),
        cubin.hidden,
        int(cubin.specific),
        int(cubin.dependent),
        *(len(conditions), len(factors), len(parameters)),
        10 * cubin.capability[0] + cubin.capability[1],
        *(cubin.num_warps, cubin.registers),
        sum(1 << networks.index(network) for network in entry.networks),
        cubin.shared,
        *(*place, cubin.size),
        _quote(cubin.symbol),
        arrays.add("Condition", conditions),
        arrays.add("Factor", factors),
        arrays.add("Parameter", parameters),
    )
    return f"    {{{', '.join(map(str, fields))}}},"


def _kind(variant: Variant, argument: str) -> str:
    kind = variant.types[argument]
    if kind.startswith("*"):
        return "KIND_POINTER"
    if kind not in _KINDS:
        raise BackendError(
            f"{variant.launch}: argument {argument} of type {kind}; the library passes pointers and integers"
        )
    return _KINDS[kind]


def _multiple(variant: Variant, argument: str) -> int:
    """What an argument must be a multiple of: the library checks it."""
    if argument in variant.multiples_of_16:
        return 16
    bits = re.search(r"^\*[a-z]+(\d+)$", variant.types[argument])
    return max(1, int(bits.group(1)) // 8) if bits else 1


def _quote(text: str) -> str:
    if not re.fullmatch(r"[\w. ]*", text):
        raise BackendError(f"{text!r} is no name that C could hold")
    return f'"{text}"'
