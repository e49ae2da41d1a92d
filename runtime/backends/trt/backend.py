"""The network on engines, in the four functions of runtime/driver.py, and `read`."""

from __future__ import annotations

import threading
import warnings
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from clip4str.core.driver import Pass, PredictAndRefine, Reading
from clip4str.core.errors import BackendError
from clip4str.core.masks import Sight

from ...bundle import Bundle
from ...cuda import CudaContextLost, CudaOutOfMemory
from .inputs import DevicePixels, accept_pixels
from .machine import Machine, Plant
from .rows import Held, Row, Rows, check_current, copy_runs


class TrtBackend:
    """The stages, and `read`, which splits batches and makes do with less memory.

    Batches are padded to 1, 2, 4 ... images or the largest, each with its own CUDA graph per stage, captured when it is
    first needed. Keys and values stay on the GPU. Pixels that lie there already, float32, contiguous and aligned to 256
    bytes, are read where they are, without a graph; others are copied.

    with_logits: Pass.logits are wanted, as arrays; they cost a copy per pass. batch_size: images that a batch may have.
    Safe to share between threads, which take turns; instances do not know of each other. close(), or dropping the
    last reference, gives everything back.

    All calls raise BackendError if CUDA or TensorRT fail; what they raise it for is the call's own, the next may work.
    """

    flexible_steps = False

    def __init__(self, bundle: Bundle, driver: PredictAndRefine, options: Any) -> None:
        self.folder, self.manifest, self.with_logits = bundle.folder, bundle.manifest, False
        self._lock, self._lost, self._generation = threading.RLock(), "", 0
        self._gathered: Any = lambda: None  # a weak reference to the Rows that lie in the cross stage's text_kv
        how = driver.decoding
        self._drafts = bool(bundle.manifest.draft_positions) and how.draft and how.decode == "ar"
        self._machine = Machine(bundle, driver, options)
        self.batch_size = min(options.batch_size or self._machine.profile["max"], self._machine.profile["max"])
        self._finalizer = weakref.finalize(self, self._machine.close)

    @property
    def sees_modes(self) -> bool:
        """Do the compiled kernels decode? They make masks themselves."""
        return self._machine.weights is not None

    @property
    def largest(self) -> int:
        """Images that are read at a time: the batch size, less once memory has run out."""
        plant = self._machine.plant
        return self.batch_size if plant is None else min(self.batch_size, plant.largest)

    def close(self) -> None:
        """Gives back all that is held on the GPU. Twice is allowed."""
        with self._lock:
            self._finalizer()

    # The stage functions of runtime/driver.py

    def image(self, pixels: Any) -> tuple[Any, ...]:
        """pixels: numpy float32 (N, 3, H, W), or what `accept` takes. Keys and values hold until the next call."""
        with self._entered() as plant:
            pixels = pixels if isinstance(pixels, DevicePixels) else self.accept(pixels)
            n = len(pixels)
            rows = plant.bucket(n)
            self._generation += 1
            stage, buffer = plant.stages["image"], plant.buffers["image.pixels"]
            if isinstance(pixels, DevicePixels):
                address = self._place(pixels, buffer.address, rows)
                stage.run_at(n if address != buffer.address else rows, {"pixels": address})
            else:
                buffer.write(pixels)
                stage.run(rows)
            keys_values = [Held(self, name, n, self._generation) for name in ("visual_kv", "cross_kv")]
            if not self._drafts:
                return tuple(keys_values)
            self._machine.lane.synchronise()  # a word's worth of numbers; collapsed on the host they cost a pass less
            return *keys_values, plant.buffers["image.draft"].values(n)

    def visual(self, tokens: np.ndarray, attend: np.ndarray | Sight, visual_kv: Any) -> Pass:
        """visual_kv: of image(), or an array (N, 2, h, M, e)."""
        return self._pass("visual", tokens, attend, {"visual_kv": visual_kv})

    def text(self, bpe: np.ndarray) -> Rows:
        """Every row gets memory of its own, which is free again when the row is dropped."""
        with self._entered() as plant:
            slots = self._machine.slots
            if slots is None:
                raise BackendError("loaded for the visual branch alone: there is no text tower")
            n = len(bpe)
            plant.buffers["text.bpe"].write(bpe)
            plant.stages["text"].run(plant.bucket(n))
            rows, first = slots.take(n), plant.buffers["text.text_kv"].address
            pairs = [(row.address, first + i * slots.row_bytes) for i, row in enumerate(rows)]
            copy_runs(self._machine.lane, pairs, slots.row_bytes)
            return Rows(self, rows)

    def cross(self, tokens: np.ndarray, attend: np.ndarray | Sight, cross_kv: Any, text_kv: Any) -> Pass:
        """text_kv: of stack() or text(), or an array."""
        return self._pass("cross", tokens, attend, {"cross_kv": cross_kv, "text_kv": text_kv})

    def stack(self, rows: Sequence[Any]) -> Rows:
        return Rows(self, list(rows))

    # What Recognizer asks for

    def accept(self, pixels: Any) -> np.ndarray | DevicePixels:
        """Pixels of any kind that inputs.accept_pixels takes, as what can be cut by rows. Raises ImageError."""
        with self._entered():
            return accept_pixels(pixels, self.manifest.image_size, self._machine.lane)

    def read(self, driver: PredictAndRefine, pixels: np.ndarray | DevicePixels) -> Reading:
        """What driver(self, pixels) would read, for any number of images but none."""
        readings = []
        with self._lock:
            while len(pixels):
                part = pixels[: self.largest]
                reading = self._attempt(driver, part)
                if reading is None:
                    self._shrink(len(part))
                else:
                    readings.append(reading)
                    pixels = pixels[len(part) :]
        return Reading.joined(readings)

    def download(self, value: Held | Rows) -> np.ndarray:
        """Keys and values as an array on the host."""
        with self._entered() as plant:
            if isinstance(value, Rows):
                return np.stack([row.slots.read(row.address) if isinstance(row, Row) else row for row in value.rows])
            check_current(value, self, self._generation)
            buffer = plant.buffers[f"image.{value.name}"]
            return self._machine.lane.download(np.empty((value.n, *buffer.shape), buffer.dtype), buffer.address)

    # How

    def _attempt(self, driver: PredictAndRefine, pixels: Any) -> Reading | None:
        """None if memory ran out; the error is let go of here, with what its traceback holds."""
        try:
            with self._entered():
                return driver(self, pixels)
        except CudaOutOfMemory:
            return None

    def _shrink(self, n: int) -> None:
        """Fewer images at a time from now on. Raises BackendError below one image."""
        machine = self._machine
        with self._entered(build=False):
            name, largest = machine.cuda.device.name, self.largest
            # A single image may only lack what the buffers of larger batches took.
            smaller = max((1 << i for i in range(n.bit_length()) if 1 << i < n), default=1 if largest > 1 else 0)
            self._forget()
            machine.build(max(1, smaller))
            if not smaller:
                raise BackendError(f"out of memory on {name} with a single image; free some and read again")
            warnings.warn(
                f"out of memory on {name} with {n} images: reading {smaller} at a time from now on",
                RuntimeWarning,
                stacklevel=5,
            )

    def _forget(self) -> None:
        """What earlier calls have left in the buffers is not there any more."""
        self._generation += 1
        self._gathered = lambda: None

    def _pass(self, stage: str, tokens: np.ndarray, attend: Any, memory: dict[str, Any]) -> Pass:
        with self._entered() as plant:
            n, steps = len(tokens), self.manifest.config["steps"]
            rows = plant.bucket(n)
            if tokens.shape != (n, steps) or (isinstance(attend, np.ndarray) and attend.shape != (n, steps, steps)):
                raise BackendError(
                    f"engines have one length: the {stage} stage takes {steps} tokens, not {tokens.shape[1]}"
                )
            if f"{stage}.{stage}_kv" not in plant.buffers:
                raise BackendError("loaded for the visual branch alone: there is no cross-modal decoder")
            elsewhere = self._memory_of(plant, stage, n, memory)
            if plant.decoders is not None:
                buffers = plant.decoders.run(stage, tokens, attend, rows, elsewhere)
            else:
                names = ("tokens", "attend", "ids", "probs", "logits")
                buffers = {name: plant.buffers[f"{stage}.{name}"] for name in names}
                buffers["tokens"].write(tokens)
                buffers["attend"].write(attend)
                if elsewhere:
                    plant.stages[stage].run_at(rows, elsewhere)
                else:
                    plant.stages[stage].run(rows)
            logits = None
            if self.with_logits:
                area = buffers["logits"]
                logits = self._machine.lane.download(np.empty((n, *area.shape), area.dtype), area.address)
            self._machine.lane.synchronise()
            return Pass(buffers["ids"].values(n), buffers["probs"].values(n), logits)

    def _memory_of(self, plant: Plant, stage: str, n: int, memory: dict[str, Any]) -> dict[str, int]:
        """Puts keys and values where the stage reads them; the addresses of those that cannot be."""
        elsewhere = {}
        for name, value in memory.items():
            if len(value) != n:
                raise BackendError(f"{name} is of {len(value)} images, the {stage} stage was given tokens of {n}")
            if isinstance(value, Held):
                check_current(value, self, self._generation)
            elif isinstance(value, Rows):
                self._gather(plant, value)
            else:
                buffer, key = plant.buffers[f"{stage}.{name}"], f"{stage}.{name}"
                if tuple(value.shape[1:]) != buffer.shape:
                    raise BackendError(f"{name} is {value.shape}, the {stage} stage takes (N, {str(buffer.shape)[1:]}")
                elsewhere[name] = plant.upload_area(key)
                self._machine.lane.upload(elsewhere[name], np.asarray(value, buffer.dtype))
        return elsewhere

    def _gather(self, plant: Plant, text: Rows) -> None:
        """Captions' rows to where the cross stage reads them, unless they are there still."""
        if self._gathered() is text:
            return
        self._gathered = lambda: None
        buffer, lane, pairs = plant.buffers["cross.text_kv"], self._machine.lane, []
        for i, row in enumerate(text.rows):
            to = buffer.address + i * buffer.row_bytes
            if isinstance(row, Row) and row.slots is self._machine.slots:
                pairs.append((to, row.address))
            else:  # an array, or another recogniser's
                lane.upload(to, np.asarray(row.slots.read(row.address) if isinstance(row, Row) else row, buffer.dtype))
        copy_runs(lane, pairs, buffer.row_bytes)
        self._gathered = weakref.ref(text)

    def _place(self, pixels: DevicePixels, address: int, rows: int) -> int:
        """Where the image stage shall read pixels that are on the device: there, or copied to the buffer."""
        machine, n = self._machine, len(pixels)
        fits = n >= machine.least and (n == rows or not machine.engines["image"].on_rtx)
        if pixels.usable_in_place and fits:
            return pixels.address
        pairs = [(address + i * pixels.row_bytes, pixels.address + i * pixels.stride) for i in range(n)]
        copy_runs(machine.lane, pairs, pixels.row_bytes)
        return address

    @contextmanager
    def _entered(self, build: bool = True) -> Iterator[Plant]:
        """One thread at a time, with the context current. build: make a plant if there is none."""
        with self._lock:
            if self._lost:
                raise CudaContextLost(self._lost)
            if not self._finalizer.alive:
                raise BackendError("this recogniser was closed")
            try:
                with self._machine.cuda.current():
                    plant = self._machine.plant
                    if plant is None and build:
                        self._forget()
                        plant = self._machine.build(1)
                    yield plant  # type: ignore[misc]  # None only to who builds it
            except CudaContextLost as error:
                self._lost = str(error)
                raise
