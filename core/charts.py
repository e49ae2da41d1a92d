"""Style and output shared by all charts. matplotlib is imported when one is drawn, not before."""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path
from typing import Any

from .errors import UsageError
from .output_files import check_output, write_whole

SUFFIXES = (".png", ".svg", ".pdf")
BLUE, ORANGE, GREEN, RED, VIOLET, PALE, GREY = (
    "#2f5f93", "#d9812b", "#5f9e64", "#b5485d", "#7d6ca8", "#c7c7c7", "#6a6a6a",
)  # fmt: skip
_TITLE, _LINE = 0.34, 0.18  # inches for the title, and for every line below it or at the bottom


def check_chart(path: Path | None) -> None:
    """Raises UsageError if no chart can be written there, or none can be drawn: matplotlib is missing."""
    check_output(path, SUFFIXES)
    if path is not None and importlib.util.find_spec("matplotlib") is None:
        raise UsageError("a chart needs matplotlib: pip install 'clip4str[bench]'")


def new_figure(width: float, height: float, title: str, below: str = "", source: str = "", legend: int = 1) -> Any:
    """An empty figure, inches. below: text under the title; source: where the figures come from, at the bottom; both
    may have several lines. legend: lines of `add_legend` to keep room for."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(figsize=(width, height), dpi=150)
    FigureCanvasAgg(figure)
    left = 0.12 / width
    head = _TITLE + _LINE * (len(below.splitlines()))
    foot = 0.06 + _LINE * len(source.splitlines()) + 0.26 * legend
    figure.text(left, 1 - 0.08 / height, title, va="top", fontsize=12, fontweight="bold")
    figure.text(left, 1 - (0.08 + 0.24) / height, below, va="top", fontsize=9, color=GREY)
    figure.text(left, 0.05 / height, source, va="bottom", fontsize=8, color=GREY)
    figure.set_layout_engine(ConstrainedLayoutEngine(rect=(0, foot / height, 1, 1 - (head + foot) / height)))
    return figure


def add_legend(figure: Any, source: str = "", columns: int = 6) -> None:
    """One legend for all axes, each label once, between the axes and the source."""
    handles: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels()):
            handles.setdefault(label, handle)
    bottom = (0.06 + _LINE * len(source.splitlines())) / figure.get_figheight()
    figure.legend(list(handles.values()), list(handles), loc="lower center", bbox_to_anchor=(0.5, bottom),
                  ncols=columns, frameon=False, fontsize=9, borderaxespad=0)  # fmt: skip


def tidy(axes: Any, grid: str = "both") -> None:
    """A pale grid behind what is drawn, and no frame. grid: "x", "y" or "both"."""
    axes.grid(axis=grid, color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    for edge in ("top", "right", *(("left",) if grid == "x" else ())):
        axes.spines[edge].set_visible(False)


def logarithmic(axes: Any, axis: str, steps: tuple[int, ...] = (1, 2, 5)) -> None:
    """axis: "x" or "y"; ticks at these multiples of powers of ten, as plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set(**{f"{axis}scale": "log"})
    of = getattr(axes, f"{axis}axis")
    of.set_major_locator(LogLocator(subs=steps))
    of.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    of.set_minor_locator(NullLocator())


def save(figure: Any, path: Path) -> None:
    """Write a PNG, SVG or PDF, by the suffix, whole or not at all. Raises UsageError."""
    content = io.BytesIO()
    figure.savefig(content, format=path.suffix[1:].lower())
    write_whole(path, content.getvalue())
