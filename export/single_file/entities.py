"""Captions that the tokenizer decodes before it encodes them: entities of HTML ("&amp;") and CLIP's own two marks.

A graph cannot decode a Unicode's worth of numbered characters; it can see that there is one. Found are captions with

    &#7 &#x                       a number
    &lt                           a name that needs no semicolon, of which HTML has 106
    &word;                        any name with one (also those that HTML does not know)
    <|endoftext|>                 a mark
"""

from __future__ import annotations

from collections.abc import Sequence
from html.entities import html5

import numpy as np

from clip4str.core.bpe import SPECIALS
from clip4str.export.graph import Graph

from .bodies import columns, every, iota, number, numbers, reduce, some
from .characters import Characters

_SHORT = [f"&{name}" for name in html5 if not name.endswith(";")]
_NUMBERED = [*(f"&#{digit}" for digit in "0123456789"), "&#x", "&#X"]


def decoded(g: Graph, characters: Characters, codes: str, length: int) -> str | None:
    """codes (N, L + 1), `length` L -> (N, 1) bool; None where captions can hold no such thing."""
    found: list[str] = []
    tables = {"written": characters.written, "letters": characters.letters}

    def text(kind: str) -> str:
        return g.op("Gather", numbers(g, f"bpe.{kind}", tables[kind]), codes)

    known = [pattern for pattern in _SHORT + _NUMBERED if characters.has(pattern)]
    if known:
        found.append(_begins(g, text("written"), known, length))
    if characters.has("&;"):
        found.append(_has_name(g, text("written"), length))
    for mark in SPECIALS:
        if all(ord(character) in characters.letters for character in mark):
            found.append(_is_in(g, text("letters"), mark, length))
    for other in found[1:]:
        found[0] = g.op("Or", found[0], other)
    return found[0] if found else None


def _begins(g: Graph, text: str, patterns: Sequence[str], length: int) -> str:
    """Does one of the patterns stand anywhere in the text, (N, L + 1) int32? Every place walks their tree at once."""
    places = {"": 0} | {pattern[:n]: 0 for pattern in patterns for n in range(1, len(pattern))}
    places = {prefix: number for number, prefix in enumerate(places)}
    fails, found = len(places), len(places) + 1
    tree = np.full((len(places) + 2, 128), fails, np.int32)
    tree[found] = found
    for pattern in patterns:
        for n, character in enumerate(pattern, 1):
            tree[places[pattern[: n - 1]], ord(character)] = found if n == len(pattern) else places[pattern[:n]]
    state, here = "", text
    for n in range(max(map(len, patterns))):
        if n:
            here = columns(g, text, f"bpe.further_{n}", np.minimum(np.arange(length + 1) + n, length))
            here = g.op("Add", g.op("Mul", state, number(g, 128)), here)
        state = g.op("Gather", numbers(g, "bpe.entities", tree.ravel()), here)
    return some(g, g.op("Equal", state, number(g, found)), 1)


def _is_in(g: Graph, text: str, mark: str, length: int) -> str:
    """Does the mark stand anywhere in the text?"""
    window = np.minimum(np.arange(length)[:, None] + np.arange(len(mark)), length)
    windows = columns(g, text, f"bpe.windows_{len(mark)}", window)  # [N, L, characters]
    same = g.op("Equal", windows, numbers(g, f"bpe.{mark}", np.array([ord(c) for c in mark])))
    return g.op("Squeeze", some(g, every(g, same, 2), 1), g.integers(2))


def _has_name(g: Graph, text: str, length: int) -> str:
    """Is there a &, a letter, letters and digits, and then a semicolon?"""
    alphanumeric, letter = np.zeros(128, bool), np.zeros(128, bool)
    alphanumeric[[c for c in range(128) if chr(c).isalnum()]] = True
    letter[[c for c in range(128) if chr(c).isalpha()]] = True
    place = iota(g, length + 1, length + 1, 1)
    stops = g.op("Not", g.op("Gather", g.constant("bpe.alphanumeric", alphanumeric), text))
    behind = numbers(g, "bpe.behind", np.arange(length + 1)[None])
    stops = g.op("And", g.op("Unsqueeze", stops, g.integers(1)), g.op("Greater", behind, place))  # [N, L + 1, L + 1]
    stop = reduce(g, "Min", g.op("Where", stops, behind, number(g, length)), 2, keepdims=0)
    closed = g.op("Equal", g.op("GatherElements", text, stop, axis=1), number(g, ord(";")))
    after = columns(g, text, "bpe.further_1", np.minimum(np.arange(length + 1) + 1, length))
    begins = g.op("And", g.op("Equal", text, number(g, ord("&"))),
                  g.op("Gather", g.constant("bpe.letter", letter), after))  # fmt: skip
    return some(g, g.op("And", begins, closed), 1)
