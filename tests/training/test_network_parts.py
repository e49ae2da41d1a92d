"""The parts of the long run: recipe, what it goes on from, its log, giving up. Linux."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from stand_in import HEADER
from tiny import TINY, tiny_network

from clip4str.core.errors import DataError, UsageError
from clip4str.core.safetensors_metadata import write_metadata
from clip4str.model import load_checkpoint, save_checkpoint

if sys.platform != "linux":
    pytest.skip("the run needs Linux", allow_module_level=True)

from network_home import LOG, spoil, write_run

from clip4str.training.network import checkout, keeper, progress, states
from clip4str.training.network.places import Places, places
from clip4str.training.network.recipe import read_recipe
from clip4str.training.run_log import read_rows

ROOT = Path(__file__).resolve().parents[2]


# What it goes on from


def test_places_are_beside_the_project_unless_told(tmp_path):
    project = tmp_path / "project"
    default = places(project, {})
    assert default.home == tmp_path / "network" and default.words == tmp_path / "shared/data/train/real"
    told = places(project, {"CLIP4STR_NETWORK": "/far/away", "CLIP4STR_WORDS": "/w"})
    assert told.run == Path("/far/away/run") and told.words == Path("/w")
    assert told.environment()["CLIP4STR_NETWORK"] == "/far/away"


def test_a_first_run_starts_from_the_bundled_weights(where):
    said = states.begin(where, words_before=700)
    assert said == ("starts from small, 700 words seen before",)
    assert load_checkpoint(where.run / states.INIT).config == TINY
    assert states.read_start(where.run) == states.Start("small", 700)


@pytest.mark.parametrize("how", ["cut", "one bit"])
def test_a_damaged_state_gives_way_to_the_one_before(where, how):
    write_run(where, 5, states.SPARE, words=0)
    spoil(write_run(where, 9), how)
    said = states.begin(where, 0)
    assert said[0].startswith("last.ckpt cannot be gone on from (") and said[1].startswith("goes on from step 5,")
    assert states.read_state(where.run / states.LAST).step == 5
    assert (where.run / "damaged-last.ckpt").exists() and not (where.run / states.SPARE).exists()


def test_with_both_states_damaged_the_averaged_weights_are_the_start(where):
    spoil(write_run(where, 9, words=100), "cut")
    spoil(write_run(where, 5, states.SPARE), "cut")
    save_checkpoint(tiny_network(2), where.run / states.AVERAGED)
    (where.run / "log.csv").write_text(HEADER + "9,90,1,0.1,1,1,1,\n")
    said = states.begin(where, words_before=50)
    assert said[-1] == "starts from model.safetensors (what was there: run-1), 190 words seen before"
    assert torch.equal(*(load_file(f)["clip_model.positional_embedding"] for f in
                         (where.run / states.INIT, where.home / "run-1" / states.AVERAGED)))  # fmt: skip
    assert not (where.run / states.LAST).exists() and (where.home / "run-1" / "damaged-last.ckpt").exists()


@pytest.mark.parametrize("bundled, goes_on", [(1090, True), (1091, False)])
def test_whichever_has_seen_more_words_is_the_newest(where, bundled, goes_on):
    file = where.checkout / "model/bundled/small/weights.safetensors"
    write_metadata(file, file, {states.WORDS_SEEN: str(bundled)})
    write_run(where, 9, words=1000)
    said = states.begin(where, 0)
    if goes_on:
        assert said == ("goes on from step 9, 90 words (1,090 in all)",)
    else:
        assert said[0] == "small has seen more words (1,091) than the state (1,090)"
        assert states.read_start(where.run).words == 1091
        assert states.read_state(where.home / "run-1" / states.LAST).step == 9


def test_killed_between_two_renames_nothing_is_lost(where):
    states.begin(where, 700)
    where.run.rename(where.home / ".run.part")
    states.begin(where, 0)
    assert states.read_start(where.run).words == 700


def test_nothing_to_start_from_is_an_error(where):
    (where.checkout / "model/bundled/small/weights.safetensors").write_bytes(b"cut")
    with pytest.raises(DataError, match="nothing to start from"):
        states.begin(where, 0)


def test_what_a_run_began_with_is_unknown_where_the_file_is_damaged(where):
    where.run.mkdir()
    for text in ('{"source": "x", "words": "many"}', '{"source": "x", "words": 1e999}', "[" * 10**5, "\0"):
        (where.run / states.START).write_text(text)
        assert states.read_start(where.run) == states.Start("", 0)


def test_without_git_it_says_so(where, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UsageError, match="needs git: install it"):
        checkout.place(where, "HEAD")


# The recipe

RECIPE = """[train]   # all
--batch 8 --atlas {data}/a.x   # why
--name 'two words'
[real]
--data {real} --minutes 3 --minutes 5
[no photos]
--plain
[provide]
--folder {data}
[provide real]
--real {real}
[start]
words 12
"""


def test_sections_are_chosen_by_what_the_machine_has(where, tmp_path):
    path = tmp_path / "network.args"
    path.write_text(RECIPE.replace("   # all", ""))
    poor = read_recipe(path, where)
    atlas = str(where.data / "a.x")
    assert poor.train == ("--batch", "8", "--atlas", atlas, "--name", "two words", "--plain")
    assert poor.provide == ("--folder", str(where.data)) and poor.words_before == 12
    assert [lack.split(" in ")[0] for lack in poor.lacks] == ["no real words", "no photos"]
    where.words.mkdir(parents=True)
    where.photos.mkdir(parents=True)
    rich = read_recipe(path, where)
    assert rich.train[6:] == ("--data", str(where.words), "--minutes", "3", "--minutes", "5") and not rich.lacks
    assert rich.provide[2:] == ("--real", str(where.words))
    assert rich.option("--minutes") == 5 and rich.option("--steps") == 0
    assert rich.missing(where.data) == [where.data / "a.x"]
    where.data.mkdir()
    (where.data / "a.x").touch()
    assert not rich.missing(where.data)


@pytest.mark.parametrize(
    "text, message",
    [
        ("--batch 8\n", "line 1: options before the first section"),
        ("[train]\n--batch 8\n[trian]\n", r"line 3: no section \[trian\]; there are train, real"),
        ("[train]\n--words 'a\n", "line 2: No closing quotation"),
        ("[train]\n--data {shared}\n", "{shared} stands for nothing; there are data, real"),
        ("[real]\n--batch 8\n", r"no \[train\] options"),
        ("[train]\n--batch 8\n[start]\nwords many\n", "reads: words NUMBER"),
        (None, "cannot be read as a recipe"),
    ],
)
def test_mistakes_in_a_recipe_are_named(where, tmp_path, text, message):
    path = tmp_path / "network.args"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_recipe(path, where)


def test_the_committed_recipe_is_what_training_takes(where):
    from clip4str.training import provide
    from clip4str.training.arguments import check, parser

    for real in (False, True):
        if real:
            where.words.mkdir(parents=True)
            where.photos.mkdir(parents=True)
        recipe = read_recipe(ROOT / "training/network.args", where)
        check(parser("").parse_args(["--output", "x", "--init", "y", *recipe.train]))
        assert provide.build_parser().parse_args(recipe.provide).folder == where.data


# The keeper


def keep(where: Places, monkeypatch, outcomes: list[tuple[int, int]]) -> tuple[int, int, str]:
    """(exit code, attempts made, log) of training that ends with these (exit codes, steps saved before)."""
    made = []

    def train(self: keeper.Keeper) -> int:
        code, saved = outcomes[min(len(made), len(outcomes) - 1)]
        made.append(code)
        if saved:
            write_run(where, saved)
        where.output.write_text("Traceback ...\nMemoryError: none left\n")
        return code

    monkeypatch.setattr(keeper.Keeper, "train", train)
    monkeypatch.setattr(keeper.Keeper, "provide", lambda self: None)
    monkeypatch.setattr(keeper.Keeper, "_clear", lambda self: None)  # this process's children are not its
    monkeypatch.setattr(keeper, "step_back", lambda niceness: None)
    monkeypatch.setattr(keeper.signal, "signal", lambda number, handler: None)
    code = keeper.Keeper(where, 0, pause=0.0).run()
    return code, len(made), where.log.read_text()


def test_what_fails_again_and_again_is_given_up(where, monkeypatch):
    code, attempts, log = keep(where, monkeypatch, [(1, 0)])
    assert (code, attempts) == (1, keeper.ATTEMPTS)
    assert "given up" in log.splitlines()[-1] and "MemoryError: none left" in where.failed.read_text()


def test_failures_with_a_state_saved_between_them_are_not_counted(where, monkeypatch):
    outcomes = [(1, 0)] * 3 + [(1, 7)] + [(-9, 0)] * 3 + [(0, 0)]
    code, attempts, log = keep(where, monkeypatch, outcomes)
    assert (code, attempts) == (0, len(outcomes)) and "has ended" in log.splitlines()[-1]
    assert "training ended with -9" in log and not where.failed.exists()


def test_training_that_was_told_to_end_is_not_started_again(where, monkeypatch):
    assert keep(where, monkeypatch, [(130, 0)])[:2] == (0, 1)


# The log


def test_a_row_that_is_being_written_is_left_out(tmp_path):
    (tmp_path / "log.csv").write_text(LOG)
    rows = read_rows(tmp_path / "log.csv")
    assert [row["step"] for row in rows] == [50, 100, 150] and "validation_visual" not in rows[0]
    assert progress.best(rows) == {"validation_visual": (0.5, 0.6, 1000.0)}
    said = progress.describe(rows[-1])
    assert said == "step 150, 1,500 words, 120 words/s, loss 1.000 (visual 1.000), held out: visual 50.0 %"


def test_the_chart_is_drawn_while_a_row_is_being_written(where):
    from clip4str.training.network.status import _chart

    where.run.mkdir()
    assert _chart(where).startswith("none yet")
    (where.run / "log.csv").write_text(LOG)
    assert Path(_chart(where)).read_bytes()[:4] == b"\x89PNG"


def test_time_left_is_said_where_there_is_an_end(where, tmp_path):
    (tmp_path / "log.csv").write_text(LOG)
    rows = read_rows(tmp_path / "log.csv")
    for options, left in (("--minutes 90", "60 min left"), ("--steps 250 --minutes 90", "20 min left"), ("-x", "")):
        (tmp_path / "r").write_text(f"[train]\n{options}\n")
        assert progress.time_left(rows, read_recipe(tmp_path / "r", where)) == left
    assert [progress.span(s) for s in (89, 600, 7200, 4e5)] == ["89 s", "10 min", "2.0 h", "4.6 days"]


# The commands


def test_every_make_target_is_a_command():
    from clip4str.training.network_run import parser

    lines = (ROOT / "Makefile").read_text().splitlines()
    targets = next(line for line in lines if line.startswith("NETWORK := ")).split()[2:]
    assert len(targets) == 5
    for target in targets:
        assert parser().parse_args([target.removeprefix("network-")]).command
