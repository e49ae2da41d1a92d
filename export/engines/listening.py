"""What TensorRT says while it builds, how far it is, and stopping it.

TensorRT keeps a pointer to the first logger of a process for good, and calls both logger and monitor from threads of
its own, through C++ that no exception may cross.
"""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from clip4str.core.errors import first_line

T = TypeVar("T")
_LAYERS = "Layers:"
_ERRORS = ("INTERNAL_ERROR", "ERROR")


class Listener:
    """Of one stage's build. tell gets every message, where it is given.

    layers: TensorRT's list of the engine's layers, as text. complaints: number of errors and warnings so far.
    """

    def __init__(self, tell: Callable[[str], object] | None = None) -> None:
        self.stop = threading.Event()
        self.layers = ""
        self.complaints = 0
        self.broken: BaseException | None = None
        self._tell = tell
        self._errors: deque[str] = deque(maxlen=8)
        self._warnings: deque[str] = deque(maxlen=8)

    def hear(self, severity: str, message: str) -> None:
        """A message. What goes wrong in here stops the build and is raised after it."""
        try:
            if severity in _ERRORS:
                self.complaints += 1
                self._errors.append(message)
            elif severity == "WARNING":
                self.complaints += 1
                self._warnings.append(message)
            elif message.startswith(_LAYERS):
                self.layers = message
            if self._tell is not None:
                for line in message.splitlines():
                    self._tell(f"[{severity[0]}] {line}")
        except BaseException as error:
            self.broken = error
            self.stop.set()

    @property
    def reason(self) -> str:
        """The last error, else the last warning, on one line."""
        for messages in (self._errors, self._warnings):
            if messages:
                return one_line(messages[-1])
        return "it does not say why"


def monitor_of(library: Any, listener: Listener, moved: Callable[[float], object]) -> Any:
    """A progress monitor: moved gets the share that is done, and the build ends once listener.stop is set."""
    progress = Progress()

    class Monitor(library.IProgressMonitor):
        def __init__(self) -> None:
            library.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            progress.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            try:
                moved(progress.step(phase_name, step))
            except BaseException as error:
                listener.broken = error
                listener.stop.set()
            return not listener.stop.is_set()

        def phase_finish(self, phase_name: str) -> None:
            progress.finish(phase_name)

    return Monitor()


class Progress:
    """The share of a build that is done: phases have steps, and a phase within another is part of one of its steps."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._phases: dict[str, tuple[str | None, int, int]] = {}  # parent, steps, steps done
        self._share = 0.0

    def start(self, name: str, parent: str | None, steps: int) -> None:
        with self._lock:
            self._phases[name] = (parent, max(1, steps), 0)

    def step(self, name: str, step: int) -> float:
        """Step `step` of a phase is done, counted from 0; returns the share, which never falls."""
        with self._lock:
            if name in self._phases:
                parent, steps, _ = self._phases[name]
                self._phases[name] = (parent, steps, min(steps, step + 1))
                self._share = max(self._share, min(1.0, self._upwards(name)))
            return self._share

    def finish(self, name: str) -> None:
        with self._lock:
            self._phases.pop(name, None)

    def _upwards(self, name: str) -> float:
        share, seen = 0.0, set()
        phase: str | None = name
        while phase in self._phases and phase not in seen:
            seen.add(phase)
            parent, steps, done = self._phases[phase]
            share, phase = (done + share) / steps, parent
        return share


def interruptible(work: Callable[[], T], listener: Listener) -> T:
    """work() on a thread of its own: TensorRT does not let go of the one it builds on, and Ctrl-C has to reach us.

    The first Ctrl-C stops the build at its next step, a second one does not wait for that. Raises KeyboardInterrupt.
    """
    results: list[T] = []
    over = threading.Event()  # and no join: one that Ctrl-C interrupts takes the thread for ended, in Python 3.11

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            listener.broken = listener.broken or error
        finally:
            over.set()

    try:
        threading.Thread(target=run, name="clip4str-build", daemon=True).start()
        while not over.wait(0.1):
            pass
    except KeyboardInterrupt:
        listener.stop.set()
        over.wait()
        raise
    if listener.broken is not None:
        raise listener.broken
    return results[0]


def one_line(message: str, most: int = 300) -> str:
    """A message of TensorRT's on one line: the first of its lines, printable, without where in its sources."""
    return first_line(re.sub(r" In \w+ at \S+:\d+(?=\))", "", message), most)
