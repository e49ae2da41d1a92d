"""Pictures decoded by several threads into one block of memory, as large as they are, for a GPU to resize.

What one thread does for a picture: decode it, and copy its bytes to where the GPU fetches them. Nothing of Pillow's
resize, nothing in floating point. A picture too large for that is resized here, as on any host, and goes the same way.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, Protocol

import numpy as np
from PIL import Image

from clip4str.core.errors import BackendError, ImageError
from clip4str.core.rectify import MOST_SIDE

from .images import ImageLike, fitted, is_file_like, load_image, name_of, plain_pixels
from .loading import Found, without_frames

THREADS = 16  # at most: what decodes faster than a GPU reads
PICTURE_ROOM = 1 << 18  # bytes of the block for each picture; those that need less leave it to others
LARGE = 1_000_000  # pixels; of such pictures one is decoded at a time, so that a batch takes one's memory
KEPT = 2  # blocks: one is read from while the next is filled
ALIGNMENT = 16
_NAME = "clip4str-decode"


class Block:
    """A table of where each picture lies, and their pixels behind it, in memory that is given: uint8 (bytes,).

    table: (rows, 3) int32: first byte in `pixels`, height, width; what kernels.resize takes.
    """

    def __init__(self, memory: np.ndarray, rows: int, size: tuple[int, int]) -> None:
        self.rows, self.head, self._fitted = rows, head_bytes(rows), 3 * size[0] * size[1]
        self.table = memory[: 12 * rows].view(np.int32).reshape(rows, 3)
        self.pixels = memory[self.head :]
        self._lock = threading.Lock()
        self.begin(0)

    def begin(self, count: int) -> None:
        """Empty, for `count` pictures."""
        self._next, self._waiting = 0, count

    @property
    def used(self) -> int:
        """Bytes of the whole memory, from its beginning."""
        return self.head + self._next

    def place(self, height: int, width: int) -> tuple[int, np.ndarray] | None:
        """Room for a picture: its first byte, and (height, width, 3) to fill. None where it would leave too little for
        those still to come, resized; so there always is room for one of the network's size."""
        if max(height, width) > MOST_SIDE:
            return None
        with self._lock:
            first, size = self._next, 3 * height * width
            end = first + size
            if end + self._fitted * (self._waiting - 1) > len(self.pixels):
                return None
            self._next, self._waiting = end, self._waiting - 1
        return first, self.pixels[first:end].reshape(height, width, 3)


def head_bytes(rows: int) -> int:
    """Of a table, up to the pixels."""
    return -(-12 * rows // ALIGNMENT) * ALIGNMENT


def block_bytes(rows: int, size: tuple[int, int]) -> int:
    """The memory of a Block for `rows` pictures of a network that takes `size`, (height, width)."""
    return head_bytes(rows) + rows * max(PICTURE_ROOM, 6 * size[0] * size[1])


class Slot(Protocol):
    """A block that a GPU can fetch from, and what is made of it there."""

    block: Block

    def send(self, count: int, normalization: str) -> None:
        """Brings the block to the GPU, with `count` pictures in it. Returns when it is there: the block may be filled
        anew. Called by one of the threads that decode."""

    def pixels(self, count: int, normalization: str) -> Any:
        """What Backend.read takes, of pictures that were sent."""

    def close(self) -> None:
        """Give back its memory."""


class Stager:
    """Threads that decode, and slots that they fill. Safe to share between threads.

    make(rows): a slot for as many pictures. size: (height, width) that the network takes.
    """

    def __init__(self, size: tuple[int, int], rows: int, threads: int, make: Callable[[int], Slot]) -> None:
        self.size, self.rows, self.threads = size, rows, min(threads, THREADS)
        self._make, self._large, self._lock = make, threading.Lock(), threading.Lock()
        self._idle, self._beginning = threading.Condition(self._lock), 0
        self._slots: list[Slot] = []  # all
        self._free: list[Slot] = []
        self._pool: ThreadPoolExecutor | None = ThreadPoolExecutor(self.threads, _NAME)

    def load(self, images: Sequence[ImageLike], normalization: str, owner: object = None) -> StagedLoading:
        """Begins; open files alone are read before it returns, in the caller's thread. owner: lives as long as what it
        returns. Raises what `make` does, BackendError once closed."""
        with self._lock:
            self._check_open()
            self._beginning += 1
        try:
            return StagedLoading(self, self._slot(len(images)), images, normalization, owner)
        finally:
            with self._idle:
                self._beginning -= 1
                self._idle.notify_all()

    def submit(self, work: Callable[..., None], *arguments: Any) -> Future[None]:
        with self._lock:
            return self._check_open().submit(work, *arguments)

    def put(self, image: ImageLike, block: Block) -> tuple[tuple[int, int, int], tuple[int, int]]:
        """Into the block: its row of the table, and the (width, height) it had. Raises ImageError."""
        with _Turn(self._large) as turn:
            return self._put(image, block, turn)  # which holds no picture any more when the turn ends

    def _put(
        self, image: ImageLike, block: Block, turn: Callable[[int], None]
    ) -> tuple[tuple[int, int, int], tuple[int, int]]:
        plain = plain_pixels(image) if isinstance(image, np.ndarray) else None
        picture: np.ndarray | Image.Image = load_image(image, turn) if plain is None else plain
        height, width = picture.shape[:2] if isinstance(picture, np.ndarray) else (picture.height, picture.width)
        place = block.place(height, width)
        if place is None:
            whole = load_image(picture, turn) if isinstance(picture, np.ndarray) else picture
            picture, place = fitted(whole, self.size, name_of(image)), block.place(*self.size)
            assert place is not None
        first, room = place
        room[:] = np.asarray(picture)
        return (first, *room.shape[:2]), (width, height)

    def release(self, slot: Slot) -> None:
        with self._lock:
            if slot not in self._slots:  # closed meanwhile
                return
            if len(self._free) < KEPT and slot.block.rows == self.rows:
                self._free.append(slot)
                return
            self._slots.remove(slot)
        slot.close()

    def close(self) -> None:
        """Waits for what is being decoded; what is not read yet is lost. Twice is allowed."""
        with self._idle:
            pool, self._pool = self._pool, None
            self._idle.wait_for(lambda: not self._beginning)
        if pool is not None:
            mine = threading.current_thread().name.startswith(_NAME)  # garbage is collected anywhere
            pool.shutdown(wait=not mine)
        with self._lock:
            slots, self._slots, self._free = self._slots, [], []
        for slot in slots:
            slot.close()

    def _check_open(self) -> ThreadPoolExecutor:
        if self._pool is None:
            raise BackendError("this recogniser was closed")
        return self._pool

    def _slot(self, count: int) -> Slot:
        if count <= self.rows:
            with self._lock:
                if self._free:
                    return self._free.pop()
        slot = self._make(max(count, self.rows))
        with self._lock:
            self._slots.append(slot)
        return slot


class StagedLoading:
    """A loading.Loading: a batch that a Stager's threads decode and send."""

    def __init__(
        self, stager: Stager, slot: Slot, images: Sequence[ImageLike], normalization: str, owner: object
    ) -> None:
        self._stager, self._slot, self._normalization, self._owner = stager, slot, normalization, owner
        self._images = list(images)
        self._rows: list[tuple[int, int, int] | None] = [None] * len(images)
        self._found: list[Any] = [None] * len(images)
        self._sent, self._open = 0, True
        self._tasks: list[Future[None]] = []
        slot.block.begin(len(images))
        try:
            self._begin()
        except BaseException:
            self.close()
            raise

    def _begin(self) -> None:
        """A file is read where it was opened. PIL's pictures may share one: theirs is a single thread. The others are
        taken by whoever is free."""
        files = {i for i, image in enumerate(self._images) if _is_open_file(image)}
        for i in sorted(files):
            self._put(i)
        lazy = [i for i, image in enumerate(self._images) if isinstance(image, Image.Image)]
        free = [i for i in range(len(self._images)) if i not in files and i not in set(lazy)]
        shared = iter(free)
        shares: list[Iterator[int]] = [shared] * min(self._stager.threads, len(free)) + [iter(lazy)] * bool(lazy)
        for share in shares:
            self._tasks.append(self._stager.submit(self._put_all, share))
        # The pool takes tasks in their order: when it comes to this one, those before it run or have.
        self._tasks.append(self._stager.submit(self._send, list(self._tasks)))

    def _put_all(self, share: Iterator[int]) -> None:
        for i in share:
            if not self._open:  # nobody waits for it
                return
            self._put(i)

    def _put(self, i: int) -> None:
        try:
            self._rows[i], self._found[i] = self._stager.put(self._images[i], self._slot.block)
        except ImageError as error:
            self._found[i] = without_frames(error)

    def _send(self, before: Sequence[Future[None]]) -> None:
        for task in before:
            task.result()
        rows = [row for row in self._rows if row is not None]
        if rows and self._open:
            self._slot.block.table[: len(rows)] = rows
            self._slot.send(len(rows), self._normalization)
        self._sent = len(rows)

    def wait(self) -> None:
        wait(self._tasks)
        self._images = []

    def result(self) -> tuple[Any, Found]:
        for task in self._tasks:
            task.result()
        return self._slot.pixels(self._sent, self._normalization), self._found

    def close(self) -> None:
        if self._open:
            self._open = False
            self.wait()
            self._stager.release(self._slot)


class _Turn:
    """Told how large a picture is before it is decoded; one large one at a time gets past."""

    def __init__(self, lock: threading.Lock) -> None:
        self._lock, self._held = lock, False

    def __call__(self, pixels: int) -> None:
        if pixels > LARGE and not self._held:
            self._held = self._lock.acquire()

    def __enter__(self) -> _Turn:
        return self

    def __exit__(self, *_: object) -> None:
        if self._held:
            self._lock.release()


def _is_open_file(image: object) -> bool:
    return is_file_like(image) and not isinstance(image, (Image.Image, str, os.PathLike))
