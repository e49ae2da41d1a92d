"""Which processes the run has, told from any others: a lock that they hold, their session, when they began. Linux.

The keeper leads a session of its own; training, its second process, and the loaders' workers belong to it. Keeper and
training hold the lock for as long as they live, so while it is held the session's number cannot have been given to
strangers, and when it is free nothing is ever signalled.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from clip4str.core.errors import UsageError
from clip4str.core.output_files import write_json

from .places import Places

_PR_SET_PDEATHSIG = 1
_C = ctypes.CDLL(None)


@dataclass(frozen=True)
class Process:
    """A line of /proc. state: one letter, T for stopped, Z for a zombie. start: clock ticks since the machine began."""

    pid: int
    parent: int
    session: int
    state: str
    start: int


@dataclass(frozen=True)
class Keeper:
    """The process that keeps the run going, as it was started. since: seconds since the epoch."""

    pid: int
    start: int
    since: float
    commit: str


def process(pid: int) -> Process | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return Process(pid, int(fields[1]), int(fields[3]), fields[0], int(fields[19]))


def members(session: int) -> list[Process]:
    """All living processes of a session, and their descendants."""
    alive = [p for entry in Path("/proc").iterdir() if entry.name.isdecimal() and (p := process(int(entry.name)))]
    ours = {p.pid for p in alive if p.session == session}
    while more := {p.pid for p in alive if p.parent in ours} - ours:
        ours |= more
    return [p for p in alive if p.pid in ours and p.state not in "ZX"]


def take_lock(path: Path, patience: float = 0.5) -> int | None:
    """The lock's open file, which children may inherit; None if another holds it."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    end = time.monotonic() + patience  # someone may only be asking whether it is held
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except BlockingIOError:
            if time.monotonic() > end:
                os.close(file)
                return None
            time.sleep(0.05)


def lock_held(path: Path) -> bool:
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(file)


def write_keeper(places: Places, pid: int, commit: str) -> Keeper | None:
    """Write down the process just started; None if it has ended already."""
    found = process(pid)
    if found is None:
        return None
    keeper = Keeper(pid, found.start, time.time(), commit)
    write_json(places.process, asdict(keeper))
    return keeper


def keeper_of(places: Places) -> Keeper | None:
    """Who keeps the run going now. None if it is not running, or another command is just starting it."""
    try:
        keeper = Keeper(**json.loads(places.process.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    leader = process(keeper.pid)
    stranger = leader is not None and leader.start != keeper.start
    return None if stranger or not lock_held(places.lock) else keeper


def running(places: Places) -> Keeper | None:
    """As keeper_of. Raises UsageError where another command is just starting the run."""
    keeper = keeper_of(places)
    if keeper is None and lock_held(places.lock):
        raise UsageError("another command is just starting the run, or carrying it; try again in a moment")
    return keeper


def stopped(keeper: Keeper) -> bool:
    """Whether all of the run's processes are paused."""
    alive = members(keeper.pid)
    return bool(alive) and all(p.state in "Tt" for p in alive)


def pause(keeper: Keeper, patience: float = 10.0) -> int:
    """Stop signals to all, those just born included; how many there are. Raises UsageError if one goes on."""
    return _until(keeper, signal.SIGSTOP, lambda state: state in "Tt", patience, "could not be paused")


def resume(keeper: Keeper, patience: float = 10.0) -> int:
    """As pause."""
    return _until(keeper, signal.SIGCONT, lambda state: state not in "Tt", patience, "could not be resumed")


def kill(keeper: Keeper, patience: float = 10.0) -> int:
    """As pause, for good."""
    return _until(keeper, signal.SIGKILL, lambda state: False, patience, "could not be killed")


def _until(
    keeper: Keeper, number: signal.Signals, done: Callable[[str], bool], patience: float, failure: str
) -> int:  # fmt: skip
    end = time.monotonic() + patience
    while left := [p for p in members(keeper.pid) if not done(p.state)]:
        if time.monotonic() > end:
            raise UsageError(f"process {left[0].pid} {failure} within {patience:.0f} s")
        for each in left:
            send(each.pid, number)
        time.sleep(0.05)
    return len(members(keeper.pid))


def send(pid: int, number: signal.Signals) -> None:
    """A signal to a process that may just have ended."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def die_with_parent() -> None:
    """In a child before it runs: whoever loses its keeper is told to save and end. prctl(2)."""
    _C.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def step_back(niceness: int) -> None:
    """Low priority for this process and its children: other work on the machine comes first. niceness: 0 to 19."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, niceness)
    # Where sessions share the processor among them, the niceness of one process counts within its session only.
    _tell("autogroup", str(niceness))
    _tell("oom_score_adj", "500")  # the first to go where memory runs out; it goes on from its state
    ionice = shutil.which("ionice")
    if ionice:
        subprocess.run([ionice, "-c", "3", "-p", str(os.getpid())], capture_output=True)


def hurry(keeper: Keeper) -> None:
    """Ordinary priority for who is to save and end, where that is allowed: on a busy machine it would take minutes."""
    for each in members(keeper.pid):
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, each.pid, 0)
    _tell("autogroup", "0", str(keeper.pid))


def _tell(name: str, value: str, pid: str = "self") -> None:
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/{name}").write_text(value)
