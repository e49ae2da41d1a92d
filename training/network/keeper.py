"""Keeps the run going: builds the data that is missing, trains, logs, goes on after a failure, ends when told to.

Runs out of the run's own checkout, in the background, as the leader of a session of its own.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clip4str.core.console import one_line
from clip4str.core.errors import Clip4StrError, DataError
from clip4str.training.run_log import read_rows

from .places import Places
from .processes import die_with_parent, members, send, step_back
from .progress import describe, time_left
from .recipe import Recipe, read_recipe
from .states import INIT, begin, copy_recipe, progress_mark

RECIPE = "training/network.args"
TOLD = (130, 143, -signal.SIGINT, -signal.SIGTERM)  # how programs end that were told to
ATTEMPTS = 5  # failures in a row, without a state saved between them, after which it gives up
_LARGEST_OUTPUT = 2**23


class Keeper:
    """pause: seconds after a first failure, doubled with every further one. poll: seconds between looks at the log."""

    def __init__(
        self, places: Places, lock: int, niceness: int = 19, pause: float = 15.0, poll: float = 15.0
    ) -> None:  # fmt: skip
        self.places, self.lock, self.niceness, self.pause, self.poll = places, lock, niceness, pause, poll
        self.told = False
        self.child: subprocess.Popen[bytes] | None = None
        self.logged = -1.0

    def run(self) -> int:
        """Until training is complete, SIGTERM comes, or it fails too often. 0, or 1 after failures."""
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        step_back(self.niceness)
        try:
            return self._keep()
        except (Clip4StrError, OSError) as error:
            return self._fail(str(error))
        finally:
            self._clear()

    def _keep(self) -> int:
        failures = 0
        self.provide()
        while not self.told:
            before = progress_mark(self.places.run)
            code = self.train()
            if self.told or code in TOLD:
                break
            if code == 0:
                self.places.note("training has ended: it is complete, or was told to")
                return 0
            failures = 1 if progress_mark(self.places.run) != before else failures + 1
            reason = f"training ended with {code}: {last_line(self.places.output)}"
            if failures == ATTEMPTS:
                return self._fail(f"{reason}; {ATTEMPTS} times in a row, given up")
            wait = min(600.0, self.pause * 2 ** (failures - 1))
            self.places.note(f"{reason}; again in {wait:.0f} s")
            self._clear()
            self._sleep(wait)
        self.places.note("stopped")
        return 0

    def provide(self) -> None:
        """The data that training needs. Raises DataError if some of it cannot be had."""
        recipe = read_recipe(self.places.checkout / RECIPE, self.places)
        if recipe.provide:
            names = ", ".join(path.name for path in recipe.missing(self.places.data)) or "what may be missing"
            self.places.note(f"building {names} in {self.places.data}; see {self.places.output.name}")
            self.places.data.mkdir(parents=True, exist_ok=True)
            code = self._child([str(self.places.checkout / "training/provide.py"), *recipe.provide])
            if code and not self.told:
                self.places.note(f"building ended with {code}: {last_line(self.places.output)}")
        left = recipe.missing(self.places.data)
        if left and not self.told:
            raise DataError(f"{left[0]} is missing; {last_line(self.places.output)}")

    def train(self) -> int:
        """One attempt, from the newest state; its exit code."""
        return self._child([str(self.places.checkout / "training/network_run.py"), "attempt"])

    def _child(self, command: Sequence[str]) -> int:
        output = self.places.output
        if output.exists() and output.stat().st_size > _LARGEST_OUTPUT:
            output.unlink()
        with output.open("ab") as file:
            self.child = subprocess.Popen(
                [sys.executable, *command], stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
                cwd=self.places.home, env=self.places.environment(), pass_fds=(self.lock,), preexec_fn=die_with_parent,
            )  # fmt: skip
        if self.told:
            send(self.child.pid, signal.SIGTERM)  # it came before there was a child
        while True:
            try:
                code = self.child.wait(self.poll)
                self._look()
                return code
            except subprocess.TimeoutExpired:
                self._look()

    def _look(self) -> None:
        rows = read_rows(self.places.run / "log.csv")
        if not rows or rows[-1]["step"] == self.logged:
            return
        self.logged = rows[-1]["step"]
        recipe = read_recipe(self.places.checkout / RECIPE, self.places)
        self.places.note(", ".join(filter(None, [describe(rows[-1]), time_left(rows, recipe)])))

    def _stop(self, number: int, frame: Any) -> None:
        self.told = True
        if self.child is not None and self.child.poll() is None:
            send(self.child.pid, signal.SIGTERM)

    def _clear(self) -> None:
        """Nothing of an attempt that has ended may go on beside the next, or alone."""
        for number, patience in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 10.0)):
            end = time.monotonic() + patience
            while (left := [p for p in members(os.getpid()) if p.pid != os.getpid()]) and time.monotonic() < end:
                for each in left:
                    send(each.pid, number)
                time.sleep(0.2)

    def _sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self.told and time.monotonic() < end:
            time.sleep(0.2)

    def _fail(self, reason: str) -> int:
        reason = one_line(reason)
        self.places.note(reason)
        with contextlib.suppress(OSError):  # a full disk may be the reason
            self.places.failed.write_text(reason + "\n", encoding="utf-8")
        return 1


def attempt(places: Places) -> None:
    """Become training/train.py, going on from the newest state there is. Does not return. Raises Clip4StrError."""
    recipe = read_recipe(places.checkout / RECIPE, places)
    for line in (*begin(places, recipe.words_before), *(f"{lack}: trains without" for lack in recipe.lacks)):
        places.note(line)
    options = ["--output", str(places.run), "--init", str(places.run / INIT), *recipe.train]
    copy_recipe(places.checkout / RECIPE, places.run, options)
    places.note("training begins")
    os.execv(sys.executable, [sys.executable, str(places.checkout / "training/train.py"), *options])


def last_line(output: Path) -> str:
    """What a program said last."""
    with output.open("rb") as file:
        file.seek(max(0, output.stat().st_size - 4096))
        lines = re.split(r"[\r\n]+", file.read().decode(errors="replace").strip())
    return one_line(lines[-1][-300:].strip()) or "it said nothing"


def check_recipe(places: Places) -> Recipe:
    """Of the checkout, before anything is started. Raises DataError."""
    return read_recipe(places.checkout / RECIPE, places)
