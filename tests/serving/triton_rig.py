"""What tests do with a Triton server: repositories side by side, and requests by NVIDIA's own clients."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

MODEL, MAX_BATCH = "clip4str", 8
_TYPES = {"image": "BYTES", "pixels": "UINT8", "quads": "FP32"}


class Answer(NamedTuple):
    texts: list[list[str]]
    confidences: np.ndarray
    bundles: set[str]
    version: str


def merge(target: Path, *repositories: Path) -> Path:
    """One repository with the models of all."""
    for repository in repositories:
        for model in repository.iterdir():
            if model.is_dir():
                shutil.copytree(model, target / model.name)
    return target


def grpc_client_of(server: Any) -> Any:
    """NVIDIA's, of a TritonServer."""
    import tritonclient.grpc as grpc

    return grpc.InferenceServerClient(f"127.0.0.1:{server.grpc}")


def encoded(*pictures: bytes) -> dict[str, np.ndarray]:
    array = np.empty((len(pictures), 1), object)
    array[:, 0] = pictures
    return {"image": array}


def inputs(kind: Any, tensors: Mapping[str, np.ndarray]) -> list[Any]:
    """kind: tritonclient.http or tritonclient.grpc."""
    made = []
    for name, array in tensors.items():
        made.append(kind.InferInput(name, array.shape, _TYPES[name]))
        made[-1].set_data_from_numpy(array)
    return made


def answer_of(result: Any) -> Answer:
    texts = [[text.decode() for text in row] for row in result.as_numpy("text")]
    response = result.get_response()
    version = response["model_version"] if isinstance(response, dict) else response.model_version
    bundles = {name.decode() for name in result.as_numpy("bundle")[:, 0]}
    return Answer(texts, result.as_numpy("confidence"), bundles, version)


def together(client: Any, model: str, many: list[dict[str, np.ndarray]], **options: Any) -> list[Any]:
    """All at once over gRPC: an Answer or the exception of each, in order."""
    import queue

    import tritonclient.grpc as grpc

    done: queue.Queue = queue.Queue()
    for n, tensors in enumerate(many):
        client.async_infer(
            model, inputs(grpc, tensors), lambda result, error, n=n: done.put((n, result, error)), **options
        )
    found = sorted((done.get(timeout=60) for _ in many), key=lambda one: one[0])
    return [error if error is not None else answer_of(result) for _, result, error in found]


def counts(server: Any) -> tuple[int, int, dict[int, int]]:
    """Of MODEL: pictures read, executions, executions by batch size."""
    (found,) = server.statistics(MODEL)
    sizes = {one["batch_size"]: one["compute_infer"]["count"] for one in found["batch_stats"]}
    return found["inference_count"], found["execution_count"], sizes
