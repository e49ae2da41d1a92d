"""What till receipts and small printed labels say, in words as they stand between two spaces."""

from __future__ import annotations

from .vocabulary import Vocabulary
from .word_parts import CURRENCIES, ON_RECEIPTS

TERMS = ON_RECEIPTS.split()


def receipt_text(words: Vocabulary) -> str:
    """Half of it digits, as on real ones."""
    kind = words.rng.choices((_term, _amount, _when, _code, _quantity, _item), (30, 30, 8, 10, 7, 15))[0]
    return kind(words)


def _term(words: Vocabulary) -> str:
    r = words.rng
    term = TERMS[int(len(TERMS) * r.random() ** 2)]  # the first are the most frequent
    term = r.choice((term.upper(), term.upper(), term.capitalize(), term.capitalize(), term.lower()))
    form = r.choice(("{}", "{}", "{}", "{}:", "{}:", "({})", "{}.", "{}($)", "{}(RM)", "*{}", "{}*", "{}#", "{}%"))
    return form.format(term)


def _amount(words: Vocabulary) -> str:
    r = words.rng
    cents = r.choice(("00", "50", "90", "99", "95", words.digits(2), words.digits(2)))
    number = r.choice((r.randint(0, 9), r.randint(0, 99), r.randint(0, 99), r.randint(100, 9999)))
    text = f"{number:,}.{cents}" if r.random() < 0.8 else f"{number}.{cents}"
    form = r.choices(("{}", "{1}{0}", "-{}", "({})", "{}-", "{}*", "{0}{2}"), (58, 24, 5, 3, 2, 3, 5))[0]
    return form.format(text, r.choice(CURRENCIES), r.choice("ABSTZ%"))


def _when(words: Vocabulary) -> str:
    r = words.rng
    day, month, year = r.randint(1, 31), r.randint(1, 12), r.randint(2005, 2030)
    hour, minute, second = r.randint(0, 23), r.randint(0, 59), r.randint(0, 59)
    mark = r.choice("//--.")
    return r.choice((
        f"{day:02d}{mark}{month:02d}{mark}{year}", f"{day:02d}{mark}{month:02d}{mark}{year % 100:02d}",
        f"{year}{mark}{month:02d}{mark}{day:02d}", f"{hour:02d}:{minute:02d}", f"{hour:02d}:{minute:02d}:{second:02d}",
        f"{hour % 12 + 1}:{minute:02d}{r.choice(('AM', 'PM', 'am', 'pm'))}",
    ))  # fmt: skip


def _code(words: Vocabulary) -> str:
    r, digits = words.rng, words.digits
    return r.choice((
        digits(r.randint(4, 14)), f"#{digits(r.randint(2, 6))}",
        f"{words.letters(r.randint(1, 3))}{digits(r.randint(3, 9))}",
        f"({digits(7)}-{words.letters(1)})", f"{digits(4)}-{digits(6)}", f"{digits(2)}-{digits(8)}",
        f"No.{digits(r.randint(1, 4))}", f"{words.letters(2)}-{digits(5)}", f"{digits(12)}",
        f"{'X' * r.randint(4, 8)}{digits(4)}", f"{'*' * 4}{digits(4)}",
    ))  # fmt: skip


def _quantity(words: Vocabulary) -> str:
    r, number = words.rng, words.rng.randint(1, 20)
    return r.choice((
        f"x{number}", f"{number}x", f"{number}X", f"{number}PCS", f"{number}@", f"{number}%", f"{number}.000",
        f"@{number}.{words.digits(2)}", f"{number}KG", f"{number * 50}ML", f"{number * 50}g", f"[{number}]",
        f"{number}.", f"{number})",
    ))  # fmt: skip


def _item(words: Vocabulary) -> str:
    r, word = words.rng, words.plain()
    word = word.upper() if r.random() < 0.65 else word.capitalize()
    form = r.choice(("{}", "{}", "{}", "{},", "{}.", "{}-{}", "({}", "{})", "{}/{}", "{}:", "&{}", "{}{}G"))
    return form.format(word, r.choice((words.plain()[:6].upper(), words.digits(3))))
