"""A child process in which strangers' files are opened: bounded memory and time, and a death is an answer like others.

    python tests/hostile/guard.py DOOR FILE ...     what opening each of the files comes to

Linux alone: what a file took is read from /proc.
"""

from __future__ import annotations

import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

ROOT = Path(__file__).resolve().parents[2]
WALL = 2 << 30  # bytes of address space beyond what the child has once it is warm: protects the machine, no budget
WAIT = 6  # times the seconds allowed that may pass by the clock: other work may have the cores


@dataclass(frozen=True)
class Outcome:
    """What opening one file came to.

    how: "answered", "refused" (an error of the project's own), "escaped" (any other) or "killed" (by what, in error).
    error: its type, and message. seconds: of a processor. memory: bytes resident at the peak beyond those before.
    starved: an allocation failed on the way, whatever became of it.
    """

    how: str
    error: str = ""
    message: str = ""
    seconds: float = 0.0
    memory: int = 0
    starved: bool = False
    trace: tuple[str, ...] = ()


def observed(call: Callable[[], object]) -> Outcome:
    """Runs it here, in this process, and says what came of it."""
    from clip4str.core.errors import Clip4StrError

    forget_peak()
    before, start = resident("VmRSS"), time.process_time()
    how, error, message, starved, trace = "answered", "", "", False, ()
    try:
        with redirect_stdout(io.StringIO()):
            message = str(call())
    except Exception as raised:
        how = "refused" if isinstance(raised, Clip4StrError) else "escaped"
        error, message, starved = type(raised).__name__, str(raised), any(map(_out_of_memory, chain(raised)))
        trace = tuple(places(raised))
    seconds = time.process_time() - start
    return Outcome(how, error, message, seconds, max(0, resident("VmHWM") - before), starved, trace)


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those that it was raised in place of."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def places(error: BaseException) -> Iterator[str]:
    """file:line of the innermost frames."""
    trace = error.__traceback__
    found = []
    while trace is not None:
        found.append(f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}")
        trace = trace.tb_next
    yield from found[-3:]


def _out_of_memory(error: BaseException) -> bool:
    said = str(error).lower()
    return isinstance(error, MemoryError) or any(
        words in said for words in ("bad_alloc", "bad allocation", "can't allocate memory", "failed to allocate memory")
    )


def resident(which: str) -> int:
    """Bytes: VmRSS now, VmHWM at the peak since `forget_peak`."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(which):
            return 1024 * int(line.split()[1])
    raise LookupError(which)


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def build_walls() -> None:
    """From now on this process gets no more address space than WALL."""
    now = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmSize"))
    limit = 1024 * int(now.split()[1]) + WALL
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def watch(seconds: float) -> None:
    """The system kills this process after so many seconds of a processor, or WAIT times as many by the clock; 0: no
    longer. What runs in C is killed, too."""
    for timer, often, number in (
        (signal.ITIMER_PROF, 1, signal.SIGPROF),
        (signal.ITIMER_REAL, WAIT, signal.SIGALRM),
    ):
        signal.signal(number, signal.SIG_DFL)
        signal.setitimer(timer, often * seconds)


class Guard:
    """Files through one door, in a child process that starts anew after a death. folder: where it works, empty."""

    def __init__(self, door: str) -> None:
        self.door, self.folder = door, Path(tempfile.mkdtemp(prefix="clip4str-guard-"))
        self._child: subprocess.Popen[str] | None = None

    def open(self, path: Path) -> Outcome:
        child = self._child or self._start()
        child.stdin.write(f"{json.dumps(str(path))}\n")
        child.stdin.flush()
        line = child.stdout.readline()
        if line:
            said = json.loads(line)
            return Outcome(**{**said, "trace": tuple(said["trace"])})
        self._child = None
        return killed(child.wait())

    def _start(self) -> subprocess.Popen[str]:
        known = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        child = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve()), "--serve", self.door], cwd=self.folder, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": known},
        )  # fmt: skip
        self._child = child
        if child.stdout.readline() != "ready\n":
            raise RuntimeError(f"the child of {self.door} ended before it was ready, {child.wait()}")
        return child

    def __enter__(self) -> Guard:
        return self

    def __exit__(self, *_: object) -> None:
        if self._child is not None:
            self._child.communicate()
        shutil.rmtree(self.folder)


def killed(status: int) -> Outcome:
    """Of a child that ended by itself."""
    name = signal.Signals(-status).name if status < 0 else f"exit code {status}"
    hung = name in ("SIGPROF", "SIGALRM")
    return Outcome("killed", name, "took longer than it may" if hung else "ended the process")


def serve(name: str, paths: Iterable[str], say: Callable[[str], Any]) -> None:
    """In the child: open what is named, say what came of it."""
    from doors import DOORS

    door = DOORS[name]
    door.warm_up()
    build_walls()
    say("ready")
    for line in paths:
        path = Path(json.loads(line))
        watch(4 * door.seconds)  # what takes longer than it may is measured, what takes far longer is killed
        outcome = observed(lambda path=path: door.open(path))
        watch(0)
        say(json.dumps(asdict(outcome)))


def main(argv: list[str]) -> int:
    if argv[:1] == ["--serve"]:
        answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # what a library prints must not be taken for an answer
        serve(argv[1], sys.stdin, lambda line: print(line, file=answers, flush=True))
        return 0
    with Guard(argv[0]) as guard:
        for path in argv[1:]:
            print(path, guard.open(Path(path).absolute()), sep="\n  ")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
