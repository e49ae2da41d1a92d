"""How a reader is, for Prometheus to fetch. docs/fleet.md lists the metrics."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from clip4str import __version__
from clip4str.core.errors import BackendError

from ..events import Event, Gap, Statistics
from ..frames import Frame
from ..listening import Server
from .base import source_name

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds
FRESH = 10.0  # seconds without a frame after which a source is not up
REASONS = 16  # of gaps, told apart: a source of one's own may name any
CONNECTIONS = 8  # at once
COUNTS = {
    "frames": ("frames", "Frames looked at"),
    "frames_dropped": ("dropped", "Frames that newer ones overtook, or that came incomplete"),
    "frames_damaged": ("damaged", "Frames decoded with errors, not looked at"),
    "searches": ("detections", "Frames in which words were searched"),
    "reads": ("reads", "Crops read"),
    "words": ("words", "Words found"),
}


class Metrics:
    """A Sink, served at http://host:port/metrics from the start on. Told every event, and by `show` every frame.

    names: of the sources, the label `source`; where two are alike, the later ones are numbered. statistics: gives those
    of each source, called by the server's threads. Raises BackendError without prometheus_client, UsageError where
    there is no listening.
    """

    def __init__(
        self, host: str, port: int, names: Sequence[str], statistics: Callable[[], Sequence[Statistics]]
    ) -> None:
        try:
            from prometheus_client import CollectorRegistry, Counter, Histogram, Info, MetricsHandler, ProcessCollector
        except ImportError:
            raise BackendError("--metrics needs prometheus_client: pip install 'clip4str[metrics]'") from None
        self.labels, self._statistics = labels(names), statistics
        self._came: dict[str, float] = {}
        self._reasons: set[str] = set()
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        Info("clip4str", "What runs here", registry=registry).info({"version": __version__})
        self._gaps = Counter(
            "clip4str_gaps", "Times of which nothing is known", ["source", "reason"], registry=registry
        )
        self._reconnects = Counter("clip4str_reconnects", "Streams opened again", ["source"], registry=registry)
        self._latency = Histogram(
            "clip4str_latency_seconds", "From a frame's being decoded to its words being followed", ["source"],
            buckets=BUCKETS, registry=registry,
        )  # fmt: skip
        for label in self.labels:
            self._reconnects.labels(label)
            self._latency.labels(label)
        registry.register(self)
        self._server = Server("--metrics", host, port, MetricsHandler.factory(registry), CONNECTIONS, "metrics")
        self.host, self.port = self._server.host, self._server.port
        self._server.start()

    def show(self, source: int, frame: Frame) -> None:
        """A frame has been read, and its events are about to be told."""
        now, label = time.monotonic(), self.labels[source]
        self._came[label] = now if frame.arrived is None else frame.arrived
        if frame.arrived is not None:
            self._latency.labels(label).observe(now - frame.arrived)

    def write(self, event: Event) -> None:
        if isinstance(event, Gap):
            known = event.reason in self._reasons or len(self._reasons) < REASONS
            reason = event.reason if known else "other"
            self._reasons.add(reason)
            self._gaps.labels(self.labels[event.source], reason).inc()
            if event.reason == "reconnected":
                self._reconnects.labels(self.labels[event.source]).inc()

    @property
    def link(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/metrics"

    def close(self) -> None:
        self._server.close()

    def collect(self) -> Iterator[Any]:
        """For prometheus_client: what is counted elsewhere, at this moment."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        statistics = [(self.labels[each.source], each) for each in self._statistics()]
        for name, (field, about) in COUNTS.items():
            counter = CounterMetricFamily(f"clip4str_{name}", about, labels=["source"])
            for label, each in statistics:
                counter.add_metric([label], getattr(each, field))
            yield counter
        spent = CounterMetricFamily("clip4str_stage_seconds", "Time spent", labels=["source", "stage"])
        for label, each in statistics:
            for stage, milliseconds in each.milliseconds.items():
                spent.add_metric([label, stage], milliseconds / 1000)
        yield spent
        up = GaugeMetricFamily("clip4str_up", f"Whether a frame came within {FRESH:g} seconds", labels=["source"])
        age = GaugeMetricFamily("clip4str_frame_age_seconds", "Since the newest frame that was read", labels=["source"])
        now = time.monotonic()
        for label in self.labels:
            came = self._came.get(label)
            up.add_metric([label], came is not None and now - came < FRESH)
            if came is not None:
                age.add_metric([label], now - came)
        yield up
        yield age


def labels(names: Sequence[str]) -> list[str]:
    """Each source's label: its name, and where it is not the first of it, a number."""
    found: list[str] = []
    for number in range(len(names)):
        label = source_name(names, number)
        found.append(f"{label} #{number + 1}" if label in found else label)
    return found
