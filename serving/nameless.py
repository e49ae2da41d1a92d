"""Pictures that are bytes, and what their errors say without a file's name."""

from __future__ import annotations

import io

from clip4str.core.errors import one_line


class Nameless(io.BytesIO):
    """A picture's bytes; errors call it by an empty name."""

    name = ""


def without_name(error: Exception | str, name: str = "") -> str:
    """An error's line without the name that it begins with."""
    return str(error).removeprefix(f"{one_line(name)}: ").removeprefix(": ")
