"""Experiments: every variant is a command that training takes; tiny runs are made once, measured and put in a table."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
from tiny import TINY, write_lmdb

from clip4str.training import experiments
from clip4str.training.arguments import config_from, parser
from clip4str.training.experiments import VARIANTS, as_markdown, main
from clip4str.training.train import main as train


def test_every_variant_differs_from_the_first_in_what_it_says():
    def settings(options):
        args = parser("").parse_args(["--output", "x", "--steps", "1", "--orders", "2", *options])
        return {**vars(args), "network": None, **vars(config_from(args))}

    base, *others = (settings(variant.options) for variant in VARIANTS)
    changed = [{k for k in base if base[k] != other[k]} for other in others]
    assert all(len(change) == 1 or change == {"image_width", "image_layers"} for change in changed)
    assert len({tuple(variant.options) for variant in VARIANTS}) == len(VARIANTS)


@pytest.fixture
def here(monkeypatch):
    """Training in this process, of a tiny network without compiling; how often it was begun."""
    monkeypatch.setattr("clip4str.training.train.config_from", lambda args, charset: replace(TINY))
    begun = []

    def run(command, **_):
        options = [option for option in command[2:] if option != "--compile"]
        begun.append(options)
        return subprocess.CompletedProcess(command, train([*options, "--workers", "0"]), "", "one\nline")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(experiments, "BATCH", 4)
    return begun


def test_two_variants_are_run_once_and_compared(tmp_path, here, capsys):
    write_lmdb(tmp_path / "pool" / "a", ["stop", "Exit", "24"] * 8)
    write_lmdb(tmp_path / "held" / "b", ["taxi", "Bar", "7"])
    command = ["--synthetic", str(tmp_path / "pool"), "--held", str(tmp_path / "held"), "--words", "8",
               "--output", str(tmp_path / "out"), "--only", "base", "adamw", "--parallel", "1"]  # fmt: skip
    assert main(command) == 0
    assert [options[-1] for options in here] == ["patch_size=16x4,image_width=192,image_layers=6", "adamw"]
    report = json.loads((tmp_path / "out" / "experiments.json").read_text())
    assert [row["name"] for row in report["rows"]] == ["base", "adamw"] and report["words"] == 8
    for row in report["rows"]:
        assert row["rendered"]["of"] == 3 and 0 <= row["rendered"]["characters"] <= 100 and row["tower_ms"] > 0
    table = (tmp_path / "out" / "experiments.md").read_text()
    assert table == as_markdown(report["rows"]) and len(table.splitlines()) == 4
    assert table.strip() in capsys.readouterr().out
    before = (tmp_path / "out" / "base" / "last.ckpt").stat().st_mtime_ns
    assert main(command) == 0
    assert (tmp_path / "out" / "base" / "last.ckpt").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    "options, message",
    [
        ([], "say what to learn from"),
        (["--only", "bigger"], "no experiment is called bigger"),
        (["--synthetic", "missing"], "missing: does not exist"),
    ],
)
def test_mistakes_are_one_line(tmp_path, here, capsys, options, message):
    if options:
        options = ["--synthetic", "x", "--held", "x", "--output", str(tmp_path / "out"), "--only", "base", *options]
    assert main(options) == 2 and not list(tmp_path.iterdir())
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in error and error.startswith("clip4str experiments: error: ")


def test_a_run_that_fails_says_which_and_why(tmp_path, here, capsys):
    write_lmdb(tmp_path / "pool", ["x" * 30])
    folder = str(tmp_path / "pool")
    assert main(["--synthetic", folder, "--held", folder, "--output", str(tmp_path / "out"), "--only", "base"]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == "clip4str experiments: error: base: line"
    assert not (tmp_path / "out" / "experiments.json").exists()


def test_the_list_names_all():
    text = subprocess.run(
        [sys.executable, experiments.__file__, "--list"], capture_output=True, text=True, check=True
    ).stdout
    assert [line.split()[0] for line in text.splitlines()] == [variant.name for variant in VARIANTS]
