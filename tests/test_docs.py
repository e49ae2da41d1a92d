"""What the pages tell people exists: links, commands, options, scripts, imports, files, extras, error lines. Each check
is a function from a page's text to what is wrong with it, and is shown to find a fault."""

from __future__ import annotations

import ast
import importlib
import io
import re
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import fields
from functools import cache
from pathlib import Path

import pytest

from clip4str.core import cli
from clip4str.model.config import Config
from clip4str.runtime.bundle import STAGES, Manifest, stage_shapes

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]+")
_FILE = re.compile(r"[\w.-]+(?:/[\w.-]+)+\.(?:py|md|c|h|txt|json|npz|tsv|png|jpg|csv)\b")


def blocks(text: str) -> list[str]:
    """Lines of code blocks without their comments, continued lines joined."""
    lines = [line.partition("  #")[0].strip() for line in text.splitlines() if line.startswith("    ")]
    return re.sub(r" ?\\\n", " ", "\n".join(lines)).splitlines()


def typed(text: str) -> list[str]:
    """Lines of code blocks and pieces of inline code."""
    prose = "\n".join(line for line in text.splitlines() if not line.startswith("    "))
    return blocks(text) + [" ".join(piece.split()) for piece in re.findall(r"`([^`]+)`", prose)]


def anchors(page: Path) -> set[str]:
    """Those that a page's headings give, as GitHub makes them."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


def broken_links(text: str, page: Path = ROOT / "README.md") -> Iterator[str]:
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        path = page.parent / file if file else page
        if not path.exists() or (anchor and anchor not in anchors(path)):
            yield target


@cache
def known_options(path: Path) -> frozenset[str]:
    """Options that a file's parser may have: its own and those of modules that it takes functions from."""
    text = path.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module:
            base = path.parents[node.level - 1] if node.level else ROOT.joinpath(*node.module.split(".")[1:-1])
            source = base / f"{node.module.split('.')[-1]}.py"
            if source.is_file() and (node.level or node.module.startswith("clip4str.")):
                text += source.read_text(encoding="utf-8")
    return frozenset(re.findall(r'"(--[a-z][a-z0-9-]+)"', text)) | {"--help"}


@cache
def helped_options(command: str) -> frozenset[str]:
    """Those that a command's help lists: slower, for its module is loaded, but also those made of other names."""
    with redirect_stdout(io.StringIO()) as out, pytest.raises(SystemExit):
        cli.main([command, "--help"])
    return frozenset(_OPTION.findall(out.getvalue()))


def unknown_commands(text: str) -> Iterator[str]:
    """clip4str's commands, scripts run by python, and their options."""
    for line in typed(text):
        for piece in re.split(r"[;|]|&&|\$\(", line):
            command, script = re.match(r"clip4str (\w+)", piece.strip()), re.search(r"\bpython3? (\S+\.py)\b", piece)
            if command and command[1] not in cli.commands():
                yield piece
            elif command:
                module = cli.commands()[command[1]].module
                source = ROOT.joinpath(*module.split(".")[1:]).with_suffix(".py")
                unknown = set(_OPTION.findall(piece)) - known_options(source)
                yield from (f"{piece}: {o}" for o in sorted(unknown and unknown - helped_options(command[1])))
            elif script and not (ROOT / script[1]).is_file():
                yield piece
            elif script:
                options = _OPTION.findall(piece[script.end() :])
                yield from (f"{piece}: {o}" for o in options if o not in known_options(ROOT / script[1]))


def missing_files(text: str) -> Iterator[str]:
    """Files named in code that would lie in one of the project's folders."""
    folders = {path.name for path in ROOT.iterdir() if path.is_dir()}
    for line in typed(text):
        for name in _FILE.findall(line):
            if name.split("/")[0] in folders - {"bundles", "runs", "build"} and not (ROOT / name).exists():
                yield name


def failing_imports(text: str) -> Iterator[str]:
    for line in blocks(text):
        if match := re.match(r"from (clip4str[\w.]*) import ([\w, ]+)$", line):
            module = importlib.import_module(match[1])
            yield from (f"{match[1]}.{name}" for name in re.findall(r"\w+", match[2]) if not hasattr(module, name))


def unknown_targets(text: str) -> Iterator[str]:
    """Of make, and of pip's extras."""
    makefile, setup = ((ROOT / name).read_text(encoding="utf-8") for name in ("Makefile", "setup.py"))
    targets = set(re.findall(r"^([\w -]+):(?!=)", makefile, re.MULTILINE)) | set(
        re.findall(r"[\w-]+", re.search(r"^NETWORK := (.+)$", makefile, re.MULTILINE)[1])
    )
    for line in typed(text):
        if match := re.match(r"make ((?:[a-z][\w-]* ?)+)", line):
            yield from (name for name in match[1].split() if name not in targets)
        for extras in re.findall(r"(?:\.|whl\)\"?|clip4str)\[([\w,]+)\]", line):
            yield from (name for name in extras.split(",") if f'"{name}":' not in setup)


CHECKS: list[tuple[Callable[..., Iterator[str]], list[str]]] = [
    (broken_links, ["[a](docs/nowhere.md)", "[a](README.md#no-such-heading)", "![a](docs/none.png)"]),
    (unknown_commands, ["`clip4str reed a.jpg`", "    clip4str read a.jpg --jason", "`clip4str build a\n--fp17`",
                        "`python benchmarks/none.py`", "    python benchmarks/peers.py --data D \\\n       --pears"]),
    (missing_files, ["`core/nothing.py`", "    pytest tests/core/test_nothing.py"]),
    (failing_imports, ["    from clip4str.runtime import Recogniser", "    from clip4str import Recognizer, Wort"]),
    (unknown_targets, ["    make lint tset      # both", "`pip install '.[exports]'`", "`make network-begin`"]),
]  # fmt: skip


@pytest.mark.parametrize("check", [check for check, _ in CHECKS])
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages(page, check):
    text = page.read_text(encoding="utf-8")
    assert list(check(text, page) if check is broken_links else check(text)) == []


@pytest.mark.parametrize("check, fault", [(check, fault) for check, faults in CHECKS for fault in faults])
def test_checks_find_faults(check, fault):
    assert len(list(check(fault))) == 1


def test_checks_see_what_the_pages_say():
    """So that no check is passed by finding nothing to look at."""
    lines = [line for page in PAGES for line in typed(page.read_text(encoding="utf-8"))]
    assert {name for name in cli.commands() if any(line.startswith(f"clip4str {name} ") for line in lines)} >= {
        "read", "build", "info", "eval", "bench", "train",
    }  # fmt: skip
    for script in ("benchmarks/roofline.py", "kernels/aot.py", "training/provide.py", "benchmarks/peers.py"):
        assert any(f"python {script} --" in line for line in lines), script


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 130


def test_cmake_variables_exist():
    lists = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    lines = [line for page in PAGES for line in typed(page.read_text(encoding="utf-8"))]
    names = {name for line in lines for name in re.findall(r"-D(\w+)", line)}
    assert "CLIP4STR_CUBINS" in names
    assert all(re.search(rf"(set|option)\({name}\b", lists) for name in names)


def table(text: str, head: str) -> set[str]:
    """Names in the first column of the table whose head begins with `head`."""
    rows = text[text.index(f"| {head} |") :].partition("\n\n")[0].splitlines()[2:]
    return {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}


def test_the_bundles_page_has_every_field_and_tensor():
    text = (ROOT / "docs" / "bundle.md").read_text(encoding="utf-8")
    assert table(text, "field | type") == {field.name for field in fields(Manifest)}
    assert table(text[text.index("Fields of `config`") :], "field") == {field.name for field in fields(Config)}
    config = Config(draft_frames=1).to_dict()
    manifest = Manifest("n", config, config["charset"], config["charset_test"], "half", "fp32", 32, {}, {})
    assert table(text, "stage") == set(STAGES)
    stages = text[text.index("| stage |") :].partition("\n\n")[0]
    for stage, tensors in stage_shapes(manifest).items():
        row = next(line for line in stages.splitlines() if line.startswith(f"| `{stage}`"))
        assert set(tensors) == set(re.findall(r"`(\w+)`", row)) - {stage, "draft_frames"}


def sources() -> str:
    """The text of the code that runs on boards and builds bundles, string pieces joined as Python joins them."""
    rooms = ("core", "runtime", "export", "kernels")
    text = "\n".join(path.read_text(encoding="utf-8") for room in rooms for path in sorted((ROOT / room).rglob("*.py")))
    return re.sub(r'"\s*\n\s*f?"', "", text)


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
