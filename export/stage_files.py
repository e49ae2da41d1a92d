"""The four ONNX files of a bundle: which graph is which stage, and writing them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import clip4str
from clip4str.core.text import describe_characters
from clip4str.export.decoders import decoder_graph
from clip4str.export.graph import Graph
from clip4str.export.half_storage import HalfStorage
from clip4str.export.towers import image_graph, text_graph
from clip4str.model.clip4str import Clip4Str
from clip4str.runtime.bundle import STAGES

if TYPE_CHECKING:
    from clip4str.export.quantization.plan import Quantization

Say = Callable[[str], object]


def write_stages(
    model: Clip4Str,
    folder: Path,
    precision: str,
    say: Say = lambda _: None,
    detail: Say = lambda _: None,
    quantization: Quantization | None = None,
    storage: HalfStorage | None = None,
) -> list[Path]:
    """The stage files of a bundle, checked by the ONNX checker; returns all paths written.

    precision: of floating-point values, "fp32" or "fp16". quantization: of the towers' products, None for none.
    storage: a file of the folder that weights are read from, where they are in it.
    """
    name = precision if quantization is None else quantization.name
    metadata = {"clip4str": clip4str.__version__, "precision": name, "charset": model.charset.characters}
    written: list[Path] = []
    for stage in STAGES:
        start = time.perf_counter()
        graph = stage_graph(model, stage, precision, quantization)
        doc = f"CLIP4STR, {stage} stage, {name}; {describe(model)}"
        paths = graph.save(folder / f"{stage}.onnx", {**metadata, "stage": stage}, doc, storage)
        written += paths
        megabytes = sum(path.stat().st_size for path in paths) / 1e6
        say(f"{stage:7} {megabytes:8.1f} MB  {time.perf_counter() - start:5.1f} s")
        detail(f"        {len(graph.nodes)} nodes")
        for note in graph.notes[:3]:
            say(f"        {note}")
        for note in graph.notes[3:]:
            detail(f"        {note}")
        if len(graph.notes) > 3:
            say(f"        and {len(graph.notes) - 3} weights more")
    return written


def stage_graph(model: Clip4Str, stage: str, precision: str, quantization: Quantization | None = None) -> Graph:
    more = () if quantization is None else (quantization,)
    if stage == "image":
        return image_graph(model, precision, *more)
    if stage == "text":
        return text_graph(model, precision, *more)
    return decoder_graph(model, precision, stage)


def describe(model: Clip4Str) -> str:
    c, parameters = model.config, sum(p.numel() for p in model.parameters())
    said = f"{parameters / 1e6:.1f}M parameters, {c.image_size[0]}x{c.image_size[1]} images"
    return f"{said}, words of up to {c.steps - 1} characters out of {describe_characters(c.charset)}"
