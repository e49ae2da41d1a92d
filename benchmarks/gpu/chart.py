"""Chart of the suite's results: milliseconds a word for every way of decoding, size and batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clip4str.core.charts import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PALE,
    VIOLET,
    add_legend,
    check_chart,
    logarithmic,
    new_figure,
    save,
    tidy,
)
from clip4str.core.errors import UsageError
from clip4str.model.sizes import TITLES

_LOOKS = {  # side: (colour, label)
    "published_fp32": (PALE, "published way, float32"),
    "published_autocast": (GREY, "published way, float16 autocast"),
    "published_half": (VIOLET, "published way, float16"),
    "compiled": (GREEN, "reference under torch.compile"),
    "plain": (ORANGE, "clip4str without kernels"),
    "ours": (BLUE, "clip4str"),
}
_SOURCE = "bars: median, thin lines: quartiles. Measured by benchmarks/gpu_suite.py, all sides taking turns"


def save_chart(results: dict[str, Any], path: Path) -> Path:
    """Write a PNG; returns its path. Raises UsageError if matplotlib is missing or there is nothing to draw."""
    check_chart(path)
    networks = {name: rows for name in TITLES if (rows := bars(results, name))}
    if not networks:
        raise UsageError(f"{path}: no end-to-end times in these results")
    marked = "" if not results.get("failures") else " (some answers were wrong or missing)"
    device = results.get("environment", {}).get("name", "unknown GPU")
    below = f"pixels in to words out{marked}; {results.get('forced', '')}"
    columns, width = max(3, 2 * len(networks)), max(8.6, 1 + 4.4 * len(networks))
    lines = -(-len(_LOOKS) // columns)
    figure = new_figure(width, 6.8, f"Time to read a word on {device}", below, _SOURCE, legend=lines)
    for axes, (name, rows) in zip(figure.subplots(1, len(networks), squeeze=False)[0], networks.items()):
        _draw(axes, rows)
        axes.set_title(TITLES[name], fontsize=11, loc="left")
    add_legend(figure, _SOURCE, columns=columns)
    save(figure, path)
    return path


def bars(results: dict[str, Any], name: str) -> list[tuple[int, str, float, float, float]]:
    """(batch, side, median, first, third quartile), milliseconds a word, largest batch first."""
    rows = []
    for key, values in results.get(f"end_to_end_{name}", {}).get("batches", {}).items():
        sides = dict(values.get("sides", {}))
        if name == "base16":
            compiled = results.get("compiled", {}).get("batches", {}).get(key, {}).get("sides", {}).get("compiled")
            sides |= {"compiled": compiled} if compiled else {}
        batch = int(key)
        for side in _LOOKS:
            if side in sides:
                times = [sides[side][k] / batch / 1000 for k in ("median", "quartile_1", "quartile_3")]
                rows.append((batch, side, times[0], times[1], times[2]))
    return sorted(rows, key=lambda row: (-row[0], list(_LOOKS).index(row[1])))


def _draw(axes: Any, rows: list[tuple[int, str, float, float, float]]) -> None:
    place, places, labels, before = 0.0, [], [], None
    for batch, side, median, first, third in rows:
        place += 1.0 if batch == before else 1.7
        colour, label = _LOOKS[side]
        errors = [[max(0.0, median - first)], [max(0.0, third - median)]]
        axes.barh(place, median, height=0.85, color=colour, label=label, xerr=errors, error_kw={"lw": 0.8})
        axes.text(median * 1.12, place, f"{median:.3g} ms", va="center", fontsize=8,
                  fontweight="bold" if side == "ours" else None)  # fmt: skip
        places.append(place)
        labels.append(f"batch {batch}" if batch != before else "")
        before = batch
    logarithmic(axes, "x", (1,))
    axes.set_xlim(min(row[2] for row in rows) / 2, max(row[2] for row in rows) * 3)
    axes.set_yticks(places, labels)
    axes.set_xlabel("milliseconds a word (logarithmic)")
    tidy(axes, "x")
