"""Packs cubins in LZ4's block format: they are repetitive, and the library would be three times as large without.

https://github.com/lz4/lz4/blob/dev/doc/lz4_Block_format.md. kernels/library/unpack.c unpacks them.
"""

from __future__ import annotations

LEAST_MATCH = 4
FARTHEST = 65535
LAST_LITERALS = 5  # a block ends in literals, and its last match starts 12 bytes before the end at the latest
LAST_START = 12
TRIED = 16


def pack(data: bytes) -> bytes:
    """Greedy: the longest match among the last TRIED occurrences. About 1 MB/s; halves a cubin."""
    out = bytearray()
    seen: dict[bytes, list[int]] = {}
    literal = at = 0
    end = len(data) - LAST_START + 1
    while at < end:
        place, length = _longest(data, seen.get(data[at : at + LEAST_MATCH], []), at)
        if length:
            _sequence(out, data[literal:at], at - place, length)
        for passed in range(at, min(at + max(length, 1), end)):
            seen.setdefault(data[passed : passed + LEAST_MATCH], []).append(passed)
        at += max(length, 1)
        if length:
            literal = at
    _sequence(out, data[literal:], 0, 0)
    return bytes(out)


def _longest(data: bytes, places: list[int], at: int) -> tuple[int, int]:
    """Start and length of the longest earlier match for the data at `at`; length 0 if there is none."""
    best, longest = 0, 0
    most = len(data) - LAST_LITERALS - at
    for place in places[: -TRIED - 1 : -1]:
        if at - place > FARTHEST:
            break
        if data[place : place + longest] != data[at : at + longest]:
            continue
        length = max(longest, LEAST_MATCH)
        while length < most and data[place + length] == data[at + length]:
            length += 1
        if length > longest:
            best, longest = place, length
    return best, longest


def _sequence(out: bytearray, literals: bytes, distance: int, length: int) -> None:
    rest = length - LEAST_MATCH if length else 0
    out.append(min(len(literals), 15) << 4 | min(rest, 15))
    out += _more(len(literals)) + literals
    if length:
        out += distance.to_bytes(2, "little") + _more(rest)


def _more(count: int) -> bytes:
    """The part of a count that does not fit into the token's four bits."""
    if count < 15:
        return b""
    full, last = divmod(count - 15, 255)
    return b"\xff" * full + bytes([last])
