"""Processes that prepare words beside a run: how they end, and what of their errors is said."""

from __future__ import annotations

import os
import signal
from typing import Any


def leave_stopping_to_the_parent(worker: int) -> None:
    """A signal to the whole process group must not take a worker away from a run that is about to save. (To ignore it
    would be worse: the parent ends its workers by one.) Nor must one to each process, as a container's end sends: the
    first is let pass, for the parent needs batches until the end of its step."""
    os.setpgid(0, 0)
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))


def end_workers(loader: Any) -> None:
    """Of a DataLoader with persistent workers, once nothing more is wanted of them. The way out of Python would ask
    them once to end, which they let pass, and wait for them for ever."""
    iterator = getattr(loader, "_iterator", None)
    if iterator is not None:
        iterator._shutdown_workers()


def said(error: Exception) -> str:
    """What an error says; where a worker raised it, what it said there, without the traceback that torch adds."""
    text = str(error)
    return text.strip().splitlines()[-1].partition(": ")[2] if "Original Traceback" in text else text
