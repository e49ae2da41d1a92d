"""What stand-ins have computed already, so that a network's arithmetic is not done again for each failure of a test.

An answer is found by the bytes that lie in the device's memory when the work runs: what reads another place, or too
early, is computed anew, and differs.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections import OrderedDict

MOST = 500  # answers kept, the last used
_answers: OrderedDict = OrderedDict()
_digests: dict = {}


def answered(what, inputs, compute):
    """compute(), or what it gave for the same inputs {name: array or None}. what: the rest of what it depends on."""
    key = what, *((name, _digest(array)) for name, array in inputs.items())
    if key not in _answers:
        _answers[key] = compute()
    _answers.move_to_end(key)
    if len(_answers) > MOST:
        _answers.popitem(last=False)
    return _answers[key]


def _digest(array):
    """Of its shape, type and bytes. Weights are large and rarely change: to compare them is ten times as quick."""
    if array is None:
        return None
    address, size = array.ctypes.data, array.nbytes
    place = array.shape, array.dtype.str, address
    seen, digest = _digests.get(place, (None, None))
    if seen is None or ctypes.string_at(address, size) != seen:
        if len(_digests) > MOST:
            _digests.clear()
        seen = array.tobytes()
        digest = hashlib.sha256(repr(place[:2]).encode() + seen).digest()
        _digests[place] = seen, digest
    return digest
