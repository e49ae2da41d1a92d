"""What synthetic scene text says: mostly English words as signs write them, also numbers, prices, domains."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path

from .long_words import long_text
from .receipts import receipt_text
from .vocabulary import CHARSET, DIGITS, LOWER, MAX_LENGTH, UPPER, Vocabulary, clean
from .word_parts import (
    AROUND,
    BEFORE,
    LOWER_ALONE,
    MONTHS,
    PRICES,
    PUNCTUATED,
    SIGNS_ALONE,
    STREETS,
    TOP_DOMAINS,
    UNITS,
)

DICTIONARIES = ("/usr/share/dict/american-english", "/usr/share/dict/words")


class WordSampler(Vocabulary):
    """Draws texts of 1 to 25 characters of the 94, now and then with a space inside (the label has none).

    words: frequent words, the most frequent first. rng: source of randomness. extra: further words, all
    alike (a dictionary). labels: texts of real crops, drawn as they are or in another case.
    """

    def __init__(self, words: Sequence[str], rng: random.Random, extra: Sequence[str] = (), labels: Sequence[str] = ()):
        super().__init__(words, rng, extra, labels)
        # In percent. Ordinary words, three quarters with their punctuation and pairs, are what the test sets hold. Real
        # training sets of scenes have 2 to 16 % with punctuation, up to 12 % with digits, 1 to 3 % in mixed case, 2 to
        # 8 % over 10 characters and up to 1 % over 15, and 3 to 6 % of one character where sets keep those. Long texts,
        # plates, mixed case and characters at random exceed that because the network read them badly, but not so far
        # that ordinary words would become rare.
        # fmt: off
        kinds: list[tuple[float, Callable[[], str]]] = [
            (65.3, self.word), (4.5, self.punctuated), (2.0, self.pair), (1.3, self.initials), (2.2, self.single),
            (5.0, self.number), (1.5, self.price), (0.7, self.phone), (0.8, self.date), (1.7, self.plate),
            (1.0, self.domain), (4.5, self.long_text), (1.5, self.mixed_case), (1.0, self.receipt),
            (3.5, self.random_letters), (2.0, self.random_alnum), (1.5, self.random_any),
        ]
        # fmt: on
        self._kinds = [k for _, k in kinds]
        self._weights = [sum(w for w, _ in kinds[: i + 1]) for i in range(len(kinds))]

    def sample(self) -> str:
        """One text; `text.replace(" ", "")` is its label, of 1 to 25 characters."""
        while True:
            text = self.rng.choices(self._kinds, cum_weights=self._weights)[0]().strip()
            if 0 < len(text.replace(" ", "")) <= MAX_LENGTH:
                return text

    # Kinds of text, each a method without arguments.

    def word(self) -> str:
        if self.labels and self.rng.random() < 0.1:
            return self.rng.choice(self.labels)  # as people really write
        word = self.plain()
        if len(word) > 14 and self.rng.random() < 0.6:
            word = self.plain()  # long words are rarer on signs than in word lists
        return self.cased(word)

    def punctuated(self) -> str:
        r, word = self.rng, self.word()
        form = r.choice(PUNCTUATED)
        return form.format(word, self.word()) if form.count("{}") == 2 else form.format(word)

    def pair(self) -> str:
        r = self.rng
        first, second = self.plain(), r.choice(STREETS) if r.random() < 0.25 else self.plain()
        joiner = r.choice((" ", " ", "", "-", "&"))
        style = r.random()
        if style < 0.6:
            return f"{first}{joiner}{second}".upper()
        return (
            f"{first.capitalize()}{joiner}{second.capitalize()}" if style < 0.85 else f"{first}{joiner}{second}".lower()
        )

    def initials(self) -> str:
        r = self.rng
        letters = self.letters(r.choice((1, 1, 2, 2, 3)))
        dotted = ".".join(letters)
        return r.choice((letters, dotted, dotted + ".", "&".join(letters), letters.lower()))

    def single(self) -> str:
        """One character, as on doors, floors and logos. Small letters only where their shape tells the case."""
        r = self.rng
        u = r.random()
        if u < 0.45:
            return r.choice(UPPER)
        if u < 0.80:
            return r.choice(DIGITS)
        return r.choice(LOWER_ALONE if u < 0.94 else SIGNS_ALONE)

    def number(self) -> str:
        r = self.rng
        digits = self.digits(r.choice((1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 5, 6, 8)))
        u = r.random()
        if u < 0.62:
            return digits
        if u < 0.72:
            return digits + r.choice(UNITS)
        if u < 0.80:
            return digits + r.choice(AROUND)
        if u < 0.86:
            return r.choice(BEFORE) + digits
        if u < 0.94:
            return digits + r.choice((".", ",", "-", "/", ":")) + self.digits(r.randint(1, 3))
        return str(r.randint(1900, 2030))

    def price(self) -> str:
        r = self.rng
        whole = str(r.randint(0, 10 ** r.randint(1, 4)))
        return r.choice(PRICES).format(whole, r.choice(("00", "50", "99", "95", "90", "49", self.digits(2))))

    def phone(self) -> str:
        d = self.digits
        forms = (
            f"{d(3)}-{d(4)}",
            f"{d(3)}-{d(3)}-{d(4)}",
            f"({d(3)}){d(3)}-{d(4)}",
            f"{d(4)} {d(4)}",
            d(8),
            d(10),
            f"+{d(2)}{d(9)}",
            f"{d(3)}.{d(3)}.{d(4)}",
            f"1-800-{d(3)}-{d(4)}",
            f"1-800-{self.rng.choice(self.words)[:7].upper()}",
        )
        return self.rng.choice(forms)

    def date(self) -> str:
        r = self.rng
        day, month, year = r.randint(1, 31), r.randint(1, 12), r.randint(1900, 2030)
        hour, minute = r.randint(0, 23), r.choice((0, 15, 30, 45, r.randint(0, 59)))
        forms = (
            f"{day:02d}/{month:02d}/{year % 100:02d}",
            f"{day}.{month}.{year}",
            f"{year}-{month:02d}-{day:02d}",
            f"{day}{MONTHS[month - 1]}",
            f"{MONTHS[month - 1]}.{year}",
            f"'{year % 100:02d}",
            f"{hour}:{minute:02d}",
            f"{hour:02d}.{minute:02d}",
            f"{hour % 12 + 1}{r.choice(('am', 'pm', 'AM', 'PM'))}",
            f"{hour % 12 + 1}-{minute % 12 + 1}",
            f"{year}-{year + r.randint(1, 40)}",
        )
        return r.choice(forms)

    def plate(self) -> str:
        """Licence plates, their words too, and unit numbers."""
        r, d = self.rng, self.digits
        letters, more = self.letters(r.randint(1, 3)), self.letters(r.randint(1, 3))
        gap = r.choice(("", "", " ", " ", "-", "-", "."))
        forms = (
            f"{letters}{d(r.randint(1, 4))}", f"{letters}{gap}{d(4)}", f"{d(r.randint(1, 4))}{letters}",
            f"{self.letters(3)}{gap}{d(3)}", f"{self.letters(3)}{gap}{d(4)}", f"{d(3)}{gap}{self.letters(3)}",
            f"{letters}{gap}{d(2)}{gap}{more}", f"{letters}{gap}{d(4)}{more}", f"{d(1)}{letters}{d(3)}",
            f"{letters}{gap}{d(3)}{more}", f"{d(3)}{gap}{d(3)}", self.mixed(r.randint(5, 8)), f"#{d(2)}-{d(2)}",
            self.plain().upper()[:8],
        )  # fmt: skip
        return r.choice(forms)

    def mixed_case(self) -> str:
        r, word = self.rng, self.plain()
        if r.random() < 0.6 or len(word) < 3:
            return "".join(r.choice((c.lower(), c.upper())) for c in word)
        cut = r.randint(1, len(word) - 1)
        first, last = word[:cut], word[cut:]
        return r.choice((first.upper() + last.lower(), first.lower() + last.upper(), first + last.capitalize()))

    def long_text(self) -> str:
        return long_text(self)

    def receipt(self) -> str:
        return receipt_text(self)

    def domain(self) -> str:
        r, top = self.rng, self.rng.choice(TOP_DOMAINS)
        name = "".join(c for c in self.plain().lower() if c.isalnum())
        if r.random() < 0.4:
            name += self.plain().lower()
        site = f"{name}.{top}"
        text = r.choice((f"www.{site}", site, f"www.{name}", f".{top}", f"info@{site}", f"@{name}", site))
        return text.upper() if r.random() < 0.25 else text

    def random_letters(self) -> str:
        r = self.rng
        alphabet = r.choice((UPPER, UPPER, LOWER))
        return "".join(r.choice(alphabet) for _ in range(self.length()))

    def random_alnum(self) -> str:
        r = self.rng
        alphabet = r.choice((UPPER + DIGITS, LOWER + DIGITS, UPPER + LOWER + DIGITS))
        return "".join(r.choice(alphabet) for _ in range(self.length()))

    def random_any(self) -> str:
        return "".join(self.rng.choice(CHARSET) for _ in range(self.length()))

    def length(self) -> int:
        """1..25, mostly 2 to 8, as the lengths of real labels."""
        return min(MAX_LENGTH, 1 + int(self.rng.gammavariate(3.0, 1.7)))


def read_words(path: str | Path) -> list[str]:
    """One word a line, UTF-8; what cannot be drawn with the 94 characters is dropped."""
    return clean(Path(path).read_text(encoding="utf-8", errors="ignore").splitlines())


def dictionary() -> list[str]:
    """Words of the system's dictionary, without the possessives; empty when there is none."""
    for path in DICTIONARIES:
        if Path(path).exists():
            return [w for w in read_words(path) if not w.endswith("'s")]
    return []
