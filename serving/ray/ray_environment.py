"""What Ray is told by its environment, which it reads when it is imported: less work for each request."""

from __future__ import annotations

import os

from . import door

LEAN = {
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",  # requests cross two threads less; ours holds no loop up
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1000",  # lines of its log; errors are written at once
    "RAY_SERVE_LOG_TO_STDERR": "0",
    "RAY_SERVE_FREEZE_GC_ON_STARTUP": "1",
    "RAY_worker_niceness": "0",  # 15 is its own: replicas would read when nothing else runs
}


def prepare(inside: int) -> None:
    """Before Ray is imported, and started by this process; what the user has set stays. inside: requests that its
    proxy lets in at once, see door.py."""
    for name, value in {**LEAN, door.CALLBACK: door.PATH, door.VARIABLE: str(inside)}.items():
        os.environ.setdefault(name, value)
