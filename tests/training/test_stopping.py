"""What a run keeps when it is told to end: by SIGTERM, to it alone or to all its processes, in the middle of a step."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny import train

from clip4str.training.module import Training


@pytest.fixture
def told_to_end(monkeypatch):
    """told_to_end(batch, everyone): a SIGTERM while batch `batch` is learned from."""

    def at(batch: int, everyone: bool = False) -> None:
        step, count = Training.training_step, iter(range(10**6))

        def stepped(self, *arguments):
            if next(count) == batch:
                for child in multiprocessing.active_children() if everyone else ():
                    os.kill(child.pid, signal.SIGTERM)
                os.kill(os.getpid(), signal.SIGTERM)
            return step(self, *arguments)

        monkeypatch.setattr(Training, "training_step", stepped)

    return at


def saved_step(run) -> int:
    return torch.load(run / "last.ckpt", weights_only=True)["global_step"]


def test_sigterm_saves_says_so_and_is_no_success(words, tmp_path, small_is_tiny, told_to_end, capsys):
    told_to_end(2)
    assert train(words, tmp_path / "run", "--steps", "50") == 143
    assert saved_step(tmp_path / "run") == 3 and (tmp_path / "run" / "model.safetensors").is_file()
    out, error = capsys.readouterr()
    assert "stopped and saved at step 3; the same command goes on" in error and "done:" not in out


def test_sigterm_to_the_workers_too_as_a_container_ends_is_saved(words, tmp_path, small_is_tiny, told_to_end, capsys):
    told_to_end(2, everyone=True)
    assert train(words, tmp_path / "run", "--steps", "50", "--workers", "2") == 143
    assert saved_step(tmp_path / "run") == 3
    assert "is killed by signal" not in capsys.readouterr().err


STREAM = """
import sys, torch
from clip4str.training.workers import end_workers, leave_stopping_to_the_parent

class Endless(torch.utils.data.IterableDataset):
    def __iter__(self):
        while True:
            yield torch.zeros(10)

loader = torch.utils.data.DataLoader(Endless(), batch_size=None, num_workers=1, prefetch_factor=4,
                                     persistent_workers=True, worker_init_fn=leave_stopping_to_the_parent)
next(iter(loader))
if sys.argv[1:]:
    end_workers(loader)
"""


def test_a_process_that_has_ended_its_workers_ends(tmp_path):
    """Without that it waits for them for ever: the second of two processes of a run did, after the run was complete."""
    (tmp_path / "stream.py").write_text(STREAM)
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, str(tmp_path / "stream.py"), "end"]
    done = subprocess.run(command, cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, timeout=120)
    assert done.returncode == 0


def test_a_run_that_is_complete_leaves_no_process_behind(words, tmp_path, small_is_tiny):
    before = set(multiprocessing.active_children())
    assert train(words, tmp_path / "run", "--steps", "2", "--workers", "2") == 0
    assert set(multiprocessing.active_children()) == before


def test_sigterm_is_not_kept_waiting_by_collected_gradients(words, tmp_path, small_is_tiny, told_to_end, capsys):
    told_to_end(7)
    assert train(words, tmp_path / "run", "--steps", "50", "--accumulate", "5") == 143
    assert saved_step(tmp_path / "run") == 1
    assert train(words, tmp_path / "run", "--steps", "2", "--accumulate", "5") == 0
    assert "2 steps, " in capsys.readouterr().out


def test_a_state_with_a_byte_that_changed_is_one_line_and_the_one_before_is_named(
    words, tmp_path, small_is_tiny, capsys
):
    run = tmp_path / "run"
    assert train(words, run, "--steps", "2", "--save-minutes", "0") == 0
    whole = (run / "last.ckpt").read_bytes()
    for damaged in (whole[: len(whole) // 2], bytearray(whole), b""):
        if isinstance(damaged, bytearray):
            damaged[len(whole) // 2] ^= 1
        (run / "last.ckpt").write_bytes(damaged)
        capsys.readouterr()
        assert train(words, run, "--steps", "3") == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert (
            "last.ckpt: damaged" in error and f"put {run / 'last.1.ckpt'}, the state before it, in its place" in error
        )
    os.replace(run / "last.1.ckpt", run / "last.ckpt")
    assert train(words, run, "--steps", "3") == 0


def test_a_disk_that_is_full_is_one_line(words, tmp_path, small_is_tiny, monkeypatch, capsys):
    def full(*_, **__):
        raise RuntimeError("[enforce fail at inline_container.cc:668] . unexpected pos 64 vs 0\nmore")

    monkeypatch.setattr("lightning.Trainer.save_checkpoint", full)
    assert train(words, tmp_path / "run", "--steps", "1") == 2
    error = capsys.readouterr().err
    assert "run: the run cannot be saved ([enforce fail" in error and "Traceback" not in error
    assert not (tmp_path / "run" / "last.ckpt").exists()
