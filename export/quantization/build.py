"""Checkpoint -> the stage files of an eight-bit bundle: calibrate, plan, write, pass the gate."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from clip4str.core.cpu import cpu_flags, weight_type
from clip4str.core.errors import UsageError
from clip4str.core.progress import Progress
from clip4str.export.quantization.gate import Gate, pass_gate
from clip4str.export.quantization.plan import Quantization, units_of
from clip4str.export.quantization.products import Watch, exact_outputs, relative_error
from clip4str.export.quantization.samples import Sample, Samples, load_samples
from clip4str.export.quantization.schemes import MARGIN, faster, faster_scheme, time_in_turn
from clip4str.export.quantization.smoothing import best_smoothing
from clip4str.export.stage_files import stage_graph, write_stages
from clip4str.model.clip4str import Clip4Str
from clip4str.runtime.bundle import EIGHT_BITS, LEAST_CAPABILITY
from clip4str.runtime.images import prepare

BATCH = 16
COMPARED = 32  # calibration crops, and captions, on which whole towers are compared

Say = Callable[[str], object]


@dataclass(frozen=True)
class QuantizationOptions:
    """calib_data: a folder of word crops or an LMDB, None for the bundled ones and rendered words. max_accuracy_drop:
    points of word accuracy, or without labels percent of words, that may be lost. device_target: "cpu" or "gpu".
    scheme: of a CPU's, "qdq" or "dynamic", None for the one that suits the machine. precision: "int8", or "fp8", which
    only GPUs have.
    """

    calib_data: Path | None = None
    max_accuracy_drop: float = 0.3
    device_target: str = "cpu"
    scheme: str | None = None
    precision: str = "int8"

    def __post_init__(self) -> None:
        if self.precision not in EIGHT_BITS:
            raise UsageError(f"eight bits are {' or '.join(EIGHT_BITS)}, not {self.precision!r}")
        devices = ("gpu",) if self.precision == "fp8" else ("cpu", "gpu")
        if self.device_target not in devices:
            raise UsageError(f"{self.precision} is for {' or '.join(map(repr, devices))}, not {self.device_target!r}")
        if self.scheme is not None and (self.scheme not in ("qdq", "dynamic") or self.device_target != "cpu"):
            raise UsageError(f"the scheme is 'qdq' or 'dynamic', of a CPU's bundle, not {self.scheme!r}")


@dataclass(frozen=True)
class Calibration:
    """What the float32 network was seen to do. inputs: for comparing whole towers, by tower."""

    watched: Watch
    inputs: dict[str, Any]


def quantise(
    model: Clip4Str,
    folder: Path,
    options: QuantizationOptions,
    *,
    normalization: str = "half",
    say: Say = lambda _: None,
    detail: Say = lambda _: None,
) -> tuple[list[Path], dict[str, Any]]:
    """Write the four stage files into `folder`; returns them and the manifest's `quantization`.

    Raises UsageError, ImageError, DataError (calibration crops), ParityError (the gate), CheckpointError.
    """
    samples = load_samples(options.calib_data, model.config)
    gate = Gate(model, samples.gate, normalization, say, options.precision)
    _say_samples(samples, gate, options, say)
    plan = Quantization(target=options.device_target, weights="e4m3" if options.precision == "fp8" else "s8")
    if plan.target == "cpu":
        plan = replace(plan, weights=weight_type(cpu_flags()))
    calibration = calibrate(model, samples.calibration, normalization)
    plan, strengths, errors = best_smoothing(plan, model, calibration.watched, calibration.inputs)
    for tower, found in errors.items():
        detail(f"      {tower}: error of its outputs by strength of smoothing: {found}")
    facts: dict[str, Any] = {"calibration": {"source": samples.source, "crops": len(samples.calibration)}}
    facts |= {"smoothing": strengths, "smoothing_errors": errors}
    with tempfile.TemporaryDirectory(prefix=".calibration-", dir=folder) as scratch:
        if options.scheme is not None:
            plan = replace(plan, scheme=options.scheme)
        elif plan.target == "cpu":
            plan, facts["schemes"] = choose_scheme(model, plan, calibration, Path(scratch), say)
        gate.attempt("float32", write_stages(model, Path(scratch), "fp32", detail, detail))

    def write(plan: Quantization) -> list[Path]:
        return write_stages(model, folder, plan.precision, detail, detail, plan)

    calibrated = plan
    plan, files = pass_gate(
        gate, plan, options.max_accuracy_drop, write, lambda: by_sensitivity(model, calibrated, calibration, say)
    )
    if plan.target == "gpu":
        say("      (a CPU computes this bundle's 8 bits in float32: its time a word says nothing of a GPU's)")
    return files, {**_described(plan), **facts, "gate": gate.to_dict(options.max_accuracy_drop)}


@torch.inference_mode()
def calibrate(model: Clip4Str, samples: list[Sample], normalization: str) -> Calibration:
    """Watch the network read the crops."""
    starts = range(0, len(samples), BATCH)
    watched = Watch(model, calls=len(starts))
    captions: set[str] = set()
    images: list[torch.Tensor] = []
    with Progress(len(samples), "calibrating", "crops") as bar:
        for start in starts:
            batch = [sample.image for sample in samples[start : start + BATCH]]
            pixels = torch.from_numpy(prepare(batch, model.config.image_size, normalization))
            with watched:
                reading = model.read(pixels)
            captions |= {model.charset.caption(ids) for ids in reading.ids}
            if len(images) * BATCH < COMPARED:
                images.append(pixels)
            bar.update(len(batch))
    bpe = model.tokenizer(sorted(captions)[:COMPARED])
    return Calibration(watched, {"image": torch.cat(images), "text": bpe})


def choose_scheme(
    model: Clip4Str, plan: Quantization, calibration: Calibration, scratch: Path, say: Say
) -> tuple[Quantization, dict[str, Any]]:
    """The plan in the scheme whose image stage is faster here, one crop at a time beside float32's, and the figures."""
    plans = {scheme: replace(plan, scheme=scheme) for scheme in ("qdq", "dynamic")}
    files = {}
    for name, tried in {"float32": None, **plans}.items():
        files[name] = scratch / f"{name}.onnx"
        stage_graph(model, "image", plan.precision, tried).save(files[name], {}, "")
    times = time_in_turn(files, {"pixels": calibration.inputs["image"][:1].numpy()})
    best, ms = faster_scheme(times), {name: 1000 * statistics.median(seconds) for name, seconds in times.items()}
    say(
        f"      image stage, one thread: float32 {ms['float32']:.2f} ms, int8 with fixed ranges {ms['qdq']:.2f} ms, "
        f"with dynamic ones {ms['dynamic']:.2f} ms; taken: {'fixed' if best == 'qdq' else 'dynamic'}, {plan.weights}"
    )
    if best == "dynamic":
        say(f"      (over {MARGIN:g} times as fast, but then an image's answer may depend on its batch)")
    if not faster(times, best):
        say("      int8 is not faster than float32 on this CPU, only smaller")
    return plans[best], {"milliseconds": {k: round(v, 4) for k, v in ms.items()}, "rounds": len(times["qdq"])}


def by_sensitivity(model: Clip4Str, plan: Quantization, calibration: Calibration, say: Say) -> list[str]:
    """All units, first those whose tower's outputs are furthest off when they alone are quantised."""
    units = units_of(model.config)
    exact = exact_outputs(model, calibration.inputs)
    errors = {}
    with Progress(len(units), "sensitivity", "units") as progress:
        for unit in units:
            alone = plan.keeping(frozenset(units) - {unit})
            tower = unit.partition(".")[0]
            errors[unit] = relative_error(model, alone, tower, calibration.inputs[tower], exact[tower])
            progress.update()
    order = sorted(units, key=lambda unit: -errors[unit])
    say("      most sensitive: " + ", ".join(f"{unit} {100 * errors[unit]:.2g} %" for unit in order[:5]))
    return order


def _say_samples(samples: Samples, gate: Gate, options: QuantizationOptions, say: Say) -> None:
    say(
        f"{options.precision}: {samples.source}; {len(samples.calibration)} to calibrate, {len(gate.samples)} for the "
        f"gate, {'labelled' if gate.labels else 'without labels'}: one word is {gate.resolution:.2g} points"
    )
    if options.calib_data is None and not gate.model.charset.is_standard:
        say("      these are words of ASCII, and this network writes others: name crops of its own with --calib-data")
    if gate.resolution > max(options.max_accuracy_drop, 0.1):
        say(f"      too few to tell {options.max_accuracy_drop:g} points: more crops make a better gate")


def _described(plan: Quantization) -> dict[str, Any]:
    least = LEAST_CAPABILITY.get(plan.name)
    return {
        "scheme": plan.scheme,
        "target": plan.target,
        "weights": plan.weights,
        "activations": plan.activations.name,
        "rest": plan.precision,
        "kept": sorted(plan.kept),
        **({"least_compute_capability": ".".join(map(str, least))} if least else {}),
    }
