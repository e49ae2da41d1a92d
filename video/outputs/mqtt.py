"""Events on an MQTT broker, for whoever subscribes there. docs/fleet.md has the topics."""

from __future__ import annotations

import ssl
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from clip4str.core.errors import BackendError, UsageError, first_line

from ..events import Event, Gap, WordEnded, as_json
from .jsonl import line, sources
from .mqtt_address import PASSWORD, Address, address_of, levels

MOST = 10_000  # events that wait while the broker is away
IN_FLIGHT = 16  # sent and not acknowledged; fewer than the 20 of paho, so that it keeps none back
FIRST = 5.0  # seconds at the start in which a broker answers
PATIENCE = 10.0  # seconds at the end for what still waits
LONGEST_WAIT = 30  # seconds between two attempts to connect, from 1 on doubled each time
LASTING = (WordEnded, Gap)  # not to be lost; others go first where there is no room
REFUSALS = (  # that trying again does not change
    "Not authorized", "Bad user name or password", "Unsupported protocol version", "Client identifier not valid"
)  # fmt: skip


class _Message(NamedTuple):
    topic: str
    payload: str
    lasting: bool


class Mqtt:
    """A Sink: every event as its JSON line, on TOPIC/SOURCE/EVENT with QoS 1, in their order.

    address: see mqtt_address.address_of. names: of the sources. say: gets a line each time that the broker is lost or
    found. most: events that wait while it is away; beyond that the oldest are left out, WordEnded and Gap last, and
    counted. patience: seconds that close() waits for what is not delivered.

    Writing never waits for the broker. One that is not there is waited for, in the background; one that refuses user
    and password, or whose certificate is not trusted, is a UsageError if it does so at once. close() raises UsageError
    where something was not delivered.
    """

    def __init__(
        self, address: str, names: Sequence[str] = (), *, say: Callable[[str], object] | None = None,
        most: int = MOST, patience: float = PATIENCE,
    ) -> None:  # fmt: skip
        self.address, self.most, self.patience = address_of(address), most, patience
        self.levels, self.lost, self.left_out = levels(names), 0, 0
        self._say = say or _to_stderr
        self._waiting: deque[_Message] = deque()
        self._flight: deque[tuple[int, _Message]] = deque()  # by their number at the broker, the oldest first
        self._acknowledged: set[int] = set()
        self._connected = self._resending = self._started = self._closed = False
        self._trouble, self._final, self._told, self._full = "", False, False, False
        self._end: float | None = None  # when closing gives up
        self._change = threading.Condition()  # guards all of these; never held where paho is called
        self._client = self._open(line(sources(names)))
        self._start()
        self._sender = threading.Thread(target=self._send, name="write mqtt", daemon=True)
        self._sender.start()

    def write(self, event: Event) -> None:
        values = as_json(event)
        level = self.levels[event.source] if event.source < len(self.levels) else f"source_{event.source}"
        lasting = isinstance(event, LASTING)
        message = _Message(f"{self.address.topic}/{level}/{values['event']}", line(values), lasting)
        with self._change:
            if self._closed:
                return
            if len(self._waiting) < self.most or self._make_room(lasting):
                self._waiting.append(message)
            else:
                self.left_out += 1
            full, self._full = self.lost > 0 and not self._full, self._full or self.lost > 0
            self._change.notify_all()
        if full:
            self._say(f"{self.address.name}: {self.most:,} events wait for the broker; from now on the oldest are lost")

    def close(self) -> None:
        with self._change:
            if self._closed:
                return
            self._end = time.monotonic() + self.patience
            self._change.notify_all()
        self._sender.join()
        with self._change:
            self._closed, connected = True, self._connected
            left = [*self._waiting, *(message for _, message in self._flight)]
        if connected:
            with suppress(ValueError, RuntimeError):  # not sent any more: the broker will tell that by the last will
                self._client.publish(self._available, "offline", 1, retain=True).wait_for_publish(FIRST)
        self._client.disconnect()
        with self._change:
            self._change.wait_for(lambda: not self._connected, 1.0)
        lasting = self.lost + sum(message.lasting for message in left)
        others = self.left_out + sum(not message.lasting for message in left)
        if lasting or others:
            raise UsageError(
                f"{self.address.name}: {lasting} words and gaps and {others} other events were not delivered"
                + (f" ({self._trouble})" if self._trouble else "")
            )

    def _make_room(self, lasting: bool) -> bool:
        """By leaving out the oldest that may be."""
        for at, message in enumerate(self._waiting):
            if not message.lasting:
                del self._waiting[at]
                self.left_out += 1
                return True
        if lasting:
            self._waiting.popleft()
            self.lost += 1
        return lasting

    @property
    def _available(self) -> str:
        return f"{self.address.topic}/available"

    def _open(self, about: str) -> Any:
        try:
            from paho.mqtt.client import Client
            from paho.mqtt.enums import CallbackAPIVersion
        except ImportError:
            raise BackendError("--mqtt needs paho-mqtt: pip install 'clip4str[mqtt]'") from None
        client = Client(CallbackAPIVersion.VERSION2)
        client.username_pw_set(self.address.user, self.address.password)
        client.will_set(self._available, "offline", 1, retain=True)
        client.reconnect_delay_set(1, LONGEST_WAIT)
        if self.address.tls:
            client.tls_set()

        def connected(_: Any, __: Any, ___: Any, reason: Any, ____: Any) -> None:
            if reason.is_failure:
                self._failed(str(reason), str(reason) in REFUSALS)
                return
            # QoS 0: each connection tells it anew, and unacknowledged ones would pile up
            client.publish(self._available, "online", 0, retain=True)
            client.publish(f"{self.address.topic}/sources", about, 0, retain=True)
            with self._change:
                again = bool(self._trouble)
                self._connected, self._trouble, self._final, self._told = True, "", False, False
                self._resending = bool(self._flight)
                self._change.notify_all()
            if again:
                self._say(f"{self.address.name}: connected")

        def disconnected(_: Any, __: Any, ___: Any, reason: Any, ____: Any) -> None:
            with self._change:
                was, self._connected = self._connected, False
                self._change.notify_all()
            if was and self._end is None:
                self._failed(f"connection lost: {reason}")

        def unreachable(_: Any, __: Any) -> None:
            error = sys.exc_info()[1]  # paho calls this where it handles it, and does not hand it over
            untrusted = isinstance(error, ssl.SSLCertVerificationError)
            self._failed(getattr(error, "strerror", None) or first_line(error), untrusted)

        def acknowledged(_: Any, __: Any, number: int, ___: Any, ____: Any) -> None:
            with self._change:
                self._acknowledged.add(number)
                self._change.notify_all()

        client.on_connect, client.on_disconnect = connected, disconnected
        client.on_connect_fail, client.on_publish = unreachable, acknowledged
        return client

    def _start(self) -> None:
        self._client.connect_async(self.address.host, self.address.port, keepalive=30)
        self._client.loop_start()
        with self._change:
            self._change.wait_for(lambda: self._connected or self._trouble, FIRST)
            self._started, refused = True, self._trouble if self._final else ""
            silent = not self._connected and not self._trouble
        if refused:
            self._client.disconnect()
            raise UsageError(f"{self.address.name}: the connection is refused ({refused}): {_hint(self.address)}")
        if silent:
            self._failed("no answer")

    def _failed(self, trouble: str, final: bool = False) -> None:
        """Said once until there is a connection again."""
        with self._change:
            self._trouble, self._final = trouble, final
            say = not self._told and not (final and not self._started)
            self._told = self._told or say
            self._change.notify_all()
        if say:
            self._say(f"{self.address.name}: not connected ({trouble}); tried again, {self.most:,} events can wait")

    def _send(self) -> None:
        """What waits, as many at once as may be in flight; those that a new connection sends anew come first."""
        while True:
            with self._change:
                self._flight = deque(sent for sent in self._flight if sent[0] not in self._acknowledged)
                self._acknowledged.clear()  # of others: only this thread sends, and none is on its way here
                self._resending = self._resending and bool(self._flight)
                now = time.monotonic()
                if self._end is not None and (now >= self._end or not (self._waiting or self._flight)):
                    return
                message = self._waiting.popleft() if self._ready() else None
                if message is None:
                    self._change.wait(None if self._end is None else self._end - now)
            if message is not None:
                sent = self._client.publish(message.topic, message.payload, 1)
                with self._change:
                    self._flight.append((sent.mid, message))

    def _ready(self) -> bool:
        return self._connected and not self._resending and len(self._flight) < IN_FLIGHT and bool(self._waiting)


def _hint(address: Address) -> str:
    if address.user is None:
        return f"does it want a user? mqtt://user@host, and the password in {PASSWORD}"
    return f"check user and password, which {PASSWORD} may hold"


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr)
