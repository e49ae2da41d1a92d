"""A replica's metrics, which Ray gathers and shows to Prometheus at every machine's metrics port."""

from __future__ import annotations

from ray.util.metrics import Counter, Gauge, Histogram

SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]
IMAGES = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0]


class RayFigures:
    """A service.Figures. bundle: a label of all."""

    def __init__(self, bundle: str) -> None:
        tags = {"bundle": bundle}
        self._answers = Counter("clip4str_answers", "Requests answered", ("path", "status", "bundle"))
        self._seconds = Histogram("clip4str_answer_seconds", "From a request's head to its answer's end", SECONDS,
                                  ("path", "bundle"))  # fmt: skip
        self._images = Counter("clip4str_images", "Images read", ("bundle",))
        self._unreadable = Counter("clip4str_unreadable_images", "Images that could not be read", ("bundle",))
        self._batch = Histogram("clip4str_batch_images", "Images read at once", IMAGES, ("bundle",))
        self._batch_seconds = Histogram("clip4str_batch_seconds", "Time that a batch takes", SECONDS, ("bundle",))
        self._waiting = Gauge("clip4str_waiting_images", "Images that are read or wait for it", ("bundle",))
        for each in (self._answers, self._seconds, self._images, self._unreadable, self._batch, self._batch_seconds,
                     self._waiting):  # fmt: skip
            each.set_default_tags(tags)

    def answered(self, path: str, status: int, seconds: float) -> None:
        self._answers.inc(tags={"path": path, "status": str(status)})
        self._seconds.observe(max(seconds, 1e-9), {"path": path})

    def batch(self, images: int, unreadable: int, seconds: float) -> None:
        self._images.inc(images)
        if unreadable:
            self._unreadable.inc(unreadable)
        self._batch.observe(images)
        self._batch_seconds.observe(max(seconds, 1e-9))

    def waiting(self, images: int) -> None:
        self._waiting.set(images)
