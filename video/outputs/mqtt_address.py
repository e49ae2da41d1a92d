"""Where a broker is, and what its topics are called."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from clip4str.core.errors import UsageError

from ..sources.names import public_name, scheme

PASSWORD = "CLIP4STR_MQTT_PASSWORD"  # in the environment, where the address has none: command lines are seen by all
TOPIC = "clip4str"
PORTS = {"mqtt": 1883, "mqtts": 8883}
LONGEST = 64  # characters of a source's level


class Address(NamedTuple):
    """name: without user and password. topic: what all others begin with."""

    name: str
    host: str
    port: int
    topic: str
    tls: bool
    user: str | None
    password: str | None


def address_of(text: str) -> Address:
    """mqtt://[user[:password]@]host[:port][/topic], mqtts:// over TLS. Raises UsageError, without what is secret."""
    kind = scheme(text)
    if kind not in PORTS:
        raise UsageError("an MQTT broker is mqtt://[user[:password]@]host[:port]/topic, or mqtts:// over TLS")
    name, parts = public_name(text), urlsplit(text)
    if parts.query or parts.fragment or "@" in parts.path:  # most often out of a password
        raise UsageError(f"{kind}://...: of ?, #, @ and / in a user's name or password write %3F, %23, %40 and %2F")
    host = parts.hostname or ""
    try:
        host.encode("idna")
        port = parts.port or PORTS[kind]
    except ValueError:
        host, port = "", 0
    if not host:
        raise UsageError(f"{kind}://...: names no host that can be")
    user = unquote(parts.username) if parts.username else None
    password = unquote(parts.password) if parts.password is not None else os.environ.get(PASSWORD)
    if password is not None and user is None:
        raise UsageError(f"{name}: there is a password, but no user: mqtt://user@host, and the password in {PASSWORD}")
    topic = unquote(parts.path).strip("/") or TOPIC
    if re.search(r"[+#\0]", topic) or topic.startswith("$") or len(topic) > 256:
        raise UsageError(f"{name}: a topic to write to has no +, # and no $ at its front, and 256 characters at most")
    return Address(name, host, port, topic, kind == "mqtts", user, password)


def levels(names: Sequence[str]) -> list[str]:
    """Each source's level of a topic: its name without "rtsp://", letters, digits, ".", "-" and "_" alone; of those
    that are alike the later ones are numbered."""
    found: list[str] = []
    for name in names:
        level = re.sub(r"[^\w.-]+", "_", name.partition("://")[2] or name).strip("_")[:LONGEST] or "source"
        number, numbered = 1, level
        while numbered in found:
            number += 1
            numbered = f"{level}_{number}"
        found.append(numbered)
    return found
