"""What the switches of kernels/options.py should gain, and what the whole GPU path has gained, predicted: one batch by
engines stage by stage and in one launch (one_launch.py), of half precision and of 8 bits, and by our kernels in one
graph with torch, as it was, as it is shipped, and with each switch turned on.

The shares, savings and conditions are those of kernels/NOTES.md, estimated for an H100 and used for every device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from clip4str.benchmarks import kernel_launches
from clip4str.benchmarks.devices import MATRIX_SHARE, Device
from clip4str.benchmarks.figures import digits, markdown
from clip4str.benchmarks.launches import Cut, Launch, attention, linear, stream
from clip4str.benchmarks.one_launch import predict_one_launch
from clip4str.benchmarks.predictions import CONFIRM, GRAPH_US
from clip4str.kernels import short_attention
from clip4str.kernels.linear.config import MANY_ROWS, SPLIT_ROWS, configuration, predicted_us, split_configuration
from clip4str.kernels.options import NAMES, Options
from clip4str.kernels.shared.tiles import most_multiprocessors, power_of_two
from clip4str.model import Config
from clip4str.runtime.backends.fixed_passes import DRAFTED, FIRST

# Of the rate of a large matrix product, by more than MANY_ROWS rows: cuBLAS's, and our tiles as they are and switched.
LIBRARY = MATRIX_SHARE
OURS, THREE_STAGES, WIDE_TILES, DESCRIPTORS = 0.45, 0.52, 0.50, 0.60
LAUNCH_SAVED = 0.5  # of a launch that begins while the one ahead still runs: 0.8 of 1.6 us
DEPENDENT = ("Thor", "H100", "H200")  # compute capability 9.0 and newer
TWO_PROGRAMS = ("H100", "H200")  # whose multiprocessors hold two programs with three loads in flight
HEADS_US = 0.4  # a group of heads: three products, a softmax and their barriers, 700 clocks of an H100
FAST_CLOCK = 1.83  # GHz of an H100
CAPABILITIES = {"Orin": (8, 7), "Thor": (11, 0), "T4": (7, 5), "A10": (8, 6), "L4": (8, 9)}  # else 9.0
BEFORE = Options(library_residual=False)
EIGHT_BITS = ("int8", "fp8")  # engines, in one launch
# wide_tiles is against three_stages, and where there are descriptors neither is taken; fork is a part of verify_beside
ALL = Options(dependent_launch=True, split_k=True, three_stages=True, descriptors=True, short_attention=True,
              verify_beside=True)  # fmt: skip


def switch_predictions(
    networks: Mapping[str, Config], chosen: Mapping[str, Device], batches: Sequence[int]
) -> dict[str, Any]:
    """The report. Times in microseconds."""
    return {
        "status": CONFIRM,
        "assumed": {"library": LIBRARY, "ours": OURS, "three_stages": THREE_STAGES, "wide_tiles": WIDE_TILES,
                    "descriptors": DESCRIPTORS, "launch_saved": LAUNCH_SAVED, "heads_us": HEADS_US},
        "devices": {name: asdict(device) for name, device in chosen.items()},
        "rows": [
            {"network": name, "batch": batch, "device": key, **_predict(device, config, batch)}
            for name, config in networks.items()
            for batch in dict.fromkeys(batches)
            for key, device in chosen.items()
        ],
    }  # fmt: skip


def _predict(device: Device, config: Config, batch: int) -> dict[str, Any]:
    engines = predict_one_launch(device, config, batch)
    eight_bits = (precision for precision in device.precisions if precision != "fp16")
    turned = {name: replace(Options(), **{name: True}) for name in NAMES if not getattr(Options(), name)}
    return {
        "engines_us": engines["engines_us"],
        "one_us": engines["one_us"],
        "eight_bits_us": {kind: predict_one_launch(device, config, batch, kind)["one_us"] for kind in eight_bits},
        "before_us": graph_us(device, config, batch, BEFORE),
        "shipped_us": graph_us(device, config, batch, Options()),
        "turned_us": {name: graph_us(device, config, batch, options) for name, options in turned.items()},
        "all_us": graph_us(device, config, batch, ALL),
    }


def graph_us(device: Device, config: Config, batch: int, options: Options) -> float:
    """One batch through our kernels in one graph, as predictions.predict_program, but with our own tiles' rate where
    rows are many."""
    parts = [_rated(device, config, batch, options, part) for part in kernel_launches.program(config, batch)]
    total = sum(part.count * device.us(part) for part in parts) + device.host * GRAPH_US
    if options.dependent_launch and _is(device, DEPENDENT):
        passes = DRAFTED if config.draft_frames else FIRST
        behind_ours = 6 * (passes.visual + passes.cross + 2)
        for tower in _towers(config):
            fused = options.short_attention and _fits(device, tower, batch)
            behind_ours += (4 if fused else 3) * tower.layers
        total -= behind_ours * LAUNCH_SAVED * device.launch_us
    if options.split_k and _is(device, TWO_PROGRAMS):  # whose model split_configuration has
        total -= _split_saves(config, batch)
    if options.short_attention:
        total -= _fused_saves(device, config, batch)
    if options.fork or options.verify_beside:
        total -= _hidden(device, config, batch, options)
    return total


def _hidden(device: Device, config: Config, batch: int, options: Options) -> float:
    """By branches of the graph, each of which costs its joining: the refinement, and the last passes of both."""
    visual = kernel_launches.decode_pass(config, batch, 0)
    branches = [[*visual, stream("tokens", batch * config.steps, size=4)]]
    if options.verify_beside:
        branches += [visual, kernel_launches.decode_pass(config, batch, config.context)]
    early = LAUNCH_SAVED * device.launch_us if options.dependent_launch and _is(device, DEPENDENT) else 0.0
    share = 1 if batch * config.steps <= SPLIT_ROWS else 0.5
    saved = 0.0
    for branch in branches:
        hidden = sum(part.count * device.us(part) for part in branch) - len(visual) * early  # which is gone already
        saved += max(0.0, share * hidden - device.launch_us)
    return saved


def _rated(device: Device, config: Config, batch: int, options: Options, part: Launch) -> Launch:
    """With the rate of the kernel that computes it."""
    tower, _, product = part.name.partition(".")
    rows = batch * {"image": config.memory_tokens, "text": config.context, "decode": config.steps}.get(tower, 0)
    residual = product in ("out", "down")
    if rows <= MANY_ROWS or not (residual or product == "up") or (residual and options.library_residual):
        return part
    share = OURS
    if options.descriptors and not residual and _is(device, DEPENDENT):
        share = DESCRIPTORS
    elif options.wide_tiles:
        share = WIDE_TILES
    elif options.three_stages and _is(device, TWO_PROGRAMS):
        share = THREE_STAGES
    return replace(part, cuts=tuple(replace(cut, flops=cut.flops * LIBRARY / share) for cut in part.cuts))


def _split_saves(config: Config, batch: int) -> float:
    """By the towers' `down`, where K is split."""
    saved = 0.0
    for tower in _towers(config):
        shape = batch * tower.tokens, 4 * tower.width, tower.width
        if shape[0] <= SPLIT_ROWS and (split := split_configuration(*shape, torch.float16)) is not None:
            whole = configuration(*shape, torch.float16)
            saved += tower.layers * (predicted_us(whole, *shape) - predicted_us(split, *shape))
    return saved


def _fused_saves(device: Device, config: Config, batch: int) -> float:
    """By attention and projection in one launch, in which groups of heads wait for each other's products."""
    saved = 0.0
    for tower in _towers(config):
        if _fits(device, tower, batch):
            width, e = tower.width, tower.width // tower.heads
            apart = attention("", batch, tower.heads, tower.tokens, e)
            out = linear("", batch * tower.tokens, width, width, residual=True)
            sizes = batch, tower.tokens, tower.heads, e
            tiles = short_attention.configuration(*sizes, torch.float16, _capability(device))
            rows, features = power_of_two(tower.tokens, 16), tiles.block_f
            cut = Cut(
                short_attention.programs(batch, width, features),
                2 * width * (3 * tower.tokens + features),
                2.0 * rows * width * (2 * rows + features),
            )
            groups = -(-tower.heads // tiles.heads)
            us = device.us(Launch("", 0.0, 0.0, (cut,))) + groups * HEADS_US * FAST_CLOCK / device.clock
            saved += tower.layers * (device.us(apart) + device.us(out) - us)
    return saved


@dataclass(frozen=True)
class _Tower:
    tokens: int
    width: int
    layers: int
    heads: int


def _towers(c: Config) -> tuple[_Tower, _Tower]:
    return (
        _Tower(c.memory_tokens, c.image_width, c.image_layers, c.image_heads),
        _Tower(c.context, c.text_width, c.text_layers, c.text_heads),
    )


def _fits(device: Device, tower: _Tower, batch: int) -> bool:
    """As short_attention.fits."""
    fewest = short_attention.programs(batch, tower.width, short_attention.FEATURES[-1])
    short = tower.tokens <= short_attention.MOST_LENGTH and tower.width // tower.heads <= short_attention.MOST_HEAD_DIM
    return short and fewest <= most_multiprocessors(_capability(device))


def _capability(device: Device) -> tuple[int, int]:
    return next((found for name, found in CAPABILITIES.items() if name in device.name), (9, 0))


def _is(device: Device, names: Sequence[str]) -> bool:
    return any(name in device.name for name in names)


def switch_table(report: Mapping[str, Any]) -> str:
    """Markdown: a row for every network, batch and device; of a switch, how it changes the time as shipped, of
    engines in 8 bits that in one launch."""
    a, rows = report["assumed"], report["rows"]
    switches = list(rows[0]["turned_us"])
    lines = [
        [row["network"], report["devices"][row["device"]]["name"], row["batch"],
         *(digits(row[key] / 1000) for key in ("engines_us", "one_us")),
         *(_change(row["eight_bits_us"].get(kind, row["one_us"]), row["one_us"]) for kind in EIGHT_BITS),
         *(digits(row[key] / 1000) for key in ("before_us", "shipped_us")),
         *(_change(us, row["shipped_us"]) for us in row["turned_us"].values()), digits(row["all_us"] / 1000)]
        for row in rows
    ]  # fmt: skip
    heads = ("network", "device", "batch", "TensorRT stage by stage, ms", "in one launch", *EIGHT_BITS, "torch before",
             "as shipped", *switches, "all but wide_tiles, ms")  # fmt: skip
    return "\n\n".join([
        f"{report['status'].capitalize()}. Half precision; int8 and fp8: engines of 8 bits beside those in one launch. "
        "Words of which nothing is left open. Products of more than "
        f"{MANY_ROWS} rows: cuBLAS {100 * a['library']:.0f} % of a large product's rate, ours {100 * a['ours']:.0f}, "
        f"three_stages {100 * a['three_stages']:.0f}, wide_tiles {100 * a['wide_tiles']:.0f}, "
        f"descriptors {100 * a['descriptors']:.0f}; dependent_launch saves "
        f"{100 * a['launch_saved']:.0f} % of a launch behind one of ours. Before: library_residual off.",
        markdown(heads, lines, texts=2),
    ])  # fmt: skip


def _change(us: float, shipped: float) -> str:
    percent = 100 * (us / shipped - 1)
    return "-" if abs(percent) < 0.05 else f"{percent:+.1f} %"
