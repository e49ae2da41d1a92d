"""The distance of words, beside the textbook's definition."""

from __future__ import annotations

import random
from functools import cache

import pytest

from clip4str.core.edit_distance import edit_distance


@cache
def naive_distance(a: str, b: str) -> int:
    if not a or not b:
        return len(a) + len(b)
    return min(
        naive_distance(a[1:], b) + 1,
        naive_distance(a, b[1:]) + 1,
        naive_distance(a[1:], b[1:]) + (a[0] != b[0]),
    )


def test_it_is_the_textbook_one():
    draw = random.Random(0)
    for _ in range(300):
        a, b = ("".join(draw.choices("abc", k=draw.randrange(9))) for _ in range(2))
        distance = naive_distance(a, b)
        assert edit_distance(a, b) == distance, (a, b)
        for most in range(distance + 2):
            found = edit_distance(a, b, most)
            assert found == distance if distance <= most else found > most


KNOWN = [("", "", 0), ("kitten", "sitting", 3), ("abc", "", 3), ("ab", "ba", 2)]


@pytest.mark.parametrize(("a", "b", "distance"), KNOWN)
def test_known_distances(a, b, distance):
    assert edit_distance(a, b) == edit_distance(b, a) == distance
