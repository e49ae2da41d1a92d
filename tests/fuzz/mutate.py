"""Damage to bytes: flips, cuts, splices, integers and lengths, blind or by the format's own structure. Seeded: the same
seed makes the same inputs."""

from __future__ import annotations

import random
import re
import struct
from collections.abc import Callable, Sequence

MOST = 1 << 20  # bytes of an input
Form = Callable[["Mutator", bytes], bytes]  # raises ValueError where the bytes are not of the form
NUMBERS = (0, 1, 2, 3, 7, 127, 128, 255, 256, 32_767, 32_768, 65_535, 65_536, 2**24, 2**31 - 1, 2**31, 2**32 - 1,
           2**32, 2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 1)  # fmt: skip
DIGITS = (
    b"0",
    b"-1",
    b"1",
    b"65536",
    b"2147483648",
    b"4294967296",
    b"9223372036854775808",
    b"1e999",
    b"NaN",
    b"9" * 60,
)


class Mutator:
    """form: how inputs of a target are built, see forms.py. pool: whole inputs to start from and to splice with."""

    def __init__(self, seed: int, pool: Sequence[bytes], form: Form | None = None) -> None:
        self.random, self.pool, self.form = random.Random(seed), list(pool), form

    def next(self) -> bytes:
        return self.changed(self.random.choice(self.pool))

    def changed(self, data: bytes) -> bytes:
        """One to eight changes, most often few."""
        for _ in range(1 + min(7, int(self.random.expovariate(0.7)))):
            data = self.once(data)
        return data[:MOST]

    def once(self, data: bytes) -> bytes:
        if self.form is not None and self.random.random() < 0.7:
            try:
                return self.form(self, data)
            except (ValueError, LookupError, TypeError, AttributeError, OverflowError, struct.error, RecursionError):
                pass  # no longer of the form
        return self.blind(data)

    def blind(self, data: bytes) -> bytes:
        """A change that knows nothing of what the bytes mean."""
        change = self.random.choice(_CHANGES)
        return change(self, data) if data else self.noise(16)

    def part(self, parts: list[bytes], change: Callable[[bytes], bytes] | None = None) -> list[bytes]:
        """Parts of a whole: one of them changed, gone, doubled, moved, or another's."""
        parts, at, dice = list(parts), self.random.randrange(len(parts)), self.random.random()
        if dice < 0.7:
            parts[at] = (change or self.blind)(parts[at])
        elif dice < 0.78:
            del parts[at]
        elif dice < 0.86:
            parts[at:at] = [parts[at]] * self.random.choice((1, 1, 2, 50))
        elif dice < 0.94:
            other = self.random.randrange(len(parts))
            parts[at], parts[other] = parts[other], parts[at]
        else:
            parts[at] = self.random.choice(parts)
        return parts

    def number(self, most: int = 2**64 - 1) -> int:
        return min(most, self.random.choice(NUMBERS))

    def noise(self, length: int) -> bytes:
        return self.random.randbytes(self.random.randint(1, length))

    def place(self, data: bytes) -> int:
        """Somewhere, more often near a start and where there is something but zeros."""
        for _ in range(4):
            at = self.random.randrange(len(data))
            if self.random.random() < 0.3:
                at = self.random.randrange(min(len(data), 256))
            if any(data[at : at + 4]):
                break
        return at


def _flip(m: Mutator, data: bytes) -> bytes:
    at = m.place(data)
    return data[:at] + bytes([data[at] ^ 1 << m.random.randrange(8)]) + data[at + 1 :]


def _byte(m: Mutator, data: bytes) -> bytes:
    at = m.place(data)
    return data[:at] + bytes([m.random.choice((0, 1, 0x7F, 0x80, 0xFF, m.random.randrange(256)))]) + data[at + 1 :]


def _integer(m: Mutator, data: bytes) -> bytes:
    """One of 1, 2, 4 or 8 bytes, either end first: something special, or a little more or less than it was."""
    size, order = m.random.choice((1, 2, 4, 8)), m.random.choice(("little", "big"))
    at, mask = m.place(data), (1 << 8 * size) - 1
    if m.random.random() < 0.5:
        at -= at % size
    was = int.from_bytes(data[at : at + size], order)
    value = m.random.choice((m.number(), was + m.random.randint(-4, 4), was * 2, len(data), len(data) - at, ~was))
    return data[:at] + (value & mask).to_bytes(size, order) + data[at + size :]


def _remove(m: Mutator, data: bytes) -> bytes:
    at = m.place(data)
    return data[:at] + data[at + m.random.choice((1, 1, 2, 4, 8, 64, 1024)) :]


def _repeat(m: Mutator, data: bytes) -> bytes:
    at, length = m.place(data), m.random.choice((1, 2, 4, 16, 256))
    return data[:at] + data[at : at + length] * m.random.choice((2, 2, 3, 100)) + data[at + length :]


def _insert(m: Mutator, data: bytes) -> bytes:
    at = m.place(data)
    return data[:at] + m.noise(16) + data[at:]


def _overwrite(m: Mutator, data: bytes) -> bytes:
    at, noise = m.place(data), m.random.choice((m.noise(16), bytes(64), b"\xff" * 64))
    return data[:at] + noise + data[at + len(noise) :]


def _cut(m: Mutator, data: bytes) -> bytes:
    return data[: m.random.randrange(len(data))]


def _splice(m: Mutator, data: bytes) -> bytes:
    """A piece of another input in the place of one of this."""
    other = m.random.choice(m.pool) or data
    start, length, at = m.random.randrange(len(other)), m.random.choice((4, 16, 64, 1024, 4096)), m.place(data)
    return data[:at] + other[start : start + length] + data[at + length :]


def _digits(m: Mutator, data: bytes) -> bytes:
    """A number written out."""
    found = list(re.finditer(rb"\d+", data[:65536]))
    if not found:
        return _integer(m, data)
    match = m.random.choice(found)
    return data[: match.start()] + m.random.choice(DIGITS) + data[match.end() :]


_CHANGES = (
    _flip,
    _byte,
    _byte,
    _integer,
    _integer,
    _integer,
    _remove,
    _repeat,
    _insert,
    _overwrite,
    _cut,
    _splice,
    _digits,
)
