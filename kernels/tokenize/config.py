"""How words are dealt to programs. Plain Python: importable without triton."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TokenizeConfig:
    """words: of one program, a power of two. warps: 1 lets nothing cross warps: no shared memory, no barrier."""

    words: int = 1
    warps: int = 1


def configuration(n: int) -> TokenizeConfig:
    """For n words. One each: a program takes as long as its word has merges, and even 256 programs of one warp are two
    for each multiprocessor of a server GPU."""
    return TokenizeConfig()


def candidates(n: int) -> list[TokenizeConfig]:
    """What a sweep should try, the chosen one first."""
    return [TokenizeConfig(words) for words in (1, 2, 4)]
