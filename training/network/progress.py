"""The rows of the run's log.csv: what was measured last, what was best, in a line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .recipe import Recipe

LOSSES = ("visual", "cross", "ctc")
VALIDATION = "validation_"
Row = Mapping[str, float]


def describe(row: Row) -> str:
    """Step, words, speed, losses, and validation where there was one."""
    parts = [f"step {row['step']:,.0f}", f"{millions(row['words'])} words"]
    if "words_per_second" in row:
        parts.append(f"{row['words_per_second']:.0f} words/s")
    return ", ".join([*parts, losses(row), *filter(None, [validation(row)])])


def losses(row: Row) -> str:
    parts = ", ".join(f"{name} {row[name]:.3f}" for name in LOSSES if name in row)
    return f"loss {row.get('loss', float('nan')):.3f}" + (f" ({parts})" if parts else "")


def validation(row: Row) -> str:
    held = {k.removeprefix(VALIDATION): v for k, v in row.items() if k.startswith(VALIDATION)}
    return "held out: " + ", ".join(f"{name} {100 * value:.1f} %" for name, value in held.items()) if held else ""


def best(rows: Sequence[Row]) -> dict[str, tuple[float, float, float]]:
    """By validation column: (last value, best value, words at the best)."""
    found: dict[str, tuple[float, float, float]] = {}
    for row in rows:
        for name, value in row.items():
            if name.startswith(VALIDATION):
                _, most, words = found.get(name, (0.0, -1.0, 0.0))
                found[name] = (value, *((value, row["words"]) if value > most else (most, words)))
    return found


def time_left(rows: Sequence[Row], recipe: Recipe) -> str:
    """By the recipe's --steps or --minutes, whichever ends it first; "" where there is no end or no speed yet."""
    if not rows:
        return ""
    last = rows[-1]
    left = []
    if minutes := recipe.option("--minutes"):
        left.append(minutes - last["minutes"])
    before = rows[max(0, len(rows) - 20)]
    pace = (last["step"] - before["step"]) / max(1e-9, last["minutes"] - before["minutes"])
    if (steps := recipe.option("--steps")) and pace > 0:
        left.append((steps - last["step"]) / pace)
    return f"{span(60 * max(0.0, min(left)))} left" if left else ""


def millions(words: float) -> str:
    return f"{words / 1e6:.2f} M" if words >= 1e5 else f"{words:,.0f}"


def span(seconds: float) -> str:
    """12 s, 5 min, 3.2 h, 2.5 days."""
    for size, name in ((86400, "days"), (3600, "h")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {name}"
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
