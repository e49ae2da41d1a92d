"""training/provide.py: fonts out of packages, the word list, a pool in parts; nothing is fetched here."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny import write_lmdb

from clip4str.core.errors import DataError
from clip4str.data.word_lmdb import LmdbWords, find_lmdb
from clip4str.training import atlas_command, font_packages, fonts, provide
from clip4str.training.drawing import atlas_build, shards
from clip4str.training.drawing.atlas import load_atlas
from clip4str.training.font_packages import Package, Row, choose_faces, fetch_npm, read_families, read_list
from clip4str.training.fonts import Font

ONE, TWO, GONE, ODD = (Package(f"@fontsource/{name}", "5.0.1") for name in ("one", "two", "gone", "odd"))
NPM = """#!{python}
import json, os, sys
from pathlib import Path

with open({log!r}, "a") as log:
    print(*sys.argv[1:], file=log)
wanted = [word[1:].split("@") for word in sys.argv if word.startswith("@")]
if os.environ.get("OFFLINE") or any("gone" in name for name, _ in wanted):
    sys.exit("npm error code " + ("ENOTFOUND" if os.environ.get("OFFLINE") else "ETARGET"))
for name, version in wanted:
    package = Path(sys.argv[sys.argv.index("--prefix") + 1], "node_modules", "@" + name)
    stem = name.split("/")[1]
    (package / "files").mkdir(parents=True)
    (package / "package.json").write_text(json.dumps({{"license": "MIT AND OFL-1.1"}}))
    for face in ("latin-400-normal", "latin-700-normal", "latin-900-normal", "latin-400-italic", "greek-400-normal"):
        for suffix in (".woff2", ".woff"):
            (package / "files" / f"{{stem}}-{{face}}{{suffix}}").write_text(face)
    if stem == "odd":
        for file in (package / "files").iterdir():
            file.unlink()
        (package / "files" / "odd-latin-400-normal.woff2").symlink_to("/etc/hostname")
"""


@pytest.fixture
def npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An npm that fetches nothing, and the log of its calls."""
    log, program = tmp_path / "npm.log", tmp_path / "bin" / "npm"
    program.parent.mkdir()
    program.write_text(NPM.format(python=sys.executable, log=str(log)))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    (tmp_path / "fonts").mkdir()
    return log


def test_the_list_names_packages_once():
    debian, npm = read_list()
    assert len(npm) > 500 and len({package.name for package in npm}) == len(npm)
    assert {"wamerican", "fonts-dejavu"} < set(debian) and len(set(debian)) == len(debian)


@pytest.mark.parametrize("line", ["npm\t--force\t1.0.0", "npm\t@a/b\tlatest", "debian\t-y", "npm\t@a/b", "rpm\tx"])
def test_a_list_cannot_hold_options(tmp_path: Path, line: str):
    (tmp_path / "list.tsv").write_text(f"# fonts\n{line}\n")
    with pytest.raises(DataError, match="neither"):
        read_list(tmp_path / "list.tsv")


def test_a_family_gives_regular_bold_and_italic():
    web = [f"ab-c-latin-{weight}-{style}.woff2" for weight in (100, 300, 500, 800) for style in ("normal", "italic")]
    others = ["ab-c-latin-ext-400-normal.woff2", "ab-c-cyrillic-400-normal.woff2", "ab-c-latin-400-normal.woff"]
    assert choose_faces([*web, *others]) == [
        "ab-c-latin-300-italic.woff2", "ab-c-latin-300-normal.woff2", "ab-c-latin-800-normal.woff2",
    ]  # fmt: skip
    assert choose_faces(["One_400Regular.ttf", "One_400Regular.ttf.png"]) == ["One_400Regular.ttf"]
    variable = ["v-latin-wght-normal.woff2", "v-latin-wdth-normal.woff2", "v-latin-ext-wght-normal.woff2"]
    assert choose_faces(variable) == variable[:1]


def test_faces_come_with_their_licence_and_once(npm: Path, tmp_path: Path):
    folder = tmp_path / "fonts"
    (folder / ".npm-left" / "node_modules").mkdir(parents=True)
    assert fetch_npm([ONE, TWO], folder) is None
    assert read_families(folder)[:3] == [
        Row(f"one-latin-{face}.woff2", "@fontsource/one", "5.0.1", "OFL-1.1")
        for face in ("400-italic", "400-normal", "700-normal")
    ]
    assert sorted(path.name for path in folder.iterdir()) == ["families.tsv", *(r.file for r in read_families(folder))]
    assert fetch_npm([ONE, TWO], folder) is None and len(npm.read_text().splitlines()) == 1
    (folder / "two-latin-400-normal.woff2").unlink()
    assert fetch_npm([ONE, TWO], folder) is None and len(read_families(folder)) == 6
    assert npm.read_text().splitlines()[1].endswith("@fontsource/two@5.0.1")
    assert "--ignore-scripts" in npm.read_text()


def test_a_package_that_is_gone_costs_no_other(npm: Path, tmp_path: Path):
    problem = fetch_npm([ONE, GONE, TWO], tmp_path / "fonts")
    assert problem == "1 npm packages could not be had: @fontsource/gone"
    assert {row.package for row in read_families(tmp_path / "fonts")} == {"@fontsource/one", "@fontsource/two"}


def test_a_link_in_a_package_is_not_followed(npm: Path, tmp_path: Path):
    assert fetch_npm([ODD], tmp_path / "fonts") is None
    assert [row.file for row in read_families(tmp_path / "fonts")] == ["-"]
    assert [path.name for path in (tmp_path / "fonts").iterdir()] == ["families.tsv"]


def test_no_network_and_no_npm_are_said_in_a_line(npm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OFFLINE", "1")
    assert "does not reach" in str(fetch_npm([ONE, TWO], tmp_path / "fonts"))
    assert len(npm.read_text().splitlines()) == 1
    monkeypatch.setenv("PATH", "/nowhere")
    assert "there is no npm" in str(fetch_npm([ONE, TWO], tmp_path / "fonts"))
    assert "no apt-get" in str(font_packages.install_debian(["fonts-dejavu"]))


@pytest.mark.parametrize("root, called", [(False, []), (True, ["update", "install b c", "install b", "install c"])])
def test_debian_packages_are_installed_by_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: bool, called):
    for name, does in {"dpkg-query": "echo 'a installed'; echo 'b not-installed'",
                       "apt-get": f'echo "$*" >> {tmp_path}/log; case "$*" in *c) exit 1; esac'}.items():  # fmt: skip
        (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(os, "geteuid", lambda: 0 if root else 1000)
    problem = str(font_packages.install_debian(["a", "b", "c"]))
    log = (tmp_path / "log").read_text().splitlines() if root else []
    assert [line[re.search("update|(?<!no-)install ", line).start() :] for line in log] == called
    assert ("could not be installed: c" if root else "2 Debian packages are left out, which need root") in problem


def test_licences_are_those_beside_the_files(tmp_path: Path):
    face = tmp_path / "one-latin-400-normal.woff2"
    face.write_bytes(b"")
    (tmp_path / "families.tsv").write_text(f"{font_packages.HEADER}\n{face.name}\t@fontsource/one\t5.0.1\tUFL-1.0\n")
    other = tmp_path / "other.ttf"
    assert atlas_build.licences([str(face), str(other)]) == {str(face): "UFL-1.0", str(other): "unknown"}


def test_web_fonts_are_fonts(tmp_path: Path, few: list[Font]):
    (tmp_path / "face.woff2").write_bytes(Path(few[0].path).read_bytes())
    assert fonts.font_files((str(tmp_path),)) == [str(tmp_path / "face.woff2")]


def test_frequent_words_come_first():
    words = provide.frequent_words()
    assert words[0] == "the" and 20_000 < len(words) == len(set(words))
    assert words.index("street") < words.index("hamlin") and all(word.isalpha() for word in words)


@pytest.fixture
def folder(tmp_path: Path, few: list[Font], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Small parts, three faces, and no cache of fonts."""
    found = fonts.Survey(tuple(few[:3]), ())
    monkeypatch.setattr(fonts, "survey", lambda *_: found)
    monkeypatch.setattr(atlas_command, "survey", lambda *_: found)
    monkeypatch.setattr(shards, "PART", 30)
    return tmp_path / "data"


def stored(folder: Path) -> list[list[tuple[bytes, str]]]:
    parts = []
    for part in find_lmdb(folder / "pool"):
        with LmdbWords(part) as words:
            parts.append(list(words))
    return parts


def test_one_command_makes_everything_and_then_nothing(folder: Path, capsys: pytest.CaptureFixture[str]):
    command = ["--folder", str(folder), "--no-install", "--words", "70", "--size", "16", "64", "--processes", "2"]
    write_lmdb(folder.parent / "real" / "words", ["stop", "Exit", "24", "taxi"] * 5)
    assert provide.main([*command, "--real", str(folder.parent / "real")]) == 0
    assert len(load_atlas(folder / "atlas.safetensors")) == 3
    first = stored(folder)
    assert [len(part) for part in first] == [30, 30, 30] and first[0] != first[1]
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*.*") if path.is_file() and path.name[0] != "."}
    assert provide.main(command) == 0 and "0 of them new" in capsys.readouterr().out
    assert times == {path: path.stat().st_mtime_ns for path in times}


def test_a_larger_pool_begins_with_the_smaller_and_another_seed_draws_others(folder: Path):
    command = ["--folder", str(folder), "--no-install", "--size", "16", "64"]
    assert provide.main([*command, "--words", "30"]) == 0
    first = stored(folder)
    assert provide.main([*command, "--words", "31"]) == 0
    assert [len(part) for part in stored(folder)] == [30, 30] and stored(folder)[0] == first[0]
    assert provide.main([*command, "--words", "30", "--seed", "1"]) == 0
    assert len(stored(folder)) == 3 and stored(folder)[2] != first[0]


def test_killed_at_any_moment_it_goes_on(folder: Path):
    """What the next one makes is what one alone would have made."""
    whole = folder.parent / "whole"
    command = ["--no-install", "--size", "16", "64", "--words", "60"]
    assert provide.main(["--folder", str(whole), *command]) == 0
    for name in ("atlas.safetensors", "words.txt"):
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes((whole / name).read_bytes())
    code = ("import sys; from clip4str.training import provide; from clip4str.training.drawing import shards; "
            "shards.PART = 30; sys.exit(provide.main(sys.argv[1:]))")  # fmt: skip
    for moment in (".0000.part", "0000"):
        process = subprocess.Popen([sys.executable, "-c", code, "--folder", str(folder), *command])
        while process.poll() is None and not (folder / "pool" / "seed-0" / moment).exists():
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert provide.main(["--folder", str(folder), *command]) == 0
    assert [[label for _, label in part] for part in stored(folder)] == [
        [label for _, label in part] for part in stored(whole)
    ]


def test_two_at_once_do_not_meet(folder: Path, capsys: pytest.CaptureFixture[str]):
    with shards.locked(folder / ".lock"):
        assert provide.main(["--folder", str(folder), "--no-install"]) == 2
    assert "another provide.py is at work" in capsys.readouterr().err


@pytest.mark.parametrize("options, message", [
    (["--words", "-1"], "0 or more"), (["--processes", "0"], "at least 1"), (["--size", "4", "64"], "8 to 1024"),
    (["--words", "10", "--real", "missing"], "missing"),
])  # fmt: skip
def test_mistakes_are_one_line(folder: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str):
    assert provide.main(["--folder", str(folder), "--no-install", *options]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1


def test_a_file_in_the_folders_place_is_a_line_and_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    place = tmp_path / "data"
    place.write_text("mine")
    assert provide.main(["--folder", str(place), "--no-install"]) == 2
    assert "is a file; --folder names a folder" in capsys.readouterr().err
    assert place.read_text() == "mine"
