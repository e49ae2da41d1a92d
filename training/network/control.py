"""Start, pause, resume, stop: what the commands do, each safe to give at any time, and twice."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from datetime import datetime
from importlib.util import find_spec

from clip4str.core.errors import UsageError
from clip4str.training.run_log import read_rows

from . import checkout, processes
from .keeper import check_recipe
from .places import LEAST_FREE, Places
from .processes import Keeper
from .progress import millions
from .states import read_start

_NEEDED = ("torch", "lightning", "lmdb", "safetensors")


def run(places: Places, revision: str | None, niceness: int = 19, patience: float = 30.0) -> int:
    """Start or continue the run in the background, and say what it begins with. 0 also where it is running already."""
    lacking = [name for name in _NEEDED if find_spec(name) is None]
    if lacking:
        raise UsageError(f"{sys.executable} lacks {', '.join(lacking)}: make setup")
    places.home.mkdir(parents=True, exist_ok=True)
    lock = processes.take_lock(places.lock)
    if lock is None:
        return _already(places, revision)
    try:
        free = shutil.disk_usage(places.home).free
        if free < LEAST_FREE:
            raise UsageError(f"{places.home}: {free / 2**20:.0f} MiB free, a run needs {LEAST_FREE / 2**20:.0f}")
        places.process.unlink(missing_ok=True)
        places.failed.unlink(missing_ok=True)
        commit = checkout.place(places, revision)
        check_recipe(places)
        _say_what_is_left_out(places, commit)
        size = places.log.stat().st_size if places.log.exists() else 0
        places.note(f"run: commit {commit}")
        child = _start(places, lock, niceness)
        processes.write_keeper(places, child.pid, commit.sha)
    finally:
        os.close(lock)  # the child's copy holds on to it
    return _watch(places, child, size, patience)


def _start(places: Places, lock: int, niceness: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(places.checkout / checkout.NEEDED), "keep", "--lock", str(lock),
               "--nice", str(niceness)]  # fmt: skip
    with places.output.open("ab") as output:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            cwd=places.home, env=places.environment(), pass_fds=(lock,), start_new_session=True,
        )  # fmt: skip


def _watch(places: Places, child: subprocess.Popen[bytes], size: int, patience: float) -> int:
    """Shows the log until training begins, or for `patience` seconds."""
    print(f"started: process {child.pid}, log {places.log}", flush=True)
    end = time.monotonic() + patience
    shown = size
    while time.monotonic() < end:
        ended = child.poll() is not None
        with places.log.open("rb") as file:
            file.seek(shown)
            lines = file.read().decode(errors="replace")
        lines = lines[: lines.rfind("\n") + 1]
        shown += len(lines.encode())
        print(lines, end="", flush=True)
        if ended:
            return 1 if places.failed.exists() or child.returncode else 0
        if "training begins" in lines:
            return 0
        time.sleep(0.1)
    return 0


def _already(places: Places, revision: str | None) -> int:
    keeper = processes.running(places)
    if keeper is None:  # it ended just now
        raise UsageError("the run has just ended; give the command again")
    if revision is not None and checkout.commit_of(places.project, revision).sha != keeper.commit:
        raise UsageError(
            f"the run is at commit {keeper.commit[:10]} and moves only when it is stopped: make network-stop"
        )
    how = "paused: make network-resume goes on" if processes.stopped(keeper) else "running"
    print(f"already {how} ({since(keeper)}, {seen(places)})")
    return 0


def _say_what_is_left_out(places: Places, commit: checkout.Commit) -> None:
    try:
        head = checkout.commit_of(places.project)
        dirty = checkout.uncommitted(places)
    except UsageError:  # the project need not be a git checkout any more
        return
    if head.sha != commit.sha:
        print(f"runs commit {commit}; the project is at {head}: --commit HEAD moves it (make network-run COMMIT=HEAD)")
    elif dirty:
        print(f"runs commit {commit}: changes that are not committed are not part of it")


def pause(places: Places) -> int:
    keeper = processes.running(places)
    if keeper is None:
        print("not running: nothing to pause")
        return 0
    print(f"paused, {processes.pause(keeper)} processes (make network-resume goes on)")
    return 0


def resume(places: Places) -> int:
    keeper = processes.running(places)
    if keeper is None:
        print("not running: make network-run goes on from its last state")
        return 1
    print(f"going on, {processes.resume(keeper)} processes")
    return 0


def stop(places: Places, patience: float) -> int:
    """SIGTERM: the state is saved. Whoever does not end within `patience` seconds is killed."""
    keeper = processes.running(places)
    if keeper is None:
        print("not running")
        return 0
    leader = processes.process(keeper.pid)
    told = [keeper.pid] if leader else [p.pid for p in processes.members(keeper.pid)]
    for pid in told:
        processes.send(pid, signal.SIGTERM)
    processes.resume(keeper)  # what is paused hears nothing
    processes.hurry(keeper)
    end = time.monotonic() + patience
    while processes.lock_held(places.lock) and time.monotonic() < end:
        time.sleep(0.1)
    killed = processes.kill(keeper) if processes.lock_held(places.lock) else 0
    places.process.unlink(missing_ok=True)
    how = f"did not end within {patience:.0f} s and was killed" if killed else "stopped"
    print(f"{how}; {seen(places)}; make network-run goes on")
    return 0


def since(keeper: Keeper) -> str:
    return f"process {keeper.pid} since {datetime.fromtimestamp(keeper.since):%Y-%m-%d %H:%M}"


def seen(places: Places) -> str:
    """Words seen, by the log."""
    rows = read_rows(places.run / "log.csv")
    words, before = (rows[-1]["words"] if rows else 0), read_start(places.run).words
    return f"{millions(words)} words seen in this run, {millions(before + words)} in all"
