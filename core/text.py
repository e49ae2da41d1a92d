"""Characters: what token ids mean, how a label is written in a charset, and what the text tower gets to read."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache

import numpy as np

from .errors import CharsetError

CHARSET_94 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
CHARSET_36 = CHARSET_94[:36]
END = 0
_KINDS = {"Zs": "space", "Cf": "invisible character", "Cc": "control character", "Cn": "unassigned code point",
          "Co": "private-use character"}  # fmt: skip


class Charset:
    """Token ids of a trained charset: 0 ends a word, 1..n are its characters, n+1 starts, n+2 pads.

    The string is enumerated, whatever is in it, as the published code does: a space, a joiner, a code point without a
    character. What stands in it twice is read from both ids and written with the last.

    `test` is a filter, CharsetAdapter of the published code: captions are lowercased if it has no capitals (uppercased
    if it has no small letters) and lose everything outside it before CLIP's text tower reads them. Of its characters
    those may be missing that the network never writes, see `note`.

    Raises CharsetError if either is empty or holds half of a surrogate pair, which no text can.
    """

    def __init__(self, characters: str = CHARSET_94, test: str = CHARSET_36) -> None:
        for name, value in (("charset", characters), ("test charset", test)):
            if not value:
                raise CharsetError(f"the {name} is empty")
            if half := next((c for c in value if unicodedata.category(c) == "Cs"), None):
                raise CharsetError(f"the {name} holds {half!a}, half of a surrogate pair: is its file UTF-8?")
        self.characters, self.test = characters, test
        self.start, self.pad = len(characters) + 1, len(characters) + 2
        self._ids = {c: i + 1 for i, c in enumerate(characters)}
        self._fold, self._write = _case_of(test), _case_of(characters)
        self._kept = frozenset(test)

    def __contains__(self, character: object) -> bool:
        return character in self._ids

    def encode(self, word: str) -> list[int]:
        """Token ids of a word, without start and end. Raises CharsetError on a character it lacks."""
        try:
            return [self._ids[c] for c in word]
        except KeyError as error:
            raise CharsetError(f"{word!r} has {error.args[0]!r}, which is not in the charset") from None

    def decode(self, ids: Iterable[int]) -> str:
        """The characters before the first end token."""
        return "".join(self.characters[i - 1] for i in before_end(ids))

    def caption(self, ids: Iterable[int]) -> str:
        """The characters before the first end token, reduced to the test charset."""
        return self.reduce(self.decode(ids))

    def reduce(self, text: str) -> str:
        """A text in the test charset: case goes where it has but one, then all outside it."""
        return "".join(c for c in self._fold(text) if c in self._kept)

    def spell(self, label: str) -> str:
        """A label in the charset's characters. What it has stays as it is; what it lacks becomes the nearest that it
        has (composed or taken apart: NFC, NFD, NFKC; else of NFKD what it has, so accents go), or goes itself. So does
        whitespace, which becomes single spaces where the charset has the space; and case, where it has but one.
        """
        text = self._write((" " if " " in self._ids else "").join(label.split()))
        if not all(c in self._ids for c in text):
            text = " ".join("".join(map(self._spelled, _clusters(part))) for part in text.split())
        return " ".join(text.split())

    @lru_cache(maxsize=4096)  # noqa: B019  (a process has a handful of charsets)
    def _spelled(self, cluster: str) -> str:
        """Of a character with its combining marks."""
        for text in (cluster, *(unicodedata.normalize(form, cluster) for form in ("NFC", "NFD", "NFKC"))):
            if all(c in self._ids for c in text):
                return text
        parts = (
            c if c in self._ids else unicodedata.normalize("NFKD", c) for c in unicodedata.normalize("NFC", cluster)
        )
        return "".join(c for c in self._write("".join(parts)) if c in self._ids)

    def alters(self, label: str) -> bool:
        """Does `spell` take something off a label, or change it, be it a space? Another case and another form of the
        same characters are no change."""
        texts = " ".join(label.split()), self.spell(label)
        before, after = (unicodedata.normalize("NFC", text).lower() for text in texts)
        return before != after

    def compared(self, text: str) -> str:
        """What counts of a label or a word read: spelled, then reduced."""
        return self.reduce(self.spell(text))

    @property
    def is_standard(self) -> bool:
        """Are its words those that the standard protocol compares: of ASCII, digits and Latin letters among them?"""
        return self.characters.isascii() and set(CHARSET_36) <= set(self.characters.lower())

    @property
    def written(self) -> frozenset[str]:
        """What of the test charset captions can hold."""
        return self._kept & set(self._fold(self.characters))

    @property
    def note(self) -> str:
        """What is to be said of the test charset, or nothing: how much of it the network can write."""
        kept, of = len(self.written), len(self._kept)
        if not kept:
            return "captions are always empty: the network writes no character of the test charset (--charset-test)"
        return f"captions keep the {kept} of the test charset's {of} characters that it writes" if kept < of else ""


def chosen_charset(characters: str, test: str, chosen: str | None) -> Charset:
    """A network's charset, with another test charset where one is chosen. Raises CharsetError, too, if a chosen one has
    nothing that the network writes."""
    charset = Charset(characters, test if chosen is None else chosen)
    if chosen is not None and not charset.written:
        raise CharsetError(f"the network was not trained for any character of the test charset {chosen!r}")
    return charset


def describe_characters(characters: str) -> str:
    """For people: how many, which twice, and what cannot be seen. "229 characters, ' twice"."""
    parts = [f"{len(characters):,} character{'s' * (len(characters) != 1)}"]
    times = {2: "twice"}
    repeated = [f"{c} {times.get(n, f'{n} times')}" for c, n in Counter(characters).items() if n > 1]
    parts += repeated[:5] + [f"{len(repeated) - 5} more repeated"] * (len(repeated) > 5)
    kinds = Counter(unicodedata.category(c) for c in characters)
    parts += [f"{kinds[k]} {name}{'s' * (kinds[k] != 1)}" for k, name in _KINDS.items() if kinds[k]]
    return ", ".join(parts)


def default_test(characters: str) -> str:
    """What captions keep where nobody says: digits and small Latin letters, as published, or of a charset with other
    letters all its letters, marks and numbers, lowercased."""
    latin = "".join(c for c in CHARSET_36 if c in set(characters.lower()))
    if characters.isascii():
        return latin or characters
    lowered = (c for c in characters.lower() if unicodedata.category(c)[0] not in "PSZC")
    return "".join(dict.fromkeys(lowered)) or characters


def comparing(charset: Charset, cased: bool = False, punctuation: bool = False) -> Charset:
    """The charset whose `compared` judges words of a network that the standard protocol cannot: its own test charset,
    unless that drops all its letters beyond ASCII, as a test charset left at its default does; then all its letters,
    marks and numbers, lowercased. cased, punctuation: count too.
    """
    characters, test = charset.characters, charset.test
    if not characters.isascii() and "".join(charset.written).isascii():
        test = default_test(characters)
    if punctuation:
        test += "".join(c for c in characters if unicodedata.category(c)[0] in "PS")
    if cased:
        kept = Charset(characters, test)
        test = "".join(c for c in characters if kept.reduce(c))
    return Charset(characters, test)


def _case_of(characters: str) -> Callable[[str], str]:
    """What brings a text into the only case of these characters; str where they have both."""
    return str.lower if characters == characters.lower() else str.upper if characters == characters.upper() else str


def _clusters(text: str) -> Iterator[str]:
    """A character with the combining marks behind it, one after the other."""
    start = 0
    for i in range(1, len(text) + 1):
        if i == len(text) or unicodedata.category(text[i])[0] != "M":
            yield text[start:i]
            start = i


def before_end(ids: Iterable[int]) -> list[int]:
    """The ids before the first end token, as plain ints."""
    word = ids.tolist() if isinstance(ids, np.ndarray) else [int(i) for i in ids]
    return word[: word.index(END)] if END in word else word


def first_end(ids: np.ndarray) -> np.ndarray:
    """Index of the first end token of every row, T where there is none. (N, T) int -> (N,) int64."""
    ended = ids == END
    return np.where(ended.any(axis=1), ended.argmax(axis=1), ids.shape[1])
