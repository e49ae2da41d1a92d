"""Triton over loopback, by NVIDIA's asynchronous gRPC client; the repository is what `clip4str serve triton` writes."""

from __future__ import annotations

from typing import Any

import numpy as np

from clip4str.core.errors import BackendError
from clip4str.runtime.bundle import Bundle
from clip4str.serving.triton.options import Serving
from clip4str.serving.triton.repository import write_repository

from .arrivals import Refused
from .load_target import Setup
from .triton_server import TritonServer, server_is_there

MODEL = "clip4str"
_TOO_MUCH = ("Exceeds maximum queue size", "Request timeout expired")


class TritonTarget:
    """Raises BackendError where there is no server or no client."""

    def __init__(self, setup: Setup) -> None:
        if not server_is_there():
            raise BackendError("there is no tritonserver on the PATH; make test-serving unpacks one")
        try:
            import tritonclient.grpc.aio as client
        except ImportError as error:
            raise BackendError(f"tritonclient cannot be imported ({error}); make test-serving installs it into "
                               "build/serving/site, for PYTHONPATH") from None  # fmt: skip
        self.setup, self._module, self.what = setup, client, "Triton"

    async def __aenter__(self) -> TritonTarget:
        s = self.setup
        serving = Serving(MODEL, instances=s.instances, max_batch=s.max_batch, delay_ms=s.delay_ms, queue=s.queue)
        write_repository(Bundle.open(s.bundle), s.folder / "repository", serving, False, lambda _: None)
        self._server = TritonServer(s.folder / "repository", s.folder)
        self._server.__enter__()
        try:
            self._client = self._module.InferenceServerClient(f"127.0.0.1:{self._server.grpc}")
            metadata: Any = await self._client.get_server_metadata(as_json=True)
        except BaseException:
            self._server.__exit__()
            raise
        self.what = f"Triton {metadata['version']}, gRPC"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()
        self._server.__exit__()

    async def send(self, picture: bytes) -> str:
        array = np.empty((1, 1), object)
        array[0, 0] = picture
        image = self._module.InferInput("image", [1, 1], "BYTES")
        image.set_data_from_numpy(array)
        wanted = [self._module.InferRequestedOutput("text")]
        try:
            answer = await self._client.infer(MODEL, [image], outputs=wanted)
        except Exception as error:
            if any(words in str(error) for words in _TOO_MUCH):
                raise Refused(str(error)) from None
            raise
        return answer.as_numpy("text")[0, 0].decode()

    def counts(self) -> tuple[int, int]:
        (found,) = self._server.statistics(MODEL)
        return found["inference_count"], found["execution_count"]
