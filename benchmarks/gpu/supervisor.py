"""Runs sections, each within its share of the time, in a process of its own that may crash or hang.

A kernel that reads a bad address takes its whole process's CUDA context with it, and a compiler may hang: so each
section runs in a child process, and the parent, which never touches CUDA, keeps what it reports, and kills it where it
overruns.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from clip4str.core.output_files import write_json

OUT_OF_TIME = "out of time"
GRACE = 15.0  # seconds over its share before a section is killed


@dataclass(frozen=True)
class Section:
    """One part of the run. weight: its share of the time, relative to the others; later sections get unused time."""

    name: str
    weight: float
    run: Callable[[Reporter], None]


class Clock:
    """Time left for a section."""

    def __init__(self, seconds: float) -> None:
        self.deadline = time.monotonic() + seconds

    def left(self) -> float:
        return max(0.0, self.deadline - time.monotonic())


class Reporter:
    """How a section reports results. values: its own figures, sent by `save` as often as it likes, so that a killed
    section keeps them. results: those of the sections before."""

    def __init__(self, name: str, seconds: float, connection: Connection, results: dict[str, Any]) -> None:
        self.name, self.clock, self.results = name, Clock(seconds), results
        self.values: dict[str, Any] = {}
        self.state = "done"
        self._connection = connection

    def save(self) -> None:
        self._connection.send(("values", self.name, self.values))

    def fail(self, what: str, why: str) -> None:
        """An answer was wrong, or there was none."""
        self._connection.send(("failures", self.name, {"section": self.name, "what": what, "why": why}))

    def out_of_time(self, what: str, seconds: float) -> None:
        """Something had to be ended after so many seconds: a failure, and the section is not called done."""
        minutes = self.results.get("minutes")
        share = f" of --minutes {minutes:g}" if minutes else ""
        more = f": try --minutes {10 * math.ceil(2 * minutes / 10)}" if minutes else ""
        self.state = f"{OUT_OF_TIME} ({seconds:.0f} s{share}){more}"
        self.fail(what, self.state)

    def skip(self, what: str, why: str = "no time left") -> None:
        """Something was left out. Like a failure it is listed, and the exit code is 1."""
        self._connection.send(("skipped", self.name, {"section": self.name, "what": what, "why": why}))

    def attempt(self, what: str, least: float, work: Callable[..., Any], *given: Any) -> Any:
        """work(*given), unless fewer than `least` seconds are left; an exception is a failure, not the end."""
        if self.clock.left() < least:
            return self.skip(what)
        try:
            return work(*given)
        except Exception as error:
            self.fail(what, f"{type(error).__name__}: {error}"[:600])
            self.values.setdefault("tracebacks", {})[what] = traceback.format_exc()[-3000:]
        finally:
            self.save()


class Store:
    """Results on disk, rewritten whole and at once after every change. path_of: the path by the device's name,
    if none was given."""

    def __init__(self, path: Path | None, head: dict[str, Any], path_of: Callable[[str], Path] | None = None) -> None:
        self.path, self._path_of = path, path_of
        self.results: dict[str, Any] = {**head, "sections": {}, "failures": [], "skipped": []}

    def write(self) -> None:
        if self.path is not None:
            write_json(self.path, self.results)

    def take(self, kind: str, section: str, what: Any) -> None:
        if kind == "values":
            self.results[section] = what
            if section == "environment" and self.path is None and self._path_of and "name" in what:
                self.path = self._path_of(what["name"])
        else:
            self.results[kind].append(what)


def supervise(
    sections: Sequence[Section],
    prepare: Callable[[], None],
    alive: Callable[[], bool],
    store: Store,
    seconds: float,
    say: Callable[[str], object] = print,
    grace: float = GRACE,
) -> None:
    """Run all sections within `seconds`. prepare: called first in every child; what it raises ends the run (as
    RuntimeError here) before any section has been, later that section alone. alive: called in the child after its
    section; False is a failure of it."""
    pending, end = list(sections), time.monotonic() + seconds
    context = multiprocessing.get_context("fork")
    while pending:
        if end - time.monotonic() < 1:
            store.results["skipped"] += [
                {"section": s.name, "what": "all of it", "why": "no time left"} for s in pending
            ]
            break
        here, there = context.Pipe(duplex=False)
        child = context.Process(target=_child, args=(there, pending, prepare, alive, store.results, end), daemon=False)
        child.start()
        there.close()
        try:
            pending = _follow(here, pending, store, say, end, grace)
        finally:
            _kill(child)
            here.close()
    store.write()


def _follow(
    connection: Connection, pending: list[Section], store: Store, say: Callable[[str], object], end: float, grace: float
) -> list[Section]:
    """Take a child's reports until its section is over, it died or overran; returns the sections that are left."""
    began = limit = time.monotonic() + 120  # the child's own start
    begun = False
    while True:
        over = "died without a word"
        try:
            if not connection.poll(max(0.0, min(limit, end + grace) - time.monotonic())):
                over = f"was killed after {time.monotonic() - began:.0f} s" if begun else "the start took too long"
                raise EOFError
            kind, name, what = connection.recv()
        except (EOFError, OSError):
            return _lost(store, pending, over, say)
        if kind == "fatal":
            if not store.results["sections"]:
                raise RuntimeError(what)
            return _lost(store, pending, f"could not start: {what}", say)
        if kind == "begin":
            begun, began, limit = True, time.monotonic(), time.monotonic() + 1.25 * what + grace
        elif kind == "end":
            took = time.monotonic() - began
            store.results["sections"][name] = {"state": what["state"], "seconds": round(took, 2)}
            late = what["state"].startswith(OUT_OF_TIME)  # which says how long itself
            say(f"{name}: {what['state']}" + ("" if late else f", {took:.1f} s"))
            store.write()
            return pending[1:]
        else:
            store.take(kind, name, what)
            store.write()


def _lost(store: Store, pending: list[Section], why: str, say: Callable[[str], object]) -> list[Section]:
    """The first section came to nothing; returns the others."""
    name = pending[0].name
    store.results["failures"].append({"section": name, "what": "the section", "why": why})
    store.results["sections"][name] = {"state": why}
    store.write()
    say(f"{name}: {why}")
    return pending[1:]


def _child(
    connection: Connection,
    sections: Sequence[Section],
    prepare: Callable[[], None],
    alive: Callable[[], bool],
    results: dict[str, Any],
    end: float,
) -> None:
    os.setsid()  # one group with the compilers it starts, to be ended together
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        prepare()
    except Exception as error:
        connection.send(("fatal", "", f"{error}" or type(error).__name__))
        return
    section, share = sections[0], sections[0].weight / sum(s.weight for s in sections)
    seconds = max(0.5, (end - time.monotonic()) * share)
    connection.send(("begin", section.name, seconds))
    reporter = Reporter(section.name, seconds, connection, results)
    try:
        section.run(reporter)
    except Exception as error:
        reporter.state = f"failed: {type(error).__name__}: {error}"[:300]
        reporter.values["traceback"] = traceback.format_exc()[-4000:]
        reporter.fail("the section", reporter.state)
    reporter.save()
    if not alive():
        reporter.fail("the device", "unusable after this section")
    connection.send(("end", section.name, {"state": reporter.state}))


def _kill(child: Any) -> None:
    child.join(0.5 if child.is_alive() else 0)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)  # the child and what it started, and nothing else
    child.join(5)
    if child.is_alive():  # it had not come to be a group of its own
        child.kill()
        child.join(5)
