"""What other libraries say, on one line."""

import pytest

from clip4str.core.errors import first_line


@pytest.mark.parametrize(
    ("said", "line"),
    [
        (ValueError("no such file\nhint: look elsewhere"), "no such file"),
        (RuntimeError("\n  \x1b[31mred\n"), "[31mred"),
        (KeyError(), "KeyError"),
        (OSError(" "), "OSError"),
        ("10.3\nrest", "10.3"),
        ("", ""),
        ("x" * 21, "x" * 17 + "..."),
        ("x" * 20, "x" * 20),
    ],
)
def test_one_printable_line(said, line):
    assert first_line(said, 20) == line
