"""What a GPU should need, from launches, bytes and arithmetic: written down before the first run, which confirms or
refutes it.

A launch takes a fixed time, plus the longest of: its bytes over the memory's bandwidth; what its blocks load over the
second-level cache's; and, wave after wave of blocks, what one multiprocessor loads and computes. A launch of few
blocks is bound by the last, which is what makes small batches slow.

Assumed shares, to be corrected by measurement: tuned kernels reach 75% of the rate of one large matrix product and 90%
of the bandwidth of a large copy; eager torch spends `host_us` of the host's time on every kernel that it launches.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import ceil
from typing import TYPE_CHECKING, Any

from clip4str.benchmarks.gpu import costs

if TYPE_CHECKING:
    from clip4str.model import Config

MATRIX_SHARE, BANDWIDTH_SHARE = 0.75, 0.9
VISUAL_PASSES, CROSS_PASSES, WORD = 3, 2, 6
DRAFTED_PASSES = 2  # visual ones, where a draft head makes the first guess


@dataclass(frozen=True)
class Machine:
    """bandwidth: GB/s of a large copy, read and written. rate, rate32: TFLOP/s of a large matrix product in half and
    single precision. launch_us: a small kernel within a graph. host_us: one kernel launched by eager torch.
    cache_gbs, block_gbs: second-level cache to all multiprocessors, and to one. graph_us: starting a graph, and
    the answer's way to the host."""

    name: str = "H100"
    multiprocessors: int = 132
    bandwidth: float = 3000.0
    rate: float = 790.0
    rate32: float = 50.0
    launch_us: float = 1.6
    host_us: float = 9.0
    cache_gbs: float = 5500.0
    block_gbs: float = 80.0
    graph_us: float = 20.0

    def us(self, launch: costs.Launch) -> float:
        """One launch, in microseconds."""
        return self.launch_us + max(
            launch.bytes / (BANDWIDTH_SHARE * self.bandwidth * 1e3),
            min(self._cut_us(cut, launch.matrix) for cut in launch.cuts),
        )

    def bound_us(self, moved: float, flops: float, single: bool = False) -> float:
        """No implementation is faster: bytes over bandwidth or arithmetic over rate."""
        return max(moved / (self.bandwidth * 1e3), flops / ((self.rate32 if single else self.rate) * 1e6))

    def total_us(self, parts: Sequence[costs.Launch]) -> float:
        return sum(part.count * self.us(part) for part in parts)

    def _cut_us(self, cut: costs.Cut, matrix: bool) -> float:
        waves = ceil(cut.blocks / self.multiprocessors)
        rate = self.rate * 1e6 * MATRIX_SHARE / self.multiprocessors
        return max(
            waves * cut.flops / rate if matrix else 0.0,
            waves * cut.bytes / (self.block_gbs * 1e3),
            cut.blocks * cut.bytes / (self.cache_gbs * 1e3),
        )


MACHINES = {
    "h100": Machine(),
    "h200": Machine("H200", bandwidth=4300.0),
    "orin": Machine("Jetson AGX Orin", 16, 170.0, 35.0, 4.5, 3.0, 25.0, 600.0, 60.0, 60.0),
    "thor": Machine("Jetson AGX Thor", 20, 230.0, 200.0, 7.0, 2.5, 15.0, 1200.0, 80.0, 40.0),
    "l4": Machine("L4", 58, 260.0, 110.0, 20.0, 2.0, 9.0, 1500.0, 60.0, 25.0),
}


def visual_passes(config: Config) -> int:
    """Before refinement: what the one-shot program gives every word."""
    return DRAFTED_PASSES if config.draft_frames else VISUAL_PASSES


def as_measured(machine: Machine, name: str, multiprocessors: int, ceilings: dict[str, Any]) -> Machine:
    """The same machine with what was measured of it."""
    known: dict[str, Any] = {
        "name": name,
        "multiprocessors": multiprocessors,
        "bandwidth": ceilings.get("copy_gbs"),
        "rate": ceilings.get("fp16_tflops"),
        "rate32": ceilings.get("fp32_tflops"),
        "launch_us": ceilings.get("launch_us"),
    }
    return replace(machine, **{k: v for k, v in known.items() if v})


def predict(machine: Machine, config: Config, images: int) -> dict[str, Any]:
    """Times in microseconds for one batch, of the one-shot program and of the published way."""
    tower = costs.image_tower(config, images)
    after = costs.after_image(config, images, visual_passes(config), CROSS_PASSES)
    tower_us, after_us = machine.total_us(tower), machine.total_us(after)
    total = tower_us + after_us + machine.graph_us
    flops = costs.total_flops([*tower, *after])
    published = {half: published_us(machine, config, images, half) for half in (True, False)}
    return {
        "batch": images,
        "tower_us": tower_us,
        "total_us": total,
        "launches": costs.launches([*tower, *after]),
        "tower_launches": costs.launches(tower),
        "times_tower": total / tower_us,
        "after_share": (total - tower_us) / total,
        "gflop": flops / 1e9,
        "rate_share": flops / (machine.rate * 1e6) / total,
        "bound_us": machine.bound_us(costs.total_bytes([*tower, *after]), flops),
        "published_fp16_us": published[True],
        "published_fp32_us": published[False],
        "speedup_fp16": published[True] / total,
    }


def published_us(machine: Machine, config: Config, images: int, half: bool) -> float:
    """Bound by the host's launches, or by the arithmetic: unfused, so half of what tuned kernels reach."""
    rate = (machine.rate if half else machine.rate32) * 1e6 * MATRIX_SHARE
    unfused = 6 * sum(
        part.count * part.bytes for part in costs.image_tower(config, images) if part.name != "image.memory"
    ) / (machine.bandwidth * 1e3)  # fmt: skip
    device = costs.published_flops(config, images, WORD + 1) / rate + unfused
    host = published_launches(config.image_layers, config.text_layers, half) * machine.host_us
    return max(host, device)


@functools.cache
def published_launches(image_layers: int, text_layers: int, half: bool) -> int:
    """Kernels that the published way launches for a word of six characters: counted on a narrow network."""
    from clip4str.benchmarks.gpu.networks import PublishedWay, narrow_network

    way = PublishedWay(narrow_network(image_layers, text_layers), "cpu", half, WORD)
    return way.count_operations()


def kernels(machine: Machine, config: Config, images: int) -> list[dict[str, Any]]:
    """The program's launches one by one, in order: count, microseconds of one, and its bound."""
    parts = costs.program(config, images, visual_passes(config), CROSS_PASSES)
    return [
        {
            "name": part.name,
            "count": part.count,
            "us": machine.us(part),
            "bound_us": machine.bound_us(part.bytes, part.flops),
            "mb": part.bytes / 1e6,
            "gflop": part.flops / 1e9,
        }
        for part in parts
    ]


def predictions(machine: Machine, configs: dict[str, Config], batches: Sequence[int]) -> dict[str, Any]:
    """All that --predict prints and the results hold."""
    return {
        "machine": asdict(machine),
        "assumed": {"matrix_share": MATRIX_SHARE, "bandwidth_share": BANDWIDTH_SHARE, "word": WORD},
        "end_to_end": {name: [predict(machine, config, n) for n in batches] for name, config in configs.items()},
        "kernels": {f"b16 batch {n}": kernels(machine, configs["b16"], n) for n in (1, 64) if "b16" in configs},
    }


def table(values: dict[str, Any]) -> str:
    """The predictions as Markdown, for kernels/NOTES.md."""
    machine, assumed = values["machine"], values["assumed"]
    lines = [
        f"Predicted for {machine['name']}: {machine['multiprocessors']} multiprocessors, "
        f"{machine['bandwidth'] / 1000:.2f} TB/s, {machine['rate']:.0f} TFLOP/s, {machine['launch_us']} us a small "
        f"kernel in a graph, {machine['host_us']} us a kernel launched by eager torch; {VISUAL_PASSES} visual and "
        f"{CROSS_PASSES} cross passes, words of {assumed['word']} characters. Times in microseconds for the batch.",
        "",
        "| network | batch | launches | image tower | whole | x tower | after, % | of rate, % "
        "| published fp16 | published fp32 | times faster |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, rows in values["end_to_end"].items():
        lines += [
            f"| {name} | {r['batch']} | {r['launches']} | {r['tower_us']:.0f} | {r['total_us']:.0f} "
            f"| {r['times_tower']:.2f} | {100 * r['after_share']:.0f} | {100 * r['rate_share']:.0f} "
            f"| {r['published_fp16_us']:.0f} | {r['published_fp32_us']:.0f} | {r['speedup_fp16']:.1f} |"
            for r in rows
        ]
    for title, rows in values["kernels"].items():
        lines += ["", f"{title}, launch by launch:", ""]
        lines += [
            "| launch | count | us each | bound | MB | GFLOP | us in all |",
            "|---|---:|---:|---:|---:|---:|---:|",
        ]
        lines += [
            f"| {r['name']} | {r['count']} | {r['us']:.2f} | {r['bound_us']:.2f} | {r['mb']:.2f} | {r['gflop']:.3f} "
            f"| {r['count'] * r['us']:.1f} |"
            for r in rows
        ]
    return "\n".join(lines)
