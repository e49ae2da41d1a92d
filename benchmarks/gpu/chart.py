"""The suite's results as a picture: milliseconds a word, every way of decoding, every size and batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clip4str.core.errors import UsageError

_LOOKS = {  # side: (colour, label)
    "published_fp32": ("#c7c7c7", "published way, float32"),
    "published_fp16": ("#8a7f9e", "published way, float16 autocast"),
    "compiled": ("#6aa56e", "reference under torch.compile"),
    "plain": ("#e28a2b", "clip4str without kernels"),
    "ours": ("#35618f", "clip4str"),
}
_TITLES = {"small": "small", "b16": "B/16", "l14": "L/14"}


def save_chart(results: dict[str, Any], path: Path) -> Path:
    """Write a PNG; returns its path. Raises UsageError if matplotlib is missing or there is nothing to draw."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError("a chart needs matplotlib: pip install 'clip4str[bench]'") from None
    networks = {name: rows for name in _TITLES if (rows := bars(results, name))}
    if not networks:
        raise UsageError(f"{path}: no end-to-end times in these results")
    figure = Figure(figsize=(4.6 * len(networks), 6.2), dpi=140, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (name, rows) in zip(figure.subplots(1, len(networks), squeeze=False)[0], networks.items()):
        _draw(axes, rows)
        axes.set_title(_TITLES[name], fontsize=11)
    handles = {label: handle for axes in figure.axes for handle, label in zip(*axes.get_legend_handles_labels())}
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    marked = "" if not results.get("failures") else " (some answers were wrong or missing)"
    device = results.get("environment", {}).get("name", "unknown GPU")
    title = f"{device}, pixels in to words out{marked}\n{results.get('forced', '')}"
    figure.suptitle(title, fontsize=9, ha="left", x=0.01)
    figure.savefig(path)
    return path


def bars(results: dict[str, Any], name: str) -> list[tuple[int, str, float, float, float]]:
    """(batch, side, median, first, third quartile), milliseconds a word, largest batch first."""
    rows = []
    for key, values in results.get(f"end_to_end_{name}", {}).get("batches", {}).items():
        sides = dict(values.get("sides", {}))
        if name == "b16":
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
        axes.text(median * 1.12, place, f"{median:.3g}", va="center", fontsize=8,
                  fontweight="bold" if side == "ours" else None)  # fmt: skip
        places.append(place)
        labels.append(f"batch {batch}" if batch != before else "")
        before = batch
    axes.set_xscale("log")
    axes.set_xlim(min(row[2] for row in rows) / 2, max(row[2] for row in rows) * 3)
    axes.set_yticks(places, labels)
    axes.set_xlabel("milliseconds a word (median, quartiles)")
    axes.grid(axis="x", color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    for edge in ("top", "right", "left"):
        axes.spines[edge].set_visible(False)
