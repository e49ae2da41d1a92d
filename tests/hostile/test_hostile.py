"""Every hostile file of the corpus through its public door: a good answer, or one line that says what is wrong, within
the memory and time that doors.py states. Never another error, never the end of the process."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

if not sys.platform.startswith("linux"):
    pytest.skip("what a file took is read from /proc", allow_module_level=True)
sys.path.insert(0, str(Path(__file__).parent))

import atlases  # noqa: F401
import bundles  # noqa: F401
import checkpoints  # noqa: F401
import lmdbs  # noqa: F401
import pictures  # noqa: F401
from corpus import CORPUS, EITHER, Hostile
from doors import DOORS, MB
from guard import Guard, Outcome


@pytest.fixture(scope="module")
def guards() -> Iterator[Callable[[str], Guard]]:
    """One child process a door, for all its files; a new one after a death."""
    made: dict[str, Guard] = {}
    yield lambda door: made.setdefault(door, Guard(door))
    for guard in made.values():
        guard.__exit__()


@pytest.mark.parametrize("hostile", CORPUS, ids=lambda hostile: hostile.id.encode("unicode_escape").decode())
def test_hostile(hostile: Hostile, guards, tmp_path):
    path = tmp_path / (hostile.name[:60].replace("/", "_") if "\n" in hostile.name else "file")
    hostile.make(path)
    guard = guards(hostile.kind)
    check(hostile, guard.open(path))
    assert list(guard.folder.iterdir()) == [], "code of the file's was run"


def check(hostile: Hostile, outcome: Outcome) -> None:
    door = DOORS[hostile.kind]
    assert outcome.how in ("answered", "refused"), outcome
    assert hostile.ends in (outcome.how, EITHER), outcome
    if outcome.how == "refused":
        assert re.search(hostile.says, outcome.message) and is_one_line(outcome.message), outcome
    assert hostile.starves or not outcome.starved, f"asked for more memory than there was: {outcome}"
    assert outcome.memory <= door.memory, f"{outcome.memory >> 20} MB, {door.memory >> 20} allowed: {outcome}"
    assert outcome.seconds <= door.seconds, f"{outcome.seconds:.1f} s, {door.seconds} allowed: {outcome}"


def is_one_line(message: str) -> bool:
    return 0 < len(message) < 3000 and message.isprintable()


def test_the_budgets_are_those_of_security_md():
    text = (Path(__file__).parents[2] / "SECURITY.md").read_text(encoding="utf-8")
    rows = dict(
        zip(("pictures", "checkpoints", "bundles", "lmdbs", "atlases"), text.split("| file |")[1].splitlines()[2:])
    )
    assert rows.keys() == DOORS.keys()
    for kind, row in rows.items():
        memory, seconds = (cell.strip() for cell in row.split("|")[2:4])
        assert memory.split()[0] == str(DOORS[kind].memory // MB) and float(seconds) == DOORS[kind].seconds, row
