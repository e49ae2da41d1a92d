"""Learning rates over a run, and runs that stop, go on and branch off."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny import TINY, train

from clip4str.model import load_checkpoint
from clip4str.training import module, start
from clip4str.training.module import Training
from clip4str.training.run_log import read_rows
from clip4str.training.schedule import learning_rate

TINY_RUN = f"""
import runpy
from clip4str.model import Config
from clip4str.model.sizes import SIZES
SIZES["small"] = {TINY!r}
runpy.run_path({str(Path(start.__file__).with_name("train.py"))!r}, run_name="__main__")
"""
CONSTANT = ("--schedule", "constant", "--warm-up", "2", "--lr", "1e-3")


def state(folder):
    return torch.load(folder / "last.ckpt", weights_only=True)


def rates(folder):
    return [group["lr"] for group in state(folder)["optimizer_states"][0]["param_groups"] if not group["muon"]]


def test_rates():
    assert [learning_rate("constant", 0.9, step, 4) for step in (0, 1, 3, 4, 10**6)] == [0.25, 0.5, 1.0, 1.0, 1.0]
    assert [learning_rate("decay", p, 10**6, 4) for p in (0.0, 0.25, 1.0)] == [1.0, 0.5, 0.0]
    assert learning_rate("one-cycle", 1.0, 0, 4) < 1e-5 < 0.03 < learning_rate("one-cycle", 0.0, 0, 4) < 0.05


def test_a_constant_run_has_no_end_until_it_is_told_to_stop(words, tmp_path, small_is_tiny, monkeypatch):
    step = Training.training_step

    def terminated(self, batch, number):
        if self.global_step == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, batch, number)

    monkeypatch.setattr(Training, "training_step", terminated)
    assert train(words, tmp_path / "run", *CONSTANT) == 143
    assert state(tmp_path / "run")["global_step"] == 5  # the step it was in is not lost
    assert set(rates(tmp_path / "run")) == {1e-3}
    monkeypatch.setattr(Training, "training_step", step)
    assert train(words, tmp_path / "run", *CONSTANT, "--steps", "7") == 0
    assert state(tmp_path / "run")["global_step"] == 7
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_branch_decays_a_copy_and_leaves_the_run_alone(words, tmp_path, small_is_tiny, capsys):
    assert train(words, tmp_path / "run", *CONSTANT, "--steps", "3") == 0
    before = (tmp_path / "run" / "last.ckpt").read_bytes()
    decay = ("--branch", str(tmp_path / "run"), "--schedule", "decay", "--lr", "1e-3", "--steps", "4")
    assert train(words, tmp_path / "branch", *decay) == 0
    assert (tmp_path / "run" / "last.ckpt").read_bytes() == before
    assert state(tmp_path / "branch")["global_step"] == 7
    assert rates(tmp_path / "branch")[0] == pytest.approx(1e-3 * (1 - 0.75**0.5))  # of the last step, at 3 of 4
    assert "7 steps, 28 words" in capsys.readouterr().out
    assert train(words, tmp_path / "branch", *decay) == 0
    assert "this run is complete (4 steps" in capsys.readouterr().out
    first, second = (load_checkpoint(tmp_path / name / "last.ckpt").state_dict() for name in ("run", "branch"))
    assert any(not torch.equal(first[key], second[key]) for key in first)


def test_a_run_that_is_no_branch_is_not_decayed_in_place(words, tmp_path, small_is_tiny, capsys):
    assert train(words, tmp_path / "run", *CONSTANT, "--steps", "3") == 0
    before = (tmp_path / "run" / "last.ckpt").read_bytes()
    decay = ("--branch", str(tmp_path / "run"), "--schedule", "decay", "--steps", "6")
    assert train(words, tmp_path / "run", *decay) == 2
    assert "holds a run that is no branch; choose another --output" in capsys.readouterr().err
    assert (tmp_path / "run" / "last.ckpt").read_bytes() == before


def test_a_run_goes_on_with_the_rates_that_are_asked_for_now(words, tmp_path, small_is_tiny):
    assert train(words, tmp_path / "run", *CONSTANT, "--steps", "3", "--weight-decay", "0.1") == 0
    assert train(words, tmp_path / "run", *CONSTANT, "--steps", "4", "--lr", "5e-4", "--weight-decay", "0.2") == 0
    assert set(rates(tmp_path / "run")) == {5e-4}
    groups = state(tmp_path / "run")["optimizer_states"][0]["param_groups"]
    assert {group["weight_decay"] for group in groups} == {0.0, 0.2}


@pytest.mark.parametrize("seconds, counted", [
    ([1.0, 1.0, 3600.0, 1.0], 3.0),  # stopped once
    ([300.0, 310.0, 290.0, 3600.0, 300.0], 1200.0 - 300.0),  # slow throughout; the first cannot be told from a pause
])  # fmt: skip
def test_time_that_a_run_stood_still_is_no_time_of_training(
    words, tmp_path, small_is_tiny, monkeypatch, seconds, counted
):
    now = [0.0]

    def stepped(self, batch, number):
        now[0] += seconds[number]
        return step(self, batch, number)

    step = Training.training_step
    monkeypatch.setattr(Training, "training_step", stepped)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    assert train(words, tmp_path / "run", *CONSTANT, "--steps", str(len(seconds))) == 0
    assert state(tmp_path / "run")["clip4str_training"]["elapsed"] == counted


def test_rows_that_a_power_cut_spoiled_are_dropped_and_the_others_kept(words, tmp_path, small_is_tiny):
    assert train(words, tmp_path / "run", *CONSTANT, "--steps", "2", "--validate-every", "1") == 0
    log = tmp_path / "run" / "log.csv"
    log.write_bytes(log.read_bytes() + b"2,8\n" + b"\0" * 40)
    assert train(words, tmp_path / "run", *CONSTANT, "--steps", "3", "--validate-every", "1") == 0
    assert [row["step"] for row in read_rows(log)] == [1, 2, 3]


def test_the_state_before_is_kept_as_a_spare(words, tmp_path, small_is_tiny):
    assert train(words, tmp_path / "run", *CONSTANT, "--steps", "3", "--save-minutes", "0") == 0
    spare = torch.load(tmp_path / "run" / "last.1.ckpt", weights_only=True)
    assert (spare["global_step"], state(tmp_path / "run")["global_step"]) == (2, 3)
    assert not list((tmp_path / "run").glob(".*"))


def test_the_cross_modal_branch_learns_from_every_so_many_th_batch(words, tmp_path, small_is_tiny, monkeypatch):
    seen, losses = [], module.psm_losses

    def watched(network, memory, tokens, orders, cross, alone):
        seen.append((cross, alone))
        return losses(network, memory, tokens, orders, cross, alone)

    monkeypatch.setattr(module, "psm_losses", watched)
    assert train(words, tmp_path / "run", *CONSTANT, "--steps", "5", "--cross-every", "2") == 0
    assert seen == [(True, False), (False, False), (True, False), (False, False), (True, False)]


def test_alone_is_handed_on(words, tmp_path, small_is_tiny, monkeypatch):
    seen, losses = [], module.psm_losses
    monkeypatch.setattr(module, "psm_losses", lambda *given: seen.append(given[-1]) or losses(*given))
    assert train(words, tmp_path / "run", *CONSTANT, "--steps", "2", "--alone") == 0
    assert seen == [True, True]


@pytest.mark.parametrize("options, message", [
    (("--schedule", "decay", "--steps", "2"), "name it, --branch RUN"),
    (("--schedule", "decay", "--steps", "2", "--branch", "absent"), "holds no run"),
    (("--schedule", "constant", "--cross-start", "0.5"), "a constant one has no end"),
    (("--schedule", "constant", "--cross-every", "0"), "--cross-every is at least 1"),
])  # fmt: skip
def test_mistakes_are_one_line(words, tmp_path, small_is_tiny, capsys, options, message):
    assert train(words, tmp_path / "run", *options) == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]


def test_on_a_cpu_the_faster_precision_is_taken_and_all_processes_take_the_same(monkeypatch):
    from clip4str.training import train as script

    args = script.parser("").parse_args(["--output", "x", "--accelerator", "cpu"])
    for pays, wanted in ((True, "bf16-mixed"), (False, "32")):
        monkeypatch.delenv("CLIP4STR_PRECISION", raising=False)
        monkeypatch.setattr(script, "bfloat16_pays", lambda pays=pays: pays)
        assert script.precision(args) == wanted
        monkeypatch.setattr(script, "bfloat16_pays", lambda pays=pays: not pays)
        assert script.precision(args) == wanted  # as a process does that the first one has started
    assert (
        script.precision(script.parser("").parse_args(["--output", "x", "--precision", "bf16-mixed"])) == "bf16-mixed"
    )
    monkeypatch.undo()
    assert script.bfloat16_pays() in (True, False)


def test_told_to_stop_as_a_group_a_run_with_workers_saves_and_ends(words, tmp_path):
    """As a script in a process group of its own: its workers neither die first nor keep it from ending."""
    command = [sys.executable, "-c", TINY_RUN, "--data", str(words), "--output", str(tmp_path / "run"), "--batch", "2",
               "--workers", "1", "--threads", "1", "--accelerator", "cpu", "--precision", "32", *CONSTANT]  # fmt: skip
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as run:
        log = tmp_path / "run" / "log.csv"
        end = time.monotonic() + 240
        while not log.exists() and time.monotonic() < end:  # its first row comes after a step
            time.sleep(0.2)
        os.killpg(run.pid, signal.SIGTERM)
        error = run.communicate(timeout=60)[1]
    assert run.returncode == 143, error[-2000:]
    assert state(tmp_path / "run")["global_step"] >= 1 and "stopped and saved" in error
