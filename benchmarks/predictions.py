"""Predicted times of engines, and of the one-shot program over our kernels, on a device: microseconds per batch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from clip4str.benchmarks import devices, kernel_launches
from clip4str.benchmarks.devices import Device
from clip4str.benchmarks.engine_launches import PRECISIONS, STAGES, stage_launches
from clip4str.benchmarks.launches import Launch, total_bytes, total_flops, total_launches
from clip4str.model import Config

CONFIRM = "predicted, to be confirmed on devices"
# The Python driver between stages: "host" in cpu-small.json is 0.4 to 0.7, 0.9 to 1.1 and 1.9 to 2.3 ms for 1, 8
# and 32 words in 9, 13 and 15 calls.
CALL_US, WORD_US = 40.0, 50.0
GRAPH_US = 20.0  # starting a graph, and copying the answer to the host
PARTS = ("launch_us", "memory_us", "arithmetic_us")  # of the GPU's time; waiting for the cache counts as arithmetic
PASSES = 3, 1


def predictions(
    networks: Mapping[str, Config], chosen: Mapping[str, Device], batches: Sequence[int], passes: Sequence[int]
) -> dict[str, Any]:
    """The report of engines, for table and chart."""
    return {
        "status": CONFIRM,
        "assumed": {
            **_shares(), "visual_passes": passes[0], "cross_passes": passes[1], "refine_passes": 2, "text_calls": 1,
            "host_call_us": CALL_US, "host_word_us": WORD_US,
        },
        "devices": {name: asdict(device) for name, device in chosen.items()},
        "rows": [
            {"network": name, "batch": batch, "device": key, "precision": precision}
            | predict(device, config, batch, precision, passes)
            for name, batch, key, config, device in _cases(networks, chosen, batches)
            for precision in device.precisions
        ],
    }  # fmt: skip


def _cases(networks: Mapping[str, Config], chosen: Mapping[str, Device], batches: Sequence[int]) -> Iterable[Any]:
    """(network's name, batch, device's key, config, device)."""
    for name, config in networks.items():
        for batch in dict.fromkeys(batches):
            yield from ((name, batch, key, config, device) for key, device in chosen.items())


def _shares() -> dict[str, float]:
    """Shares of the data sheet's rate and bandwidth that a tuned kernel is assumed to reach at best."""
    return {
        "rate_share": round(devices.PEAK_MATRIX * devices.MATRIX_SHARE, 3),
        "bandwidth_share": round(devices.PEAK_BANDWIDTH * devices.BANDWIDTH_SHARE, 3),
    }


def predict(
    device: Device, config: Config, batch: int, precision: str, passes: Sequence[int] = PASSES
) -> dict[str, Any]:
    """One batch through the engines, prepared pixels in host memory to words."""
    calls = {"image": 1, "visual": passes[0] + 1, "text": 1, "cross": passes[1] + 1}
    stages = {name: stage(device, stage_launches(config, name, batch, precision)) for name in STAGES}
    copied = 4.0 * batch * 3 * math.prod(config.image_size) / (device.bus * 1e3) if device.bus else 0.0
    host = device.host * (CALL_US * sum(calls.values()) + WORD_US * batch) + copied
    gpu = sum(calls[name] * values["us"] for name, values in stages.items())
    spent = {part: sum(calls[name] * values.pop(part) for name, values in stages.items()) for part in PARTS}
    return {
        "stages": {name: {"calls": calls[name], **values} for name, values in stages.items()},
        "gpu_us": gpu,
        **spent,
        "host_us": host,
        "total_us": gpu + host,
        "floor_us": sum(calls[name] * values["floor_us"] for name, values in stages.items()),
        "words_per_second": 1e6 * batch / (gpu + host),
        "bound_by": max({**spent, "host_us": host}.items(), key=lambda part: part[1])[0].removesuffix("_us"),
    }


def stage(device: Device, parts: Sequence[Launch]) -> dict[str, Any]:
    """One call: its time, divided into launches, waiting for memory, and arithmetic or cache."""
    spent = dict.fromkeys(PARTS, 0.0)
    for part in parts:
        memory, blocks = device.memory_us(part), device.blocks_us(part)
        spent["memory_us" if blocks <= memory else "arithmetic_us"] += part.count * max(memory, blocks)
        spent["launch_us"] += part.count * device.launch_us
    moved = total_bytes(parts)
    return {
        "us": sum(spent.values()),
        **spent,
        "floor_us": device.floor_us(moved, {kind: total_flops(parts, kind) for kind in PRECISIONS}),
        "launches": total_launches(parts),
        "mb": moved / 1e6,
        "gflop": total_flops(parts) / 1e9,
    }


def kernel_predictions(
    networks: Mapping[str, Config], chosen: Mapping[str, Device], batches: Sequence[int]
) -> dict[str, Any]:
    """The report of the one-shot program; for a single device, with its launches."""
    rows = []
    for name, batch, key, config, device in _cases(networks, chosen, batches):
        rows.append({"network": name, "batch": batch, "device": key, **predict_program(device, config, batch)})
        if len(chosen) == 1:
            rows[-1]["parts"] = [
                {"name": part.name, "count": part.count, "us": device.us(part), "mb": part.bytes / 1e6,
                 "gflop": part.flops / 1e9, "bound_us": device.bound_us(part.bytes, part.flops)}
                for part in kernel_launches.program(config, batch)
            ]  # fmt: skip
    return {
        "status": CONFIRM,
        "assumed": {**_shares(), "graph_us": GRAPH_US},
        "devices": {name: asdict(device) for name, device in chosen.items()},
        "rows": rows,
    }


def predict_program(device: Device, config: Config, batch: int) -> dict[str, Any]:
    """One batch through our kernels in one graph, pixels on the device to words on the host."""
    tower, after = kernel_launches.image_tower(config, batch), kernel_launches.after_image(config, batch)
    tower_us, after_us = (sum(part.count * device.us(part) for part in parts) for parts in (tower, after))
    total, flops = tower_us + after_us + device.host * GRAPH_US, total_flops([*tower, *after])
    return {
        "tower_us": tower_us,
        "total_us": total,
        "launches": total_launches([*tower, *after]),
        "times_tower": total / tower_us,
        "after_share": (total - tower_us) / total,
        "rate_share": flops / (device.product_rate() * 1e6) / total,
        "bound_us": device.bound_us(total_bytes([*tower, *after]), flops),
    }
