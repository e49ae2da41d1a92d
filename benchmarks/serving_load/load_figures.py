"""Samples of a load as figures, and what they say of a server."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .arrivals import Sample

BAR_MS = 100.0  # 99 of 100 answers come within so many
SHARES = (0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 1.0)  # of what the server can do at most, offered one after the other
OVERLOAD = 3.0


def point(
    samples: Sequence[Sample], offered: float | None, seconds: float, reads: int, executions: int
) -> dict[str, Any]:
    """One load. offered: requests a second, None in a closed loop. seconds: that requests came. reads, executions: as
    the server counts."""
    outcomes = Counter(sample.outcome for sample in samples)
    read = [sample for sample in samples if sample.outcome == "read"]
    last = max((sample.due + sample.late for sample in read), default=seconds)
    return {
        "offered": offered,
        "read_a_second": round(len(read) / max(seconds, last), 2),
        **{name: outcomes[name] for name in ("read", "refused", "wrong", "failed")},
        **latency("", [sample.late for sample in read]),
        **latency("refused_", [sample.late for sample in samples if sample.outcome == "refused"]),
        "pictures_a_batch": round(reads / executions, 2) if executions else None,
        "errors": sorted({sample.error for sample in samples if sample.error})[:3],
    }


def latency(prefix: str, seconds: Sequence[float]) -> dict[str, float | None]:
    shares = (50, 95, 99)
    found = np.percentile(1000 * np.array(seconds), shares).tolist() if seconds else [None] * len(shares)
    return {f"{prefix}p{share}_ms": None if v is None else round(v, 2) for share, v in zip(shares, found)}


def within_bar(points: Sequence[Mapping[str, Any]], bar_ms: float = BAR_MS) -> dict[str, Any] | None:
    """The largest load whose 99th percentile is within the bar, every request read, as of all smaller ones."""
    best = None
    for one in sorted(points, key=lambda one: one["offered"]):
        lost = one["refused"] + one["wrong"] + one["failed"]
        if lost or one["p99_ms"] is None or one["p99_ms"] >= bar_ms:
            break
        best = dict(one)
    return best
