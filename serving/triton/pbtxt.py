"""config.pbtxt: what a model takes and gives, and how the server batches, queues and places it.

Protocol buffers' text format, written by hand: its comments are kept for who operates the server.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .options import Serving


@dataclass(frozen=True)
class Tensor:
    """dims: without the batch's; -1 for any. plain: the tensor has the batch's dimension alone, which the server writes
    as dims 1, reshaped to none."""

    name: str
    type: str  # without TYPE_
    dims: tuple[int, ...]
    comment: str = ""
    optional: bool = False
    ragged: bool = False
    plain: bool = False

    def text(self, output: bool = False) -> str:
        said = [f'name: "{self.name}"', f"data_type: TYPE_{self.type}", f"dims: [ {', '.join(map(str, self.dims))} ]"]
        said += ["optional: true"] * self.optional + ["allow_ragged_batch: true"] * self.ragged
        said += ["reshape: { shape: [ ] }"] * self.plain
        comment = f"# {self.comment}\n" if self.comment else ""
        return f"{comment}{'output' if output else 'input'} [ {{ {' '.join(said)} }} ]"


# What a picture, or a frame's quads, are to the Python model; each request has image or pixels.
INPUTS = (
    Tensor("image", "STRING", (1,), "encoded pictures: JPEG, PNG, ...", True, True),
    Tensor("pixels", "UINT8", (-1, -1, -1), "or pictures (H, W, 3); NV12 frames (H * 3 / 2, W, 1)", True, True),
    Tensor("quads", "FP32", (-1, 4, 2), "words in each picture, else it is one word", True, True),
)
OUTPUTS = (
    Tensor("text", "STRING", (-1,), "of each word: one, or as many as quads"),
    Tensor("confidence", "FP32", (-1,), "calibrated, 0 to 1"),
    Tensor("char_confidence", "FP32", (-1, -1), "of each character, 0 behind a word's end"),
    Tensor("hint", "STRING", (-1,), 'why this may be no answer, or ""'),
    Tensor("bundle", "STRING", (1,), "which network answered"),
)


_WARM_UP = """\
# a request before the model counts as loaded: one that the server's Python cannot hand over fails now, and not later
model_warmup [ {
  name: "picture" batch_size: 1
  inputs { key: "pixels" value { data_type: TYPE_UINT8 dims: [ 32, 128, 3 ] zero_data: true } }
} ]"""


def python_config(serving: Serving) -> str:
    """Of the model over a Recognizer."""
    own = {"backend": serving.backend, "threads": str(serving.threads or "auto")}
    return _joined(
        _head(serving.name, "python", serving.max_batch),
        _tensors(INPUTS, OUTPUTS),
        batching(serving),
        instances(serving),
        _WARM_UP,
        _versions(serving.keep),
        "# of serving/triton/served_model.py: which backend reads; threads of the CPU for each instance, auto for an\n"
        "# even share of the cores that the server may use, so that instances do not take them from each other\n"
        + "\n".join(_parameter(key, value) for key, value in own.items()),
    )


def graph_config(
    name: str, backend: str, serving: Serving, inputs: Sequence[Tensor], outputs: Sequence[Tensor], batch: int,
    threads: int | None = None, queue: bool = True,
) -> str:  # fmt: skip
    """Of one graph (ONNX file, TensorRT plan). batch: the largest; threads: of ONNX Runtime's; queue: are requests read
    together?"""
    return _joined(
        _head(name, backend, batch),
        _tensors(inputs, outputs),
        batching(serving)
        if queue
        else "# a request's pictures by themselves: those of another one are of another size",
        instances(serving),
        "" if threads is None else _parameter("intra_op_thread_count", str(threads)),
    )


def ensemble_config(
    name: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor],
    steps: Sequence[tuple[str, Mapping[str, str], Mapping[str, str]]], batch: int,
) -> str:  # fmt: skip
    """steps: (model, its inputs -> what they are called here, its outputs -> what they are called here)."""

    def step(model: str, taken: Mapping[str, str], given: Mapping[str, str]) -> str:
        maps = [("input_map", taken), ("output_map", given)]
        lines = [
            f'    {kind} {{ key: "{key}" value: "{here}" }}' for kind, names in maps for key, here in names.items()
        ]
        return "\n".join([f'  step {{\n    model_name: "{model}" model_version: -1', *lines, "  }"])

    return _joined(
        f'name: "{name}"\nplatform: "ensemble"\nmax_batch_size: {batch}',
        _tensors(inputs, outputs),
        "\n".join(["ensemble_scheduling {", *(step(*one) for one in steps), "}"]),
    )


def batching(serving: Serving) -> str:
    """The queue in front of a model."""
    return f"""\
dynamic_batching {{
  # a request waits so long for others to be read with it, while an instance is free
  max_queue_delay_microseconds: {round(1000 * serving.delay_ms)}
  default_queue_policy {{
    # further ones are refused at once: what waits longer than a caller does is work for nobody
    max_queue_size: {serving.most_waiting}
    # and so is what has waited so long; a request may ask for less (its timeout, in microseconds)
    timeout_action: REJECT
    default_timeout_microseconds: {1000 * serving.timeout_ms}
    allow_timeout_override: true
  }}
}}"""


def instances(serving: Serving) -> str:
    if not serving.gpus:
        return f"instance_group [ {{ count: {serving.instances} kind: KIND_CPU }} ]"
    gpus = ", ".join(map(str, serving.gpus))
    group = f"{{ count: {serving.instances} kind: KIND_GPU gpus: [ {gpus} ] }}"
    return f"# so many on each of these GPUs\ninstance_group [ {group} ]"


def _head(name: str, backend: str, batch: int) -> str:
    return f'name: "{name}"\nbackend: "{backend}"\nmax_batch_size: {batch}'


def _tensors(inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> str:
    return "\n".join([*(tensor.text() for tensor in inputs), *(tensor.text(output=True) for tensor in outputs)])


def _versions(keep: int) -> str:
    return (
        "# the newest so many: when one more has been loaded, the oldest goes once its last request is answered\n"
        f"version_policy: {{ latest {{ num_versions: {keep} }} }}"
    )


def _parameter(key: str, value: str) -> str:
    return f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}'


def _joined(*parts: str) -> str:
    return "\n\n".join(["# Written by clip4str serve triton; docs/serving.md explains it", *filter(None, parts)]) + "\n"
