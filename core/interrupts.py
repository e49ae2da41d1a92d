"""Ctrl-C and SIGTERM end a command soon, with one word and the usual exit code, whatever it is doing."""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

AGAIN = 0.1  # seconds after which a signal is raised anew that Python has swallowed
PATIENCE = 2.0  # seconds that a library's long call may take to come back before the process is ended under it


class Interrupts:
    """Inside, SIGINT and SIGTERM raise KeyboardInterrupt, and are remembered: libraries that are interrupted while they
    load turn that into errors of their own, and what is raised while an object is deleted Python drops: then it is
    raised anew. Signals that are ignored, or that another has a handler for, are left as
    they are; so is everything outside of the main thread."""

    def __init__(self) -> None:
        self.received = 0
        self._before: dict[int, Any] = {}
        self._unraisable: Any = None
        self._pipe: tuple[int, int] | None = None
        self._over = threading.Event()

    @property
    def exit_code(self) -> int:
        """As shells have it: 130 after SIGINT, 143 after SIGTERM; 0 where no signal came."""
        return 128 + self.received if self.received else 0

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL):
                    self._before[number] = signal.signal(number, self._handle)
            self._unraisable, sys.unraisablehook = sys.unraisablehook, self._dropped
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._over.set()
        if self._unraisable is not None and sys.unraisablehook == self._dropped:
            sys.unraisablehook = self._unraisable
        if self._pipe:
            signal.set_wakeup_fd(-1)
            os.close(self._pipe[1])
        for number, handler in self._before.items():
            if signal.getsignal(number) == self._handle:
                signal.signal(number, handler)

    def end_soon(self) -> None:
        """From now on a signal ends the process though the main thread be in a library's call and not hear it. For
        commands that write no files."""
        if not self._before or os.name != "posix" or self._pipe:
            return
        heard, told = self._pipe = os.pipe()
        os.set_blocking(told, False)
        signal.set_wakeup_fd(told, warn_on_full_buffer=False)
        threading.Thread(target=_end_after, args=(heard, self._over), daemon=True, name="clip4str-interrupts").start()

    def _dropped(self, what: Any) -> None:
        """sys.unraisablehook"""
        if not (self.received and isinstance(what.exc_value, KeyboardInterrupt)):
            self._unraisable(what)
        elif not self._over.is_set():
            again = threading.Timer(AGAIN, self._raise_again)
            again.daemon = True
            again.start()

    def _raise_again(self) -> None:
        if not self._over.is_set():
            _thread.interrupt_main(signal.Signals(self.received))

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.received = self.received or number
        raise KeyboardInterrupt


def heeding_signals(run: Callable[[Interrupts], int]) -> int:
    """The exit code of run, or after a signal 130 or 143, and one word on stderr."""
    with Interrupts() as interrupts:
        said = False
        try:
            code = run(interrupts)
            said = code in (130, 143)  # by who returned it
        except KeyboardInterrupt:
            code = 130
        except Exception:  # numpy's and its like, of being interrupted while they load
            if not interrupts.received:
                raise
            code = 130
        if code and interrupts.received:
            code = interrupts.exit_code
        if code in (130, 143) and not said:
            print("interrupted", file=sys.stderr)
        return code


def _end_after(heard: int, over: threading.Event) -> None:
    """Until the pipe's other end is closed."""
    while number := os.read(heard, 1):
        if number[0] in (signal.SIGINT, signal.SIGTERM) and not over.wait(PATIENCE):
            os._exit(128 + number[0])
    os.close(heard)
