"""What the head of a library's file says: the loader of the system calls one of another processor "not found"."""

from __future__ import annotations

from pathlib import Path

MACHINES = {62: "x86_64", 183: "aarch64"}  # e_machine: processors of ours, as platform.machine() calls them
_LITTLE = 1  # e_ident's byte order


def machine_of(path: Path) -> str:
    """The processor that a file is for; "" if it is not there, or no ELF file."""
    try:
        with path.open("rb") as file:
            head = file.read(20)
    except OSError:
        return ""
    if len(head) < 20 or head[:4] != b"\x7fELF":
        return ""
    number = int.from_bytes(head[18:20], "little" if head[5] == _LITTLE else "big")
    return MACHINES.get(number, f"another processor (ELF machine {number})")
