"""The network on engines, in the four functions of core/driver.py, and `read`."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import numpy as np

from clip4str.core.cpu import available_threads
from clip4str.core.driver import PredictAndRefine
from clip4str.core.errors import BackendError
from clip4str.core.masks import Rule
from clip4str.core.reading import Pass, Reading, Stages

from ...bundle import Bundle
from ...cuda import CudaContextLost, CudaOutOfMemory
from ...images import ImageLike
from ...loading import Loading
from ...staging import Stager
from ..contract import Options
from ..memory_limits import read_in_parts, shrink
from .crops import Crops
from .frames import FrameBackend
from .inputs import DevicePixels, accept_pixels
from .pictures import PictureSlot
from .rows import BatchOutput, Gathered, Rows, check_current, copy_runs
from .session import Pipeline, Session


class TrtBackend(FrameBackend):
    """The stages, and `read`, which splits batches, makes do with less memory, and goes in one launch where it can.

    Batches are padded to 1, 2, 4 ... images or the largest, each with CUDA graphs of its own, of all of it or one per
    stage, captured when they are first needed. Keys and values stay on the GPU. Pixels that lie there already, float32,
    contiguous and aligned to 256 bytes, are read where they are, without a graph; others, and all for one launch, are
    copied.

    with_logits: Pass.logits are wanted, as arrays; they cost a copy per pass. batch_size: images that a batch may have.
    Safe to share between threads, which take turns; instances do not know of each other. close(), or dropping the
    last reference, gives everything back.

    All calls raise BackendError if CUDA or TensorRT fail; what they raise it for is the call's own, the next may work.
    """

    flexible_steps, on_gpu = False, True

    def __init__(self, bundle: Bundle, driver: PredictAndRefine, options: Options) -> None:
        self.folder, self.manifest, self.with_logits = bundle.folder, bundle.manifest, False
        self._lock, self._lost, self._generation = threading.RLock(), "", 0
        self._captions = Gathered()
        how = driver.decoding
        self._drafts = bool(bundle.manifest.draft_positions) and how.draft and how.decode == "ar"
        self._session = Session(bundle, driver, options)
        most = self._session.profile["max"]
        super().__init__(self.manifest.image_size, min(options.batch_size or most, most))
        self.compiled_kernels = self._session.weights is not None
        self.resizes, self._decoders = True, options.threads or available_threads()
        self._finalizer = weakref.finalize(self, self._session.close)

    @property
    def largest(self) -> int:
        pipeline = self._session.pipeline
        return self.batch_size if pipeline is None else min(self.batch_size, pipeline.largest)

    @property
    def one_launch(self) -> bool:
        """Is a batch read in one launch, rather than stage by stage?"""
        pipeline = self._session.pipeline
        return pipeline is not None and pipeline.program is not None and pipeline.program.usable

    def close(self) -> None:
        """Gives back all that is held on the GPU. Twice is allowed."""
        with self._lock:
            self._finalizer()

    # The stage functions of core/driver.py

    def image(self, pixels: Any) -> tuple[Any, ...]:
        """pixels: numpy float32 (N, 3, H, W), or what `accept` takes. Keys and values hold until the next call."""
        with self._entered() as pipeline:
            pixels = pixels if isinstance(pixels, (DevicePixels, Crops)) else self.accept(pixels)
            n = len(pixels)
            rows = pipeline.bucket(n)
            self._generation += 1
            stage, buffer = pipeline.stages["image"], pipeline.buffers["image.pixels"]
            if isinstance(pixels, DevicePixels):
                address = self._place(pixels, buffer.address, rows)
                stage.run_at(n if address != buffer.address else rows, {"pixels": address})
            else:
                stage.run(rows, filled=self._fill(pipeline, pixels))
            keys_values = [BatchOutput(self, name, n, self._generation) for name in ("visual_kv", "cross_kv")]
            if not self._drafts:
                return tuple(keys_values)
            self._session.stream.synchronise()  # a word's worth of numbers; collapsed on the host they cost a pass less
            return *keys_values, pipeline.buffers["image.draft"].values(n)

    def visual(self, tokens: np.ndarray, rule: Rule, visual_kv: Any) -> Pass:
        """visual_kv: of image(), or an array (N, 2, h, M, e)."""
        return self._pass("visual", tokens, rule, {"visual_kv": visual_kv})

    def text(self, bpe: np.ndarray) -> Rows:
        """Every row gets memory of its own, which is free again when the row is dropped."""
        with self._entered() as pipeline:
            slots = self._session.slots
            if slots is None:
                raise BackendError("loaded for the visual branch alone: there is no text tower")
            n = len(bpe)
            pipeline.buffers["text.bpe"].write(bpe)
            pipeline.stages["text"].run(pipeline.bucket(n))
            rows, first = slots.take(n), pipeline.buffers["text.text_kv"].address
            pairs = [(row.address, first + i * slots.row_bytes) for i, row in enumerate(rows)]
            copy_runs(self._session.stream, pairs, slots.row_bytes)
            return Rows(self, rows)

    def cross(self, tokens: np.ndarray, rule: Rule, cross_kv: Any, text_kv: Any) -> Pass:
        """text_kv: of stack() or text(), or an array."""
        return self._pass("cross", tokens, rule, {"cross_kv": cross_kv, "text_kv": text_kv})

    def stack(self, rows: Sequence[Any]) -> Rows:
        return Rows(self, list(rows))

    # What Recognizer asks for

    def accept(self, pixels: Any) -> np.ndarray | DevicePixels | Crops:
        """Pixels of any kind that inputs.accept_pixels takes, and what `crop` gives, as what can be cut by rows. Raises
        ImageError."""
        if isinstance(pixels, Crops) and pixels.owner is self:
            return pixels
        with self._entered():
            return accept_pixels(pixels, self.manifest.image_size, self._session.stream)

    def load(self, images: Sequence[ImageLike], normalization: str = "half") -> Loading:
        """As the contract's. Where the compiled kernels are, pictures are decoded by threads and sent as they are;
        without memory for that, on the host."""
        stager = self._stager() if self.resizes else None
        if stager is not None:
            with suppress(CudaOutOfMemory):
                return stager.load(images, normalization, self)
        return super().load(images, normalization)

    def finite_rows(self, pixels: np.ndarray | DevicePixels | Crops) -> np.ndarray:
        """As the contract's."""
        if isinstance(pixels, Crops):  # whole numbers, normalised
            return np.ones(len(pixels), bool)
        if not isinstance(pixels, DevicePixels):
            return super().finite_rows(pixels)
        with self._entered():
            rows = (pixels.row(self._session.stream, i) for i in range(len(pixels)))
            return np.array([np.isfinite(row).all() for row in rows])

    def read(
        self, driver: PredictAndRefine, pixels: np.ndarray | DevicePixels | Crops, stages: Stages | None = None
    ) -> Reading:
        """What driver(self, pixels) would read, for any number of images but none."""
        attempt = partial(self._attempt, driver, stages or self)
        with self._lock:
            return read_in_parts(pixels, lambda: self.largest, attempt, self._shrink)

    def warm_up(self, driver: PredictAndRefine, sizes: Sequence[int]) -> None:
        """Grey images read alike, so the text stage is warmed up for any number of captions by itself; the image stage
        for words of a frame, too, which are cut into its input. In one launch: resuming and rereading, too."""
        super().warm_up(driver, sizes)
        with self._entered() as pipeline:
            buckets = {pipeline.bucket(min(size, pipeline.largest)) for size in sizes}
            program = pipeline.program if self.one_launch else None
            for rows in sorted(buckets, reverse=True):
                if program is not None:
                    program.warm_up(rows)
                else:
                    pipeline.stages["image"].run(rows, filled=True)
            for rows in pipeline.buckets if "text" in pipeline.stages and program is None else ():
                if rows <= max(buckets):
                    pipeline.stages["text"].run(rows)
            self._forget()
            self._session.stream.synchronise()

    def download(self, value: BatchOutput | Rows) -> np.ndarray:
        """Keys and values as an array on the host."""
        with self._entered() as pipeline:
            if isinstance(value, Rows):
                return value.on_host()
            check_current(value, self, self._generation)
            buffer = pipeline.buffers[f"image.{value.name}"]
            return self._session.stream.download(np.empty((value.n, *buffer.shape), buffer.dtype), buffer.address)

    # How

    def _attempt(self, driver: PredictAndRefine, stages: Stages, pixels: Any) -> Reading | None:
        """None if memory ran out; the error is let go of here, with what its traceback holds."""
        try:
            with self._entered() as pipeline:
                program = pipeline.program
                mine = program is not None and program.usable and program.one.serves(driver)
                if program is None or not mine or stages is not self or self.with_logits:
                    return driver(stages, pixels)
                self._generation += 1
                rows = pipeline.bucket(len(pixels))
                return program.read(driver, len(pixels), rows, self._fill(pipeline, pixels))
        except CudaOutOfMemory:
            return None

    def _shrink(self, n: int) -> None:
        """Fewer images at a time from now on. Raises BackendError below one image."""

        def rebuild(largest: int) -> None:
            self._forget()
            self._session.build(largest)

        with self._entered(build=False):
            shrink(self._session.cuda.device.name, n, self.largest, rebuild, stacklevel=6)

    def _stager(self) -> Stager | None:
        """None without the compiled kernels."""
        s = self._session
        if s.pictures is None and not s.cropping.reason:
            with self._entered():
                if s.pictures is None and self._cropper("", quietly=True) is not None:
                    make = partial(PictureSlot, size=self.image_size, cuda=s.cuda, owner=weakref.ref(self))
                    s.stage(Stager(self.image_size, self.batch_size, self._decoders, make))
        return s.pictures

    def _forget(self) -> None:
        """What earlier calls have left in the buffers is not there any more."""
        self._generation += 1
        self._captions.forget()

    def _pass(self, stage: str, tokens: np.ndarray, rule: Rule, memory: dict[str, Any]) -> Pass:
        with self._entered() as pipeline:
            n, steps = len(tokens), self.manifest.config["steps"]
            rows = pipeline.bucket(n)
            if tokens.shape != (n, steps) or rule.queries != steps or len(rule.keep) != n:
                raise BackendError(
                    f"engines have one length: the {stage} stage takes {steps} tokens, not {tokens.shape[1]}"
                )
            if f"{stage}.{stage}_kv" not in pipeline.buffers:
                raise BackendError("loaded for the visual branch alone: there is no cross-modal decoder")
            elsewhere = self._memory_of(pipeline, stage, n, memory)
            if pipeline.decoders is not None:
                buffers = pipeline.decoders.run(stage, tokens, rule, rows, elsewhere)
            else:
                names = ("tokens", "attend", "ids", "probs", "logits")
                buffers = {name: pipeline.buffers[f"{stage}.{name}"] for name in names}
                buffers["tokens"].write(tokens)
                buffers["attend"].write(rule.mask(steps))
                if elsewhere:
                    pipeline.stages[stage].run_at(rows, elsewhere)
                else:
                    pipeline.stages[stage].run(rows)
            logits = None
            if self.with_logits:
                area = buffers["logits"]
                logits = self._session.stream.download(np.empty((n, *area.shape), area.dtype), area.address)
            self._session.stream.synchronise()
            return Pass(buffers["ids"].values(n), buffers["probs"].values(n), logits)

    def _memory_of(self, pipeline: Pipeline, stage: str, n: int, memory: dict[str, Any]) -> dict[str, int]:
        """Puts keys and values where the stage reads them; the addresses of those that cannot be."""
        elsewhere = {}
        for name, value in memory.items():
            if len(value) != n:
                raise BackendError(f"{name} is of {len(value)} images, the {stage} stage was given tokens of {n}")
            if isinstance(value, BatchOutput):
                check_current(value, self, self._generation)
            elif isinstance(value, Rows):
                self._captions.put(value, pipeline.buffers["cross.text_kv"], self._session.slots, self._session.stream)
            else:
                buffer, key = pipeline.buffers[f"{stage}.{name}"], f"{stage}.{name}"
                if tuple(value.shape[1:]) != buffer.shape:
                    raise BackendError(f"{name} is {value.shape}, the {stage} stage takes (N, {str(buffer.shape)[1:]}")
                elsewhere[name] = pipeline.upload_area(key)
                self._session.stream.upload(elsewhere[name], np.asarray(value, buffer.dtype))
        return elsewhere

    def _place(self, pixels: DevicePixels, address: int, rows: int) -> int:
        """Where the image stage shall read pixels that are on the device: there, or copied to the buffer."""
        session, n = self._session, len(pixels)
        fits = n >= session.least and (n == rows or not session.engines["image"].on_rtx)
        if pixels.usable_in_place and fits:
            return pixels.address
        pixels.copy(session.stream, address)
        return address

    def _fill(self, pipeline: Pipeline, pixels: Any) -> bool:
        """Puts pixels where the image stage reads them; are they on the device already?"""
        buffer = pipeline.buffers["image.pixels"]
        if isinstance(pixels, Crops):
            self._cropper("a word of a frame").cut(pixels, buffer.address, pipeline.quads)
        elif isinstance(pixels, DevicePixels):
            pixels.copy(self._session.stream, buffer.address)
        else:
            buffer.write(pixels)
        return isinstance(pixels, (Crops, DevicePixels))

    @contextmanager
    def _entered(self, build: bool = True) -> Iterator[Pipeline]:
        """One thread at a time, with the context current. build: make a pipeline if there is none."""
        with self._lock:
            if self._lost:
                raise CudaContextLost(self._lost)
            if not self._finalizer.alive:
                raise BackendError("this recogniser was closed")
            try:
                with self._session.cuda.current():
                    pipeline = self._session.pipeline
                    if pipeline is None and build:
                        self._forget()
                        pipeline = self._session.build(1)
                    yield pipeline  # type: ignore[misc]  # None only to who builds it
            except CudaContextLost as error:
                self._lost = str(error)
                raise
