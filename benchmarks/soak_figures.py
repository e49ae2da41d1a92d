"""What a long run's samples say: latency in a log that does not grow, the slope of memory, and the bars."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

BAR = 1.0  # MB an hour
WARM_UP = 0.2  # of the run: caches fill, allocators find their size
STRETCHES = 20
ENOUGH = 10.0  # minutes after the warm-up from which on a slope of 1 MB an hour can be told from noise
_STEP = 1.02  # between bins of a latency: 2 %
_LOWEST = 0.05  # ms
LATENCY = ("reads", "p50_ms", "p99_ms")  # what LatencyLog.next tells


class LatencyLog:
    """Milliseconds since the last `next()`, in bins of 2 %: as large after a day as at the start."""

    def __init__(self) -> None:
        self._edges = _LOWEST * _STEP ** np.arange(800)  # to 6 minutes
        self._counts = np.zeros(len(self._edges) + 1, np.int64)
        self._lock = threading.Lock()

    def add(self, ms: float) -> None:
        with self._lock:
            self._counts[np.searchsorted(self._edges, ms)] += 1

    def next(self) -> dict[str, float]:
        """Median and 99th percentile, None of nothing, and how many; begins anew."""
        with self._lock:
            counts = self._counts.copy()
            self._counts[:] = 0
        total, below = int(counts.sum()), counts.cumsum()
        found: dict[str, Any] = {"reads": total}
        for name, share in (("p50_ms", 0.5), ("p99_ms", 0.99)):
            at = int(np.searchsorted(below, share * total))
            found[name] = round(float(self._edges[min(at, len(self._edges) - 1)]), 3) if total else None
        return found


def summary(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """After the warm-up: the slope in MB an hour, with its 95 % interval, of what malloc has given out (memory, where
    it is known) and of what is resident; handles and threads; latency of the first and last fifth. Resident are also
    pieces of large buffers that malloc keeps for each thread."""
    rest = samples[int(WARM_UP * len(samples)) :]
    if len(rest) < 4:
        return {"judged_minutes": 0.0}
    minutes = np.array([sample["minutes"] for sample in rest])
    found: dict[str, Any] = {"judged_minutes": round(float(minutes[-1] - minutes[0]), 2)}
    stretches = np.array_split(np.arange(len(rest)), min(STRETCHES, len(rest) // 2))

    def medians(name: str) -> np.ndarray:
        values = np.array([np.nan if sample[name] is None else sample[name] for sample in rest], float)
        return np.array(
            [np.nanmedian(values[rows]) if np.isfinite(values[rows]).any() else np.nan for rows in stretches]
        )

    hours = np.array([minutes[rows].mean() for rows in stretches]) / 60
    for name, field in (("memory", "allocated_mb"), ("resident", "rss_mb"), ("kept_free", "kept_free_mb")):
        if all(sample.get(field) is not None for sample in samples):
            found[name] = _growth(hours, medians(field), max(sample[field] for sample in samples))
    # The fewest of a stretch: what is open between two openings of a recogniser.
    for name in ("handles", "threads"):
        fewest = [min(rest[row][name] for row in rows) for rows in stretches]
        found[name] = {"first": fewest[0], "last": fewest[-1]}
    for name in ("p50_ms", "p99_ms"):
        of = medians(name)
        fifth = max(1, len(of) // 5)
        first, last = (
            float(np.nanmedian(part)) if np.isfinite(part).any() else None for part in (of[:fifth], of[-fifth:])
        )
        found[name] = {"first": first, "last": last}
    return found


def _growth(hours: np.ndarray, memory: np.ndarray, peak: float) -> dict[str, float]:
    """Also of the later half alone: allocators come to rest later than what they serve."""
    slope, error = slope_of(hours, memory)
    later = len(memory) // 2
    return {
        "slope_mb_per_hour": round(slope, 3),
        "low": round(slope - 1.96 * error, 3), "high": round(slope + 1.96 * error, 3),
        "later_half": round(slope_of(hours[later:], memory[later:])[0], 3),
        "first_mb": round(float(memory[0]), 2), "last_mb": round(float(memory[-1]), 2), "peak_mb": round(peak, 2),
    }  # fmt: skip


def slope_of(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Of the least squares line, and its standard error."""
    away = x - x.mean()
    spread = float(away @ away)
    slope = float(away @ y) / spread
    rest = y - y.mean() - slope * away
    return slope, float(np.sqrt(rest @ rest / max(1, len(x) - 2) / spread))


def judged(report: dict[str, Any]) -> list[dict[str, str]]:
    """One line for every bar: kept, missed, or too short to judge."""
    lines = [
        (not report["changed"], f"{len(report['changed'])} words changed, of {report['pictures']}"),
        (not report["errors"], f"{len(report['errors'])} errors, {report['refused']} damaged pictures refused"),
    ]
    for name in ("handles", "threads"):
        if name in report:
            first, last = report[name]["first"], report[name]["last"]
            lines.append((last <= first, f"{name}: {first} at first, {last} at last"))
    verdicts = [{"result": "kept" if kept else "missed", "what": what} for kept, what in lines]
    resident = report.get("resident")
    memory = report.get("memory", resident)
    if memory is not None:
        what = f"memory: {_told(memory)}, allowed: under {BAR:g}"
        if resident is not None and resident is not memory:
            what += f"; resident: {_told(resident)}"
        result = "kept" if memory["slope_mb_per_hour"] < BAR else "missed"
        if report["judged_minutes"] < ENOUGH:
            result, what = "not judged", f"{what}: needs {ENOUGH:g} minutes after the warm-up"
        verdicts.append({"result": result, "what": what})
    return verdicts


def _told(growth: dict[str, float]) -> str:
    slope, low, high, last = (growth[name] for name in ("slope_mb_per_hour", "low", "high", "last_mb"))
    return (
        f"{slope:+.2f} MB an hour ({low:+.2f} to {high:+.2f}; {growth['later_half']:+.2f} in the later half), "
        f"{last:.0f} MB at last"
    )
