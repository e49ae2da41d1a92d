"""What answers requests: admits as many images as can be read soon, and reads them in batches of many requests."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, contextmanager
from typing import Any, Protocol

import numpy as np

from clip4str.core.errors import BackendError, Clip4StrError, ImageError, NonFiniteError
from clip4str.runtime import Recognizer, Word, load_image

from ..nameless import Nameless, without_name
from ..versions import bundle_version
from .batcher import Batcher
from .refusals import Refused
from .server_settings import Settings

PHOTO = 16  # a photo counts as so many images
REQUESTS = 8  # of the largest size that may be held at once
STUCK = 120.0  # seconds that a batch may take before the replica is taken for dead


class Figures(Protocol):
    """Metrics, see ray_metrics."""

    def answered(self, path: str, status: int, seconds: float) -> None: ...

    def batch(self, images: int, unreadable: int, seconds: float) -> None: ...

    def waiting(self, images: int) -> None: ...


class Service:
    """workers: batches that are read beside each other."""

    def __init__(
        self, recognizer: Recognizer, settings: Settings, figures: Figures, detector: Any = None, workers: int = 1
    ) -> None:
        self.recognizer, self.settings, self.figures, self.detector = recognizer, settings, figures, detector
        self.version, self.waiting = bundle_version(recognizer.manifest), 0
        self._held = 0
        self._batcher = Batcher(self.read_batch, recognizer.batch_size, settings.wait_ms / 1000, workers)
        self._pool = ThreadPoolExecutor(workers, "clip4str-read")
        self._photos = ThreadPoolExecutor(1, "clip4str-photo")
        self._running: dict[int, float] = {}
        self._failed = ""

    @contextmanager
    def admitted(self, images: int = 0, size: int = 0) -> Iterator[None]:
        """Raises Refused at once where so many images would have to wait too long, or where requests of so many bytes
        would take too much memory."""
        too_many = self.waiting + images > self.settings.max_waiting
        if too_many or self._held + size > REQUESTS * self.settings.max_bytes:
            raise Refused("overloaded", "too many pictures are waiting; try again soon", {"Retry-After": "1"})
        self.waiting, self._held = self.waiting + images, self._held + size
        self.figures.waiting(self.waiting)
        try:
            yield
        finally:
            self.waiting, self._held = self.waiting - images, self._held - size
            self.figures.waiting(self.waiting)

    async def words(self, images: Sequence[bytes]) -> list[dict[str, Any]]:
        """In their order, see as_answer. Raises Refused."""
        async with aclosing(self.words_as_read(images)) as words:
            return [word async for word in words]

    async def words_as_read(self, images: Sequence[bytes]) -> AsyncGenerator[dict[str, Any], None]:
        """In their order, each as soon as it and those before it are read. Raises Refused."""
        async with aclosing(self._batcher.found(images)) as words:
            async for word in words:
                yield as_answer(word)

    async def read_batch(self, images: list[bytes]) -> list[Word | ImageError | NonFiniteError]:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, self._read_batch, images)
        except BackendError as error:
            self._failed = str(error)
            raise Refused("unavailable", "the network cannot read at the moment") from error

    def _read_batch(self, images: list[bytes]) -> list[Word | ImageError | NonFiniteError]:
        began = self._running[threading.get_ident()] = time.monotonic()
        try:
            found = self.recognizer.read_each([Nameless(image) for image in images])
        finally:
            del self._running[threading.get_ident()]
        unreadable = sum(not isinstance(word, Word) for word in found)
        self.figures.batch(len(images), unreadable, time.monotonic() - began)
        return found

    async def photo(self, image: bytes, least: float) -> dict[str, Any]:
        """Raises Refused."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._photos, self._read_photo, image, least)
        except ImageError as error:
            raise Refused("unprocessable", without_name(error)) from None
        except Clip4StrError as error:
            self._failed = str(error)
            raise Refused("unavailable", "the network cannot read at the moment") from error

    def _read_photo(self, image: bytes, least: float) -> dict[str, Any]:
        from clip4str.video import read_photo

        pixels = np.asarray(load_image(Nameless(image)))
        words = [
            {"text": found.word.text, "confidence": found.word.confidence, "score": round(float(found.score), 4),
             "quad": np.round(found.quad.astype(float), 1).tolist()}
            for found in read_photo(self.recognizer, self.detector, pixels, least)
        ]  # fmt: skip
        return {"width": pixels.shape[1], "height": pixels.shape[0], "words": words}

    def check(self) -> None:
        """Raises BackendError where this replica is to be replaced."""
        if self._failed:
            raise BackendError(self._failed)
        if any(time.monotonic() - began > STUCK for began in list(self._running.values())):
            raise BackendError(f"a batch has been read for over {STUCK:g} seconds")


def as_answer(word: Word | ImageError | NonFiniteError) -> dict[str, Any]:
    """{"text", "confidence", "char_confidences", "hint"}, or {"error": {"type", "message"}}."""
    if isinstance(word, Word):
        return {"text": word.text, "confidence": word.confidence, "char_confidences": list(word.char_confidences),
                "hint": word.hint}  # fmt: skip
    if isinstance(word, ImageError):
        return {"error": {"type": "image", "message": without_name(word)}}
    return {"error": {"type": "network", "message": "the network's arithmetic has no answer for this picture"}}
