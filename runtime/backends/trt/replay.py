"""CUDA graphs: what is sent to the stream for a number of rows, recorded when it was first sent, then replayed."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import suppress

from clip4str.core.errors import BackendError

from ...cuda import CudaContextLost
from ..capturing import capturing
from .memory import Stream

Send = Callable[[], None]


class Graphs:
    """Captures, and remembers which stages cannot be captured: those are sent anew every time. None are if not
    `wanted`, or where the CUDA library has no graphs."""

    def __init__(self, stream: Stream, wanted: bool) -> None:
        self._stream, self._wanted = stream, wanted and stream.cuda.captures
        self._refused: set[str] = set()
        self._graphs: list[int] = []

    def wants(self, stage: str) -> bool:
        return self._wanted and stage not in self._refused

    def capture(self, stage: str, send: Send, otherwise: str = "") -> int | None:
        """The graph, None if it cannot be captured, with a warning for the stage. otherwise: what that means, in words.

        Raises CudaContextLost."""
        try:
            try:
                graph = self._capture(send)
            except CudaContextLost:
                raise
            except BackendError:  # another library may have waited for the whole device meanwhile
                self._stream.synchronise()
                graph = self._capture(send)
        except CudaContextLost:
            raise
        except BackendError as error:
            self._refused.add(stage)
            with suppress(BackendError):  # the next use says if the stream is broken
                self._stream.synchronise()
            otherwise = otherwise or f"the {stage} stage runs without a CUDA graph, which is slower"
            warnings.warn(f"{otherwise}: {error}", RuntimeWarning, stacklevel=9)
            return None
        self._graphs.append(graph)
        return graph

    def _capture(self, send: Send) -> int:
        cuda, stream = self._stream.cuda, self._stream.handle
        with capturing():
            cuda.begin_capture(stream)
            try:
                send()
            except BaseException:
                with suppress(BackendError):
                    cuda.destroy_graph(cuda.end_capture(stream))
                raise
            return cuda.end_capture(stream)

    def close(self) -> None:
        while self._graphs:
            with suppress(BackendError):
                self._stream.cuda.destroy_graph(self._graphs.pop())


class Replay:
    """send() as often as it is called. The first time sends it as it is, which lets TensorRT set up what it must not
    while recording, and is an answer too."""

    def __init__(self, stream: Stream, graphs: Graphs, stage: str, send: Send, otherwise: str = "") -> None:
        self._stream, self._graphs, self._stage, self._send = stream, graphs, stage, send
        self._otherwise = otherwise
        self.graph: int | None = None

    def __call__(self) -> None:
        if self.graph is not None:
            self._stream.cuda.launch(self.graph, self._stream.handle)
            return
        self._send()
        if self._graphs.wants(self._stage):
            self._stream.synchronise()
            self.graph = self._graphs.capture(self._stage, self._send, self._otherwise)
