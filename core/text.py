"""Characters: what token ids mean, and what of a prediction the text tower gets to read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np

from .errors import CharsetError

CHARSET_94 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
CHARSET_36 = CHARSET_94[:36]
END = 0


class Charset:
    """Token ids of a trained charset: 0 ends a word, 1..n are its characters, n+1 starts, n+2 pads.

    `test` is the charset captions are reduced to before CLIP's text tower reads them: lowercased if it
    has no capitals (uppercased if it has no small letters), everything outside it dropped.

    Raises CharsetError if either has repeated characters or `test` needs a character that no training
    character can become.
    """

    def __init__(self, characters: str = CHARSET_94, test: str = CHARSET_36) -> None:
        for name, value in (("charset", characters), ("test charset", test)):
            if not value:
                raise CharsetError(f"the {name} is empty")
            repeated = sorted(c for c, n in Counter(value).items() if n > 1)
            if repeated:
                raise CharsetError(f"the {name} repeats {''.join(repeated)!r}")
            if not value.isprintable():
                raise CharsetError(f"the {name} has characters that cannot be printed: {value!a}")
        self.characters, self.test = characters, test
        self.start, self.pad = len(characters) + 1, len(characters) + 2
        self._ids = {c: i + 1 for i, c in enumerate(characters)}
        fold = str.lower if test == test.lower() else str.upper if test == test.upper() else str
        kept = set(test)
        self._folded = ["".join(c for c in fold(character) if c in kept) for character in characters]
        unknown = sorted(set(test) - set("".join(self._folded)))
        if unknown:
            raise CharsetError(
                f"the test charset has {''.join(unknown)!r}, which the network was not trained for; "
                f"it knows {characters!r}"
            )

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
        return "".join(self._folded[i - 1] for i in before_end(ids))


def before_end(ids: Iterable[int]) -> list[int]:
    """The ids before the first end token, as plain ints."""
    word = ids.tolist() if isinstance(ids, np.ndarray) else [int(i) for i in ids]
    return word[: word.index(END)] if END in word else word


def first_end(ids: np.ndarray) -> np.ndarray:
    """Index of the first end token of every row, T where there is none. (N, T) int -> (N,) int64."""
    ended = ids == END
    return np.where(ended.any(axis=1), ended.argmax(axis=1), ids.shape[1])
