"""Texts of 11 to 25 characters as signs and screens have them: words run together, compounds, addresses, numbers."""

from __future__ import annotations

from collections.abc import Callable

from .vocabulary import LONG, Vocabulary
from .word_parts import BEGINNINGS, ENDINGS, TOP_DOMAINS

SHORTEST, LONGEST = 11, 25
PATIENCE = 30  # a text that does not come out at the length wanted is made anew, and at last cut


def long_text(words: Vocabulary) -> str:
    """Three quarters have 16 characters and more, with little regard to which: without, 25 would hardly ever come."""
    low, high = (LONG, LONGEST) if words.rng.random() < 0.75 else (SHORTEST, LONG - 1)
    if words.rng.random() < 0.5:
        low = words.rng.randint(low, high)
    kinds: list[Callable[[Vocabulary, int], str]] = [_joined, _compound, _listed, _address, _grouped, _any]
    make = words.rng.choices(kinds, (50, 14, 10, 14, 8, 4))[0]
    for _ in range(PATIENCE):
        text = make(words, low)
        if low <= len(text.replace(" ", "")) <= high:
            return text
    return _joined(words, low).replace(" ", "")[:high]


def _joined(words: Vocabulary, low: int) -> str:
    """Two words or more in one, with or without something between."""
    r = words.rng
    parts = [words.plain()]
    joiner = r.choices(("", " ", "-", "_", ".", "/", "&"), (64, 14, 10, 3, 3, 3, 3))[0]
    while len(joiner.join(parts).replace(" ", "")) < low:
        parts.append(words.plain())
    style = r.random()
    if style < 0.45:
        return joiner.join(parts).upper()
    if style < 0.75:
        return joiner.join(parts).lower()
    text = joiner.join(part[:1].upper() + part[1:].lower() for part in parts)
    return f"#{text}" if not joiner and r.random() < 0.15 else text


def _compound(words: Vocabulary, low: int) -> str:
    """One word with endings of the language: real ones so long are few."""
    r = words.rng
    text = words.plain().lower()
    if r.random() < 0.6:
        text = r.choice(BEGINNINGS) + text
    while len(text) < low:
        text += r.choice(ENDINGS)
    return words.cased(text)


def _listed(words: Vocabulary, _: int) -> str:
    return words.cased(words.rng.choice(words.long or words.words))


def _address(words: Vocabulary, low: int) -> str:
    """Domains, e-mail, paths and file names."""
    r = words.rng
    first, second, third = ("".join(c for c in words.plain().lower() if c.isalnum()) for _ in range(3))
    if low >= LONG:
        second += third
    top = r.choice(TOP_DOMAINS)
    text = r.choice((
        f"www.{first}{second}.{top}", f"www.{first}-{second}.{top}", f"{first}{second}.{top}",
        f"{first}@{second}.{top}", f"{first}.{second}@{third}.{top}", f"info@{second}.{top}",
        f"{first}.{top}/{second}", f"@{first}_{second}", f"{first}_{second}.{r.choice(('pdf', 'jpg', 'html', 'txt'))}",
    ))  # fmt: skip
    return text.upper() if r.random() < 0.2 else text


def _grouped(words: Vocabulary, low: int) -> str:
    """Numbers of accounts, books, telephones and parts; labels of goods."""
    r, length = words.rng, low + words.rng.randint(0, 4)
    if r.random() < 0.3:
        return words.letters(r.randint(1, 4)) + words.digits(length - 4)
    group, joiner = r.choice((2, 3, 4, 4, 5)), r.choice(("-", "-", " ", ".", "/", ""))
    make = words.digits if r.random() < 0.6 else words.mixed
    return joiner.join(make(group) for _ in range(-(-length // (group + len(joiner.strip())))))


def _any(words: Vocabulary, low: int) -> str:
    """Letters at random: what cannot be guessed must be read."""
    make = words.rng.choice((words.letters, lambda count: words.letters(count).lower(), words.mixed))
    return make(low + words.rng.randint(0, 4))
