"""What reading in one launch saves with TensorRT, predicted: a batch stage by stage, as the driver asks for it, and all
of it in one graph (runtime/backends/trt/program.py), engines for the towers and our kernels for what is between.

Both ways read words of which nothing is left open: visual passes from the start token until the third confirms the
second, or one that confirms a draft, and one cross-modal pass that confirms the visual word. The graph runs its fixed
number of passes all the same. Words left open cost a resuming graph, and those whose caption changes a rereading one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from clip4str.benchmarks import kernel_launches
from clip4str.benchmarks.devices import Device
from clip4str.benchmarks.engine_launches import stage_launches
from clip4str.benchmarks.figures import digits, markdown
from clip4str.benchmarks.launches import Launch, stream
from clip4str.benchmarks.predictions import CALL_US, CONFIRM, PASSES, WORD_US, predict, stage
from clip4str.model import Config
from clip4str.runtime.backends.fixed_passes import DRAFTED, FIRST, RESUMED, Passes

CONFIRMED = 1, 1  # passes of a word whose draft is right
# Of the host in one launch, estimates: as two calls of a stage, and the words of the answer.
BATCH_US, ANSWER_US = 2 * CALL_US, 10.0


def one_launch_predictions(
    networks: Mapping[str, Config], chosen: Mapping[str, Device], batches: Sequence[int]
) -> dict[str, Any]:
    """The report."""
    return {
        "status": CONFIRM,
        "assumed": {
            "host_call_us": CALL_US,
            "host_word_us": WORD_US,
            "host_batch_us": BATCH_US,
            "host_answer_us": ANSWER_US,
        },
        "devices": {name: asdict(device) for name, device in chosen.items()},
        "rows": [
            {"network": name, "batch": batch, "device": key, **predict_one_launch(device, config, batch)}
            for name, config in networks.items()
            for batch in dict.fromkeys(batches)
            for key, device in chosen.items()
        ],
    }


def predict_one_launch(device: Device, config: Config, batch: int, precision: str = "fp16") -> dict[str, Any]:
    """Microseconds of a batch, pixels on the host, three ways: engines stage by stage, our kernels decoding in their
    place, in one launch; and what resuming and rereading all its words add to the last. precision: of the engines, as
    in Device.precisions; our kernels compute in half precision."""
    drafts = config.draft_frames > 0
    engines = predict(device, config, batch, precision, CONFIRMED if drafts else PASSES)
    copied = 4.0 * batch * 3 * math.prod(config.image_size) / (device.bus * 1e3) if device.bus else 0.0
    image, text = (_us(device, stage_launches(config, name, batch, precision)) for name in ("image", "text"))
    calls = {name: values["calls"] for name, values in engines["stages"].items()}
    kernels = image + calls["text"] * text
    for branch, tokens in (("visual", 0), ("cross", config.context)):
        kernels += calls[branch] * _us(device, kernel_launches.decode_pass(config, batch, tokens))
    host = device.host * BATCH_US
    first = image + _us(device, _after(config, batch, DRAFTED if drafts else FIRST, not drafts)) + text
    return {
        "engines_us": engines["total_us"],
        "between_share": engines["host_us"] / engines["total_us"],
        "kernels_us": kernels + engines["host_us"],
        "one_us": first + copied + host + device.host * ANSWER_US * batch,
        "resume_us": _us(device, _after(config, batch, RESUMED, False)) + text + host,
        "reread_us": _us(device, _pass(config, batch, config.context)) + text + host,
        "launches": sum(part.count for part in _after(config, batch, DRAFTED if drafts else FIRST, not drafts)),
    }


def _after(c: Config, images: int, passes: Passes, start: bool) -> list[Launch]:
    """Everything but the towers: the passes, the tokeniser twice, a copy of its tokens, of the answer, and with a draft
    its collapse. start: is the first visual pass one from the start token alone?"""
    first = kernel_launches.decode_pass(c, images, 0, start=True) if start else []
    small = [stream("program.small", images * c.steps, size=4).times(4 + (c.draft_frames > 0))]
    visual = [part.times(passes.visual - start + 1) for part in _pass(c, images, 0)]  # the cloze pass too
    return [*first, *visual, *(part.times(passes.cross + 1) for part in _pass(c, images, c.context)), *small]


def _pass(c: Config, images: int, text: int) -> list[Launch]:
    return kernel_launches.decode_pass(c, images, text)


def _us(device: Device, parts: Sequence[Launch]) -> float:
    return stage(device, parts)["us"]


def one_launch_table(report: Mapping[str, Any]) -> str:
    """Markdown: assumptions, and a row for every network, device and batch."""
    a, devices = report["assumed"], report["devices"]
    lines = [
        [row["network"], devices[row["device"]]["name"], row["batch"],
         *(digits(row[key] / 1000) for key in ("engines_us", "kernels_us", "one_us")),
         f"{row['engines_us'] / row['one_us']:.2f}", f"{row['kernels_us'] / row['one_us']:.2f}",
         *(digits(row[key] / 1000) for key in ("resume_us", "reread_us")), f"{100 * row['between_share']:.0f}"]
        for row in report["rows"]
    ]  # fmt: skip
    heads = ("network", "device", "batch", "stage by stage, ms", "with our kernels", "one launch", "x stage by stage",
             "x with our kernels", "resuming all, ms", "rereading all", "between stages, %")  # fmt: skip
    return "\n\n".join([
        f"{report['status'].capitalize()}. Engines in half precision; words of which nothing is left open; host "
        f"{a['host_call_us']:.0f} us a stage call and {a['host_word_us']:.0f} us a word stage by stage, "
        f"{a['host_batch_us']:.0f} us a batch and {a['host_answer_us']:.0f} us a word in one launch, times the "
        "device's factor. Between stages: the share of the host, and of copies, in the engines' time.",
        markdown(heads, lines, texts=2),
    ])  # fmt: skip
