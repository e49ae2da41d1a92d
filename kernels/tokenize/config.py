"""How words are divided among programs. Plain Python: importable without triton."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TokenizeConfig:
    """words: per program, a power of two. warps: with 1 nothing crosses warps: no shared memory, no barriers."""

    words: int = 1
    warps: int = 1


def configuration(n: int) -> TokenizeConfig:
    """For n words. One per program, whose time is then that word's merges; even 256 programs of one warp are only two
    per multiprocessor of a server GPU."""
    return TokenizeConfig()


def candidates(n: int) -> list[TokenizeConfig]:
    """What a sweep should try, the chosen one first."""
    return [TokenizeConfig(words) for words in (1, 2, 4)]
