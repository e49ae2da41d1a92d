"""CLIP's byte-pair encoding in the standard library alone.

Token for token CLIP's own for any text, but for two of the repairs that CLIP has ftfy make first: mojibake ("Ã©" for
"é") and entities in capitals ("&EACUTE;") stay as they are. Characters newer than this Python's Unicode are no letters.
Held to CLIP's own code by tests/golden/bpe.tsv and bpe-scripts.tsv.

The merges (data/bpe_merges.txt.xz) are OpenAI CLIP's: Radford et al., "Learning Transferable Visual Models
From Natural Language Supervision", 2021; see data/NOTICE.
"""

from __future__ import annotations

import html
import lzma
import re
import unicodedata
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path

import numpy as np

from .errors import CharsetError

FULL_VOCABULARY = 49408
_BYTES = 256
SPECIALS = ("<|startoftext|>", "<|endoftext|>")
CLOSING = "</w>"  # ends the last symbol of a piece
# CLIP's pattern, over a text in which every character that is not of ASCII has been replaced by one of its kind:
# \p{L} by x, \p{N} by 0, the rest by ~. What it finds is cut out of the text itself.
_SPLIT = re.compile(
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[a-z]+|[0-9]|[^\sa-z0-9]+", re.IGNORECASE
)
# What else ftfy.fix_text repairs: ligatures, letters of full and half width, curly quotes, characters that control.
_LIGATURES = {"Ĳ": "IJ", "ĳ": "ij", "ŉ": "ʼn", "Ǳ": "DZ", "ǲ": "Dz", "ǳ": "dz", "Ǆ": "DŽ", "ǅ": "Dž", "ǆ": "dž",
              "Ǉ": "LJ", "ǈ": "Lj", "ǉ": "lj", "Ǌ": "NJ", "ǋ": "Nj", "ǌ": "nj", "ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl",
              "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "ſt", "ﬆ": "st"}  # fmt: skip
_QUOTES = {**dict.fromkeys("ʼ‘’‚‛", "'"), **dict.fromkeys("“”„‟", '"')}
_CONTROLS = [*range(9), 0x0B, *range(0x0E, 0x20), 0x7F, *range(0x206A, 0x2070), 0xFEFF, *range(0xFFF9, 0xFFFD)]


@cache
def _merges() -> tuple[tuple[str, str], ...]:
    packed = (Path(__file__).parent / "data" / "bpe_merges.txt.xz").read_bytes()
    lines = lzma.decompress(packed).decode("utf-8").splitlines()
    return tuple((a, b) for a, b in (line.split(" ") for line in lines))


@cache
def _byte_symbols() -> dict[int, str]:
    """CLIP's printable stand-in for every byte; its order defines token ids 0..255."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [b for b in range(_BYTES) if b not in set(printable)]
    symbols = {b: chr(b) for b in printable}
    symbols.update({b: chr(_BYTES + n) for n, b in enumerate(hidden)})
    return symbols


@lru_cache(maxsize=4096)
def _kind(character: str) -> str:
    if character.isascii():
        return character
    if character in "ſ\u0345":  # the pattern ignores case: it takes one for an s, and the other for nothing at all
        return "s" if character == "ſ" else " "
    return {"L": "x", "N": "0"}.get(unicodedata.category(character)[0], "~")


@cache
def _repairs() -> list[dict[int, str]]:
    """One after the other, as ftfy makes them."""
    width = {chr(c): unicodedata.normalize("NFKC", chr(c)) for c in range(0xFF01, 0xFFF0)} | {"　": " "}
    tables = (_LIGATURES, width, _QUOTES, dict.fromkeys(map(chr, _CONTROLS), ""))
    return [str.maketrans(table) for table in tables]


def _repaired(text: str) -> str:
    """What ftfy.fix_text makes of a text, but for mojibake."""
    if text.isascii() and text.isprintable():
        return text
    while True:
        before, text = text, text if "<" in text else html.unescape(text)
        for table in _repairs():
            text = text.translate(table)
        text = unicodedata.normalize("NFC", text)
        if text == before:
            return text


def prepared(caption: str) -> tuple[str, str]:
    """What the pattern is to cut: the repaired text in small letters, and the kinds of its characters: of ASCII each
    is its own."""
    text = " ".join(html.unescape(html.unescape(_repaired(caption))).split()).lower()
    return text, text if text.isascii() else "".join(map(_kind, text))


def first_symbols(piece: str) -> list[str]:
    """One for each byte of it, before any merge; the last one closes the piece."""
    table = _byte_symbols()
    symbols = [table[b] for b in piece.encode("utf-8")]
    symbols[-1] += CLOSING
    return symbols


class BytePairTokenizer:
    """Captions to CLIP tokens: `[start] + pairs + [end]`, cut to `context` with the end kept, zero padded.

    vocabulary: rows of the text tower's token embedding. CLIP's is 49408 (512 bytes, 48894 merges, start,
    end); a shortened one keeps the first `vocabulary - 514` merges and has its own start and end last.

    ids: token id of every symbol; ranks: rank of every merge, a pair of symbols, the lowest first.

    Raises CharsetError if that size is not possible.
    """

    def __init__(self, vocabulary: int = FULL_VOCABULARY, context: int = 16) -> None:
        merges = vocabulary - 2 * _BYTES - len(SPECIALS)
        if not 0 <= merges <= len(_merges()):
            raise CharsetError(
                f"a text vocabulary of {vocabulary} tokens is none of CLIP's: expected {2 * _BYTES + 2} to "
                f"{FULL_VOCABULARY}"
            )
        self.vocabulary, self.context = vocabulary, context
        self.start, self.end = vocabulary - 2, vocabulary - 1
        symbols = list(_byte_symbols().values())
        pieces = [*symbols, *(s + CLOSING for s in symbols), *("".join(m) for m in _merges()[:merges])]
        # Later duplicates win, as in the published dict(zip(...)).
        self.ids = {piece: i for i, piece in enumerate(pieces)}
        self.ranks = {pair: rank for rank, pair in enumerate(_merges()[:merges])}
        self._encode = lru_cache(maxsize=4096)(self._encode_caption)

    def __call__(self, captions: Sequence[str]) -> np.ndarray:
        """Tokens of every caption: (N, context) int32."""
        tokens = np.zeros((len(captions), self.context), np.int32)
        for row, caption in zip(tokens, captions):
            ids = self._encode(caption)
            row[: len(ids)] = ids
        return tokens

    def _encode_caption(self, caption: str) -> list[int]:
        text, kinds = prepared(caption)
        ids = [self.start]
        for found in _SPLIT.finditer(kinds):
            piece = text[slice(*found.span())]
            if piece in SPECIALS:
                ids.append(self.start + SPECIALS.index(piece))
            else:
                ids.extend(self.ids[symbol] for symbol in self._merge(piece))
        ids.append(self.end)
        if len(ids) > self.context:
            ids = [*ids[: self.context - 1], self.end]
        return ids

    def _merge(self, piece: str) -> list[str]:
        word = first_symbols(piece)
        while len(word) > 1:
            ranked = [(self.ranks.get(pair, len(self.ranks)), pair) for pair in zip(word, word[1:])]
            rank, best = min(ranked)
            if rank == len(self.ranks):
                break
            merged: list[str] = []
            for symbol in word:
                if merged and (merged[-1], symbol) == best:
                    merged[-1] += symbol
                else:
                    merged.append(symbol)
            word = merged
        return word
