"""The long run as its commands drive it: one start, pauses, kills at any moment, the right processes and no others.

Training itself is stood in for by stand_in.py, but in the last tests.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from tiny import TINY, tiny_network, write_lmdb

from clip4str.model import load_checkpoint, save_checkpoint

if sys.platform != "linux":
    pytest.skip("the run needs Linux", allow_module_level=True)

from clip4str.training.network import processes
from clip4str.training.network.states import read_state
from clip4str.training.network_run import parser

ROOT = Path(__file__).resolve().parents[2]
PROVIDE = """import argparse, pathlib, sys
p = argparse.ArgumentParser(); p.add_argument("--folder"); p.add_argument("--fail", action="store_true")
args = p.parse_args()
if args.fail: sys.exit("no fonts anywhere")
(pathlib.Path(args.folder) / "atlas").write_text("built")
"""
RECIPE = "[train]\n--atlas {data}/atlas\n[provide]\n--folder {data}\n"
GIT = ("git", "-c", "user.name=tester", "-c", "user.email=tester@localhost")


class Project:
    """A small project of its own with the working tree's code, and the run beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder / "project", folder / "network"
        for room in ("clip4str", "core", "data", "model", "runtime", "training", "benchmarks"):
            shutil.copytree(ROOT / room, self.folder / room, symlinks=True, ignore=_unneeded)
        weights = self.folder / "model/bundled/tiny"
        weights.mkdir(parents=True)
        save_checkpoint(tiny_network(), weights / "weights.safetensors")
        self.words = write_lmdb(folder / "shared/data/train/real/words", ["stop", "Exit", "24", "taxi"] * 12)
        shutil.copy(Path(__file__).with_name("stand_in.py"), self.folder / "training/train.py")
        (self.folder / "training/provide.py").write_text(PROVIDE)
        self.commit(RECIPE, "init")

    def commit(self, recipe: str, *first: str) -> str:
        (self.folder / "training/network.args").write_text(recipe)
        steps = ([*first, "-q"],) * bool(first) + (["add", "-A", "-f"], ["commit", "-q", "-m", "as it is"])
        for arguments in (*steps, ["rev-parse", "HEAD"]):
            done = subprocess.run([*GIT, *arguments], cwd=self.folder, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, str(self.folder / "training/network_run.py"), *arguments]

    def environment(self) -> dict[str, str]:
        ours = ("CLIP4STR_NETWORK", "CLIP4STR_WORDS", "CLIP4STR_PHOTOS")
        kept = {k: v for k, v in os.environ.items() if k not in ours}
        return {**kept, "PYTHONPATH": str(self.folder), "OMP_NUM_THREADS": "1"}

    def call(self, *arguments: str, code: int = 0) -> str:
        """What a command prints; its exit code must be `code`."""
        nice = ("--nice", "0") if arguments[0] == "run" else ()
        done = subprocess.run(self.command(*arguments, *nice), env=self.environment(), capture_output=True, text=True,
                              timeout=200)  # fmt: skip
        assert done.returncode == code, (done.stdout, done.stderr, self.text("output.txt"))
        assert code != 2 or len(done.stderr.strip().splitlines()) == 1
        return done.stdout + done.stderr

    def text(self, name: str) -> str:
        path = self.home / name
        return path.read_text() if path.exists() else ""

    def pid(self) -> int:
        return int(json.loads(self.text("process.json"))["pid"])

    def step(self) -> int:
        rows = self.text("run/log.csv").splitlines()[1:]
        return int(rows[-1].split(",")[0]) if rows and rows[-1].count(",") >= 7 else 0

    def begun(self) -> list[int]:
        """Steps that training began at, one for each start."""
        return [int(step) for step in re.findall(r"begins at step (\d+)", self.text("output.txt"))]

    def saved(self) -> int:
        return int((self.text("run/steps.txt").split() or ["0"])[-1])

    def free(self) -> bool:
        return not processes.lock_held(self.home / "lock")


def _unneeded(folder: str, names: list[str]) -> set[str]:
    pictures = {name for name in names if Path(name).suffix in (".png", ".jpg")}
    return pictures | {"__pycache__", "bundled", "results"} & set(names)


def wait_until(happens: Callable[[], object], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


@pytest.fixture
def project(tmp_path) -> Iterator[Project]:
    project = Project(tmp_path)
    yield project
    for _ in range(100):
        if project.free():
            break
        for each in processes.members(project.pid()):
            processes.send(each.pid, signal.SIGKILL)
        time.sleep(0.1)


def test_given_twice_at_once_or_later_it_starts_one_run(project):
    both = [subprocess.Popen(project.command("run", "--nice", "1"), env=project.environment(), stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True) for _ in range(2)]  # fmt: skip
    said = [process.communicate(timeout=200)[0] for process in both]
    assert sorted(process.returncode for process in both)[0] == 0
    assert sum("started: process" in text for text in said) == 1
    wait_until(lambda: project.step() > 3)
    pid = project.pid()
    assert f"already running (process {pid} since " in project.call("run")
    assert project.pid() == pid and project.begun() == [0]
    assert project.text("data/atlas") == "built"
    assert "building atlas" in project.text("network.log")
    shown = project.call("status", "--no-chart")
    assert "running: process" in shown and "held out  visual: 50.0 %" in shown and "123 words/s" in shown
    assert os.getpriority(os.PRIO_PROCESS, pid) == 1 and parser().parse_args(["run"]).nice == 19
    assert os.getsid(pid) == pid != os.getsid(0)  # what ends this session does not reach it


KILLED = """import os, pathlib
from clip4str.training import network_run
from clip4str.training.network import processes
assert pathlib.Path(network_run.__file__).is_relative_to(pathlib.Path(__file__).parent)
processes.write_keeper = lambda *_: os.kill(os.getpid(), 9)
network_run.main(["run"])
"""


def test_a_run_whose_start_was_killed_before_it_was_written_down_is_found(project):
    script = project.folder / "killed.py"  # in its folder, so that no other clip4str is imported
    script.write_text(KILLED)
    done = subprocess.run([sys.executable, str(script)], env=project.environment(), timeout=200)
    assert done.returncode == -signal.SIGKILL
    wait_until(lambda: project.step() > 1)
    assert "already running (process" in project.call("run")
    assert "stopped" in project.call("stop") and project.free()


def test_paused_processes_stand_still_until_resumed(project):
    project.call("run")
    worker = project.home / "run/worker.txt"
    wait_until(lambda: project.step() > 3 and worker.exists())
    assert "paused, 3 processes" in project.call("pause")
    assert {p.state for p in processes.members(project.pid())} == {"T"}
    before = (project.step(), worker.stat().st_size)
    time.sleep(0.5)
    assert (project.step(), worker.stat().st_size) == before
    assert "paused: process" in project.call("status", "--no-chart", code=1)
    assert "already paused: make network-resume" in project.call("run")
    project.call("resume")
    wait_until(lambda: project.step() > before[0] and worker.stat().st_size > before[1])


@pytest.mark.parametrize("how", ["stop", "stop while paused", "SIGTERM to the group", "SIGTERM to training"])
def test_stopped_it_has_saved_its_last_step(project, how):
    project.call("run")
    wait_until(lambda: project.step() > 7)
    pid = project.pid()
    if how == "stop while paused":
        project.call("pause")
    if how.startswith("stop"):
        assert "stopped; " in project.call("stop")
    elif how == "SIGTERM to the group":
        os.killpg(pid, signal.SIGTERM)
    else:
        training = next(p.pid for p in processes.members(pid) if p.parent == pid)
        os.kill(training, signal.SIGTERM)
    wait_until(project.free)
    assert not processes.members(pid)
    state = read_state(project.home / "run/last.ckpt")
    assert state.step == project.step() == project.saved() and state.words == 10 * state.step
    assert "stopped" in project.call("status", "--no-chart", code=1)
    assert "not running" in project.call("stop") and "nothing to pause" in project.call("pause")
    assert "goes on from step" in project.call("run")
    wait_until(lambda: len(project.begun()) == 2)
    assert project.begun()[1] == state.step


def test_killed_at_random_moments_it_goes_on_from_its_last_state(project):
    rng = random.Random(5)
    for _ in range(3):
        project.call("run")
        started = len(project.begun())
        wait_until(lambda: project.saved() > 0 and len(project.begun()) >= max(1, started))  # noqa: B023
        time.sleep(rng.random())
        saved = project.saved()
        os.killpg(project.pid(), signal.SIGKILL)
        wait_until(project.free)
        assert "stopped" in project.call("status", "--no-chart", code=1)
        assert read_state(project.home / "run/last.ckpt").step >= saved
    project.call("run")
    wait_until(lambda: len(project.begun()) == 4)
    assert project.begun() == sorted(project.begun()) and project.begun()[-1] >= 5


def test_training_whose_keeper_is_killed_saves_and_ends(project):
    project.call("run")
    wait_until(lambda: project.step() > 2)
    os.kill(project.pid(), signal.SIGKILL)
    wait_until(project.free)
    wait_until(lambda: not processes.members(project.pid()))
    assert read_state(project.home / "run/last.ckpt").step == project.step()


@pytest.mark.parametrize("trap", ["lock free", "lock held, process number used again"])
def test_a_process_of_others_is_never_signalled(project, trap):
    project.home.mkdir()
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as stranger:
        start = processes.process(stranger.pid).start
        lock = processes.take_lock(project.home / "lock")
        if trap == "lock free":
            os.close(lock)
        else:
            start += 1
        keeper = {"pid": stranger.pid, "start": start, "since": 0.0, "commit": ""}
        (project.home / "process.json").write_text(json.dumps(keeper))
        code = 0 if trap == "lock free" else 2
        for command in ("pause", "stop"):
            assert ("not running" if not code else "try again") in project.call(command, code=code)
        assert processes.process(stranger.pid).state == "S"
        stranger.kill()
    if code:
        os.close(lock)


def test_it_runs_the_commit_it_began_with_until_it_is_moved(project):
    project.call("run")
    second = project.commit(RECIPE + "# changed\n")
    assert "moves only when it is stopped" in project.call("run", "--commit", "HEAD", code=2)
    project.call("stop")
    assert "--commit HEAD moves it" in project.call("run")
    assert "# changed" not in (project.home / "checkout/training/network.args").read_text()
    project.call("stop")
    assert second[:10] in project.call("run", "--commit", "HEAD")
    assert "# changed" in (project.home / "checkout/training/network.args").read_text()
    assert second[:10] in project.call("status", "--no-chart")
    assert "already running" in project.call("run", "--commit", second)
    project.call("stop")
    assert "nonsense is no commit of it" in project.call("run", "--commit", "nonsense", code=2)


def test_what_cannot_start_says_why_in_one_line(project):
    assert "never started" in project.call("status", code=1)
    project.commit(RECIPE.replace("{data}\n", "{data} --fail\n"))
    assert "no fonts anywhere" in project.call("run", code=1)
    assert "no fonts anywhere" in project.call("status", "--no-chart", code=1)
    project.commit("[train\n")
    assert "options before the first section" in project.call("run", "--commit", "HEAD", code=2)
    shutil.rmtree(project.folder / ".git")
    shutil.rmtree(project.home)
    assert "no git checkout" in project.call("run", code=2)
    shutil.rmtree(project.home)
    project.home.write_text("a file where the folder should be")
    assert "network: File exists" in project.call("run", code=2)
    project.home.unlink()


NETWORK = ("image_size=16x64,patch_size=16x4,image_width=64,image_layers=2,text_width=64,text_layers=1,"
           "text_positions=16,vocabulary=600,d=64,decoder_mlp=128")  # fmt: skip


@pytest.mark.parametrize("devices, kills", [(1, 1), pytest.param(2, 3, marks=pytest.mark.slow)], ids=["single", "ddp"])
def test_a_real_run_survives_kills_and_ends_when_told(project, devices, kills):
    shutil.copy(ROOT / "training/train.py", project.folder / "training/train.py")
    project.commit(
        f"[train]\n--network {NETWORK} --batch 4 --accelerator cpu --threads 1 --precision 32 --orders 2\n"
        f"--save-minutes 0.002 --validate-every 50 --minutes 1000 --devices {devices} --workers 1\n"
        "[real]\n--data {real}\n"
    )
    last, rng = project.home / "run/last.ckpt", random.Random(7)
    steps = [0]
    for _ in range(kills):
        project.call("run")
        mark = last.stat().st_ino if last.exists() else 0
        wait_until(lambda: last.exists() and last.stat().st_ino != mark)  # noqa: B023
        time.sleep(rng.random())
        os.killpg(project.pid(), signal.SIGKILL)
        wait_until(project.free)
        steps.append(read_state(last).step)
    assert steps == sorted(set(steps))
    project.call("run")
    wait_until(lambda: read_state(last).step > steps[-1])
    os.killpg(project.pid(), signal.SIGTERM)
    wait_until(project.free)
    assert read_state(last).step > steps[-1]
    assert load_checkpoint(project.home / "run/model.safetensors").config.d == TINY.d
    assert torch.load(last, weights_only=True)["global_step"] > 0
