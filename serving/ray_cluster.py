"""Joining a Ray cluster, or starting one of this machine: for batch jobs and servers."""

from __future__ import annotations

import os
import secrets
import socket
from typing import Any

from clip4str.core.errors import BackendError, first_line

SECONDS = 10.0  # that a cluster's head may take to accept


def connect(address: str | None, **local: Any) -> None:
    """address: "auto", HOST:PORT, or None for $RAY_ADDRESS, else a cluster of this machine alone, started with `local`.
    Raises BackendError."""
    import ray

    address = address or os.environ.get("RAY_ADDRESS")
    host, _, port = (address or "").rpartition(":")
    if host and port.isdecimal():
        try:  # Ray itself waits for minutes
            socket.create_connection((host.strip("[]"), int(port)), SECONDS).close()
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise BackendError(f"Ray: nothing answers at {address} ({reason})") from None
    if not address:
        _keep_to_itself()
    try:
        ray.init(address or "local", log_to_driver=False, logging_level="ERROR", **({} if address else local))
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise BackendError(f"Ray: {first_line(error)}") from None


def _keep_to_itself() -> None:
    """Ray's servers listen at all of a machine's addresses, and run what they are sent. Ray asks for a token by itself
    where no mode is set; this one is known to the cluster's own processes alone, and ends with them."""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH"):
        os.environ.pop(name, None)
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
