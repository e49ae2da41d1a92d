"""What captions are made of: the bytes that each character of a charset becomes before CLIP's merges, as tables."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from clip4str.core.bpe import CLOSING, BytePairTokenizer, first_symbols, prepared
from clip4str.core.errors import CharsetError
from clip4str.core.text import Charset

from .pairs import Pairs

DIGIT, LETTER, OTHER = 0, 1, 2  # kinds; letters make pieces with letters, others with others, a digit is a piece
_CHANGED_BY_NEIGHBOURS = "Σσς"  # a sigma is written after its place in the word
_SHOWN = 4


@dataclass(frozen=True)
class Characters:
    """Codes stand for the bytes of captions: 0 for none, then `width` for each id of the charset, in its order.

    codes: by id, (C + 1, width), 0 behind a character's last byte. inside, closing: the symbol that a code is within a
    piece and at its end. kinds: DIGIT, LETTER or OTHER. follows: does it go on with the character before? letters: the
    character of ASCII that a code is, in small letters, and written: as captions have it; else 0. (codes,) int32 all.
    """

    pairs: Pairs
    codes: np.ndarray
    inside: np.ndarray
    closing: np.ndarray
    kinds: np.ndarray
    follows: np.ndarray
    letters: np.ndarray
    written: np.ndarray

    @property
    def width(self) -> int:
        return self.codes.shape[1]

    @property
    def dropped(self) -> bool:
        """Can a caption have gaps that are to be closed?"""
        return bool((self.codes[1:] == 0).any())

    def has(self, text: str) -> bool:
        """Can captions hold all of these characters, of ASCII, in their case?"""
        return all(ord(character) in self.written for character in text)

    @classmethod
    def build(cls, charset: Charset, tokenizer: BytePairTokenizer) -> Characters:
        """Raises CharsetError, naming characters: those that the tokenizer takes for something else beside others."""
        check_characters(charset)
        captions = _captions(charset)
        texts = [prepared(caption) for caption in captions]
        symbols = [_symbols(text) for text, _ in texts]
        width = max(map(len, symbols), default=0) or 1
        pairs = Pairs.build(tokenizer, (s for spelled in symbols for pair in spelled for s in pair))
        table = np.zeros((len(charset.characters) * width + 1, 6), np.int32)  # of all but `codes`, in their order
        codes = np.zeros((len(charset.characters) + 1, width), np.int32)
        for i, (caption, (text, kinds), spelled) in enumerate(zip(captions, texts, symbols)):
            sizes = [len(character.encode()) for character in text]
            firsts = {sum(sizes[:n]): n for n in range(len(sizes))}
            at = 0
            for b, (inside, closing) in enumerate(spelled):
                at = firsts.get(b, at)
                code, letter = i * width + b + 1, ord(kinds[at]) if text[at].isascii() else 0
                written = ord(caption[at]) if len(caption) == len(text) and caption[at].isascii() else letter
                row = pairs.numbers[inside], pairs.numbers[closing], _kind(kinds[at]), b not in firsts, letter, written
                table[code], codes[i + 1, b] = row, code
        return cls(pairs, codes, *np.ascontiguousarray(table.T))


def _symbols(text: str) -> list[tuple[str, str]]:
    """Of every byte within a piece and at its end."""
    if not text:
        return []
    within = first_symbols(text + " ")[:-1]
    return [(symbol, symbol + CLOSING) for symbol in within]


def _kind(character: str) -> int:
    return DIGIT if character in "0123456789" else LETTER if "a" <= character <= "z" else OTHER


def _captions(charset: Charset) -> list[str]:
    """Of each character alone, in the order of their ids."""
    return [charset.caption([i]) for i in range(1, len(charset.characters) + 1)]


def check_characters(charset: Charset) -> None:
    """Raises CharsetError, naming characters: those of captions that no single file can encode."""
    everything = sorted(set("".join(_captions(charset))))
    reasons: dict[str, Callable[[str], bool]] = {
        "separate words for the tokenizer": lambda c: any(x.isspace() for x in c + prepared(f"a{c}a")[0]),
        "change with their neighbours when they become small letters": lambda c: c in _CHANGED_BY_NEIGHBOURS,
        "combine with the character before": lambda c: any(map(_combines, c + prepared(c)[0])),
        "are an s to the tokenizer beside an apostrophe": lambda c: c == "ſ",
    }
    for reason, holds in reasons.items():
        if found := [c for c in everything if holds(c)]:
            shown = ", ".join(f"{c!r} (U+{ord(c):04X})" for c in found[:_SHOWN])
            more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
            raise CharsetError(
                f"captions may hold {shown}{more}, which {reason}: a single file cannot encode them; choose a test "
                "charset without them (--charset-test), or use the bundle"
            )


def _combines(character: str) -> bool:
    """Can it become one with the character before it, or change places with it?"""
    return unicodedata.combining(character) != 0 or character in _second_parts()


@cache
def _second_parts() -> frozenset[str]:
    """What is second where a character has a decomposition into two, conjoining letters of Hangul among them."""
    found = {*map(chr, range(0x1161, 0x1176)), *map(chr, range(0x11A8, 0x11C3))}
    for number in range(0xA0, sys.maxunicode + 1):
        parts = unicodedata.decomposition(chr(number)).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            found.add(chr(int(parts[1], 16)))
    return frozenset(found)
