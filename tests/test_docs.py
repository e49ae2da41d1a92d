"""What docs/ tells people to type exists: options, files, error lines."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from clip4str.core import cli

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]+")


def sources() -> str:
    """The text of the code that runs on boards and builds bundles, string pieces joined as Python joins them."""
    rooms = ("runtime", "export", "kernels")
    text = "\n".join(path.read_text(encoding="utf-8") for room in rooms for path in sorted((ROOT / room).rglob("*.py")))
    return re.sub(r'"\s*\n\s*f?"', "", text)


def typed(page: Path) -> list[str]:
    """Lines of code blocks and pieces of inline code, without comments."""
    text = page.read_text(encoding="utf-8")
    blocks = [line.partition("  #")[0].strip() for line in text.splitlines() if line.startswith("    ")]
    return blocks + re.findall(r"`([^`\n]+)`", text)


def commands(program: str) -> list[tuple[str, str]]:
    """(page, command line) of every mention of `program` with arguments."""
    return [(p.name, line[line.index(program) :]) for p in PAGES for line in typed(p) if f"{program} " in line]


@pytest.mark.parametrize("page, command", commands("clip4str"))
def test_options_of_commands_exist(page, command, capsys):
    name = command.split()[1]
    if name not in cli.commands():
        return  # the word, not the command
    with pytest.raises(SystemExit) as stop:
        cli.main([name, "--help"])
    assert stop.value.code == 0
    known = set(_OPTION.findall(capsys.readouterr().out))
    assert set(_OPTION.findall(command)) <= known, f"{page}: {command}"


@pytest.mark.parametrize("script", ["benchmarks/roofline.py", "kernels/aot.py"])
def test_options_of_scripts_exist(script):
    lines = commands(f"python {script}")
    assert lines
    source = (ROOT / script).read_text(encoding="utf-8")
    for page, line in lines:
        for option in _OPTION.findall(line):
            assert f'"{option}"' in source, f"{page}: {option}"


def test_cmake_variables_exist():
    lists = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    names = {name for _, line in commands("cmake") for name in re.findall(r"-D(\w+)", line)}
    assert "CLIP4STR_CUBINS" in names
    assert all(re.search(rf"(set|option)\({name}\b", lists) for name in names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        path = (page.parent / file).resolve() if file else page
        assert path.exists(), target
        if anchor:
            heads = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}, target


def quoted_errors() -> list[str]:
    """Our own error lines that jetson.md explains: inline code in the first column, three words and more."""
    table = (ROOT / "docs" / "jetson.md").read_text(encoding="utf-8").partition("## If it fails")[2]
    first = [line.split("|")[1] for line in table.splitlines() if line.startswith("| ")]
    quoted = [piece for cell in first for piece in re.findall(r"`([^`]+)`", cell)]
    return [piece for piece in quoted if len(piece.split()) >= 3 and not piece.startswith("No module")]


@pytest.mark.parametrize("line", quoted_errors())
def test_error_lines_are_ours(line):
    said = sources()
    for name in ("tensorrt",):  # what an f-string fills in
        if line in said or line.replace(name, "{name}") in said:
            return
    pytest.fail(f"no error says {line!r}")
