"""Words -> blocks of subtitles: what srt.py and vtt.py share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from clip4str.core.console import one_line

from ..events import WordEnded
from .base import milliseconds, source_name


class Block(NamedTuple):
    """start, end: milliseconds. lines: from the top of the picture to its bottom, of the first source first."""

    start: int
    end: int
    lines: tuple[str, ...]


def blocks(words: Sequence[WordEnded], names: Sequence[str]) -> list[Block]:
    """Blocks that follow each other and never overlap, as players show only one: a new one begins wherever a word
    comes or goes. No block is empty, nor of no length. Of several sources, lines begin with the source's name."""
    changes: dict[int, list[tuple[bool, int]]] = {}
    for number, word in enumerate(words):
        if word.text:
            start = milliseconds(word.start)
            changes.setdefault(start, []).append((True, number))
            changes.setdefault(max(milliseconds(word.end), start + 1), []).append((False, number))
    found: list[Block] = []
    shown: set[int] = set()
    times = sorted(changes)
    for time, following in zip(times, [*times[1:], 0]):
        for comes, number in changes[time]:
            (shown.add if comes else shown.discard)(number)
        if not shown:
            continue
        lines = tuple(_line(words[number], names) for number in sorted(shown, key=lambda n: _place(words[n])))
        if found and found[-1].end == time and found[-1].lines == lines:
            found[-1] = found[-1]._replace(end=following)
        else:
            found.append(Block(time, following, lines))
    return found


def _place(word: WordEnded) -> tuple[int, float, float, int]:
    middle = word.quad.mean(0)
    height = max(1.0, float(abs(word.quad[2:].mean(0) - word.quad[:2].mean(0))[1]))
    return word.source, round(float(middle[1]) / height), float(middle[0]), word.track


def _line(word: WordEnded, names: Sequence[str]) -> str:
    text = one_line(word.text)
    return f"[{source_name(names, word.source)}] {text}" if len(names) > 1 else text
