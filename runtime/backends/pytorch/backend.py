"""The torch backend: one program for a whole batch, more passes for the rows that it could not settle."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clip4str.core.cpu import available_threads
from clip4str.core.driver import PredictAndRefine
from clip4str.core.errors import BackendError, Clip4StrError, first_line
from clip4str.core.reading import Reading, Stages
from clip4str.core.thumbnail import thumbnail_size
from clip4str.kernels.crop_resize.config import MOST_OUTPUT

from ...images import ImageLike
from ...loading import Loading
from ...staging import Stager
from ..contract import Backend
from ..memory_limits import read_in_parts, shrink
from .graphs import BUCKETS, GraphLayer, attempt, bucket_for, is_out_of_memory, read_driven, release_memory
from .inputs import accept_pixels, as_tensor, from_numpy
from .pictures import PictureSlot
from .prepared import Prepared, compile_in_processes, launch_once
from .program import Program
from .runner import EagerRunner, GraphRunner, Runner
from .stages import TorchStages
from .weights import Weights


class TorchBackend(TorchStages, Backend):
    """The stages, and `read`, which does without the driver where it can.

    program: None where there can be none (several rounds of refinement, captions that the device cannot tokenize):
    then the driver calls the stages. batch_size: most images at a time, up to 256; larger batches are split. layer:
    what captures CUDA graphs, None to launch every operator by itself. decoders: threads that decode pictures where a
    GPU resizes them, None for all that this process may use.

    Safe to share between threads: the program's buffers are one reader's at a time. A word does not depend on the
    others of its batch but for the rounding of matrix products, whose kernels are chosen by the number of rows. No
    string visits the host in the program, so it knows no cache of captions; the driver's is used where the driver is.
    """

    name = "torch"

    def __init__(
        self, weights: Weights, program: Program | None, batch_size: int, layer: GraphLayer | None,
        decoders: int | None = None,
    ) -> None:  # fmt: skip
        TorchStages.__init__(self, weights)
        Backend.__init__(self, weights.config.image_size, min(batch_size, BUCKETS[-1]))
        self.program = program
        self.on_gpu = self.resizes = weights.device.type == "cuda"
        self.device, self.dtype = weights.device, weights.dtype
        self.threads = torch.get_num_threads()
        self._layer, self._lock = layer, threading.Lock()
        self._decoders, self._staging = decoders or available_threads(), threading.Lock()
        self._stager: Stager | None = None
        self.prepared = Prepared(partial(launch_once, program) if program is not None and self.on_gpu else None)
        self._runner = None if program is None else self._make_runner(program, self.batch_size)

    @property
    def largest(self) -> int:
        """Images that are read at a time: the batch size, less once memory has run out."""
        return self.batch_size if self._runner is None else self._runner.largest

    @property
    def driven(self) -> bool:
        return self._runner is None

    def accept(self, pixels: Any) -> Tensor:
        """Normalised pixels of any kind that inputs.accept_pixels takes. Raises ImageError."""
        return accept_pixels(pixels, self.weights.config.image_size, self.device)

    def load(self, images: Sequence[ImageLike], normalization: str = "half") -> Loading:
        """As the contract's. Where the GPU resizes, pictures are decoded by threads and sent as they are; without
        memory for that, on the host."""
        if self.resizes and max(self.image_size) <= MOST_OUTPUT:
            try:
                with _typed("making room for pictures"):
                    return self._picture_stager().load(images, normalization, self)
            except BackendError as error:
                if not is_out_of_memory(error):
                    raise
                release_memory()
        return super().load(images, normalization)

    def close(self) -> None:
        """Ends the threads that decode; the next pictures start others. The GPU's memory goes with the backend."""
        with self._staging:
            stager, self._stager = self._stager, None
        if stager is not None:
            stager.close()

    def _picture_stager(self) -> Stager:
        dtype = torch.float16 if self.dtype == torch.float16 else torch.float32
        make = partial(PictureSlot, size=self.image_size, device=self.device, dtype=dtype)
        with self._staging:
            if self._stager is None:
                self._stager = Stager(self.image_size, self.batch_size, self._decoders, make)
            return self._stager

    def finite_rows(self, pixels: Tensor) -> np.ndarray:
        """As the contract's."""
        return pixels.isfinite().flatten(1).all(dim=1).cpu().numpy()

    def crop(self, frame: Any, quads: Any, **how: Any) -> Tensor:
        """Words cut out of a frame, normalised: (N, 3, H, W), see kernels.crop_resize, whose errors it raises.

        frame: of any kind that `accept` takes, on the host or the device, or a pair of them (luma, chroma). Raises
        BackendError too, if torch or Triton fail.
        """
        from clip4str.kernels.crop_resize import crop_resize

        with self._on_device():
            planes = self._planes(frame)
            if not isinstance(quads, (list, tuple, np.ndarray)):
                quads = as_tensor("quads", quads, self.device)
            dtype = torch.float16 if self.dtype == torch.float16 else torch.float32
            with _typed("cutting out words"):
                return crop_resize(planes, quads, self.weights.config.image_size, dtype=dtype, **how)

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(parts))

    def thumbnail(self, frame: Any, long_side: int, *, colour: bool = False, **how: Any) -> np.ndarray:
        """As the contract's, where the frame is: see kernels.thumbnail, whose errors it raises."""
        from clip4str.kernels.crop_resize.api import frame_planes
        from clip4str.kernels.thumbnail import thumbnail

        with self._on_device():
            planes = self._planes(frame)
            with _typed("shrinking a frame"):
                luma, _ = frame_planes(planes, how.get("layout", "rgb"))
                size = thumbnail_size((luma.shape[0], luma.shape[1]), long_side)
                return thumbnail(planes, size, colour=colour, **how).cpu().numpy()

    def rows(self, frame: Any, first: int, last: int, layout: str = "rgb") -> tuple[np.ndarray, ...]:
        from clip4str.kernels.crop_resize.api import frame_planes

        with self._on_device():
            luma, chroma = frame_planes(self._planes(frame, move=False), layout)
            parts = (luma[first:last],) if chroma is None else (luma[first:last], chroma[first // 2 : last // 2])
            return tuple(part.cpu().numpy() for part in parts)

    def _planes(self, frame: Any, move: bool = True) -> Any:
        """A frame's tensor, or the tuple of them, on the device if they are to be moved there."""
        planes = frame if isinstance(frame, (tuple, list)) else (frame,)
        there = tuple(as_tensor("frame", plane, self.device) for plane in planes)
        there = tuple(plane.to(self.device) for plane in there) if move else there
        return there[0] if len(there) == 1 else there

    @torch.inference_mode()
    def read(self, driver: PredictAndRefine, pixels: np.ndarray | Tensor, stages: Stages | None = None) -> Reading:
        """What driver(self, pixels) would read, for any number of images but none.

        Raises BackendError if memory does not suffice for a single image, or if torch or Triton fail, or while the
        caller captures a CUDA graph; the backend can be used again after it.
        """
        with self._on_device():
            if self.device.type == "cuda" and torch.cuda.is_current_stream_capturing():
                raise BackendError("reading waits for its answers, so it cannot be captured in another CUDA graph")
            if self._runner is None or self.program is None or driver.decoding != self.program.decoding:
                return read_driven(driver, pixels, stages or self, self.device)
            rows = from_numpy(pixels) if isinstance(pixels, np.ndarray) else pixels
            with _typed("reading"):
                for size in {min(len(rows), self.largest), len(rows) % self.largest} - {0}:
                    self.prepared(size)
            with self._lock:
                return read_in_parts(
                    rows,
                    lambda: self.largest,
                    lambda part: attempt(partial(self._run_program, driver, part)),
                    self._shrink,
                )

    @torch.inference_mode()
    def warm_up(self, driver: PredictAndRefine, sizes: Sequence[int]) -> None:
        """Kernels are compiled on all cores, then every graph of these buckets is captured. Raises BackendError."""
        program, buckets = self.program, sorted({bucket_for(size) for size in sizes}, reverse=True)
        if program is not None and self.on_gpu:
            with self._on_device(), _typed("compiling kernels"):
                compile_in_processes(program, buckets, torch.cuda.get_device_capability(self.device))
        for rows in buckets:
            self.read(driver, self.blank(min(rows, self.batch_size)))
            if self._runner is not None and rows <= self.largest:
                with self._on_device(), self._lock, _typed("warming up"), suppress(torch.cuda.OutOfMemoryError):
                    self._runner.warm_up(rows)

    def _run_program(self, driver: PredictAndRefine, pixels: Tensor) -> Reading:
        """The program's answers as the driver gives them; rows that it left open are read further."""
        program, runner = self.program, self._runner
        assert program is not None and runner is not None
        last = runner.run(pixels)
        return program.finished(driver, last.answers, partial(runner.resume, last), partial(runner.reread, last))

    def _make_runner(self, program: Program, largest: int) -> Runner:
        if self._layer is None:
            return EagerRunner(program, largest)
        return GraphRunner(program, largest, self._layer, self.prepared.bucket)

    def _shrink(self, rows: int) -> None:
        """Fewer images at a time from now on; graphs and buffers are dropped. Raises BackendError below one image."""

        def rebuild(largest: int) -> None:
            assert self.program is not None
            self._runner = self._make_runner(self.program, largest)  # which takes memory only when it first runs
            if self.device.type == "cuda":
                release_memory()

        shrink(str(self.device), rows, self.largest, rebuild, stacklevel=6)

    def _on_device(self) -> ExitStack:
        """The current GPU is this one, and no autocast of the caller's changes dtypes between the operators."""
        with ExitStack() as stack:
            if self.device.type == "cuda":
                stack.enter_context(torch.cuda.device(self.device))
            stack.enter_context(torch.autocast(self.device.type, enabled=False))
            return stack.pop_all()


@contextmanager
def _typed(what: str) -> Iterator[None]:
    """Errors of torch and Triton as BackendErrors."""
    try:
        yield
    except (Clip4StrError, TypeError):  # the latter: a keyword that the operator does not have
        raise
    except Exception as error:
        raise BackendError(f"{what} failed in torch ({first_line(error)})") from error
