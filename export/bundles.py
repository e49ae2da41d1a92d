"""Checkpoint -> bundle of ONNX files, verified. add_engines.py adds engines to it."""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx

import clip4str
from clip4str.core.cpu import cpu_flags, weight_type
from clip4str.core.errors import BundleError, CheckpointError, UsageError
from clip4str.core.normalization import NORMALIZATION
from clip4str.core.progress import Progress
from clip4str.core.text import Charset
from clip4str.export.activations import Watched, check_half
from clip4str.export.atomic_folder import atomic_folder, check_target
from clip4str.export.half_storage import HalfStorage
from clip4str.export.kernel_weights import DECODERS_FILE, write_decoders
from clip4str.export.parity import Parity, measure
from clip4str.export.parity_images import sample_images, sample_labels
from clip4str.export.stage_files import describe, write_stages
from clip4str.export.torch_weights import WEIGHTS_FILE, check_weights, say_if_slow, write_weights
from clip4str.export.untrained import untrained
from clip4str.model.checkpoint import BUNDLED, load_checkpoint
from clip4str.model.clip4str import Clip4Str
from clip4str.runtime.backends.ort import OrtBackend
from clip4str.runtime.bundle import (
    EIGHT_BITS,
    KERNELS,
    PRECISIONS,
    STAGES,
    WEIGHTS,
    Bundle,
    Manifest,
    describe_file,
    file_sha256,
    write_manifest,
)
from clip4str.runtime.images import prepare

MOST_BATCH = 4096
MODEL_CARD = "MODEL_CARD.md"
MIN_AGREEMENT = 0.99

Say = Callable[[str], object]


@dataclass(frozen=True)
class Settings:
    """What of a build decides which files it writes. Documented at build_bundle, which takes them by name."""

    precision: str = "fp32"
    for_gpu: bool = False
    max_batch: int = 32
    normalization: str = "half"
    charset: str | None = None
    charset_test: str | None = None
    image_size: tuple[int, int] | None = None
    sample_folder: Path | str | None = None
    min_agreement: float | None = None
    torch_weights: bool = False
    calib_data: Path | str | None = None
    max_accuracy_drop: float = 0.3
    half_storage: bool = False

    def check(self) -> None:
        """Raises UsageError."""
        if self.precision not in PRECISIONS:
            raise UsageError(f"precision is one of {', '.join(PRECISIONS)}, not {self.precision!r}")
        if self.normalization not in NORMALIZATION:
            raise UsageError(f"normalization is one of {', '.join(sorted(NORMALIZATION))}, not {self.normalization!r}")
        if not 1 <= self.max_batch <= MOST_BATCH:
            raise UsageError(f"the largest batch must be 1 to {MOST_BATCH}, not {self.max_batch}")
        if self.min_agreement is not None and not 0 <= self.min_agreement <= 1:
            raise UsageError(f"the agreement wanted is a share from 0 to 1, not {self.min_agreement:g}")
        if not 0 <= self.max_accuracy_drop <= 100:
            raise UsageError(f"the accuracy drop allowed is 0 to 100 points, not {self.max_accuracy_drop:g}")
        if self.calib_data is not None and self.precision not in EIGHT_BITS:
            raise UsageError(f"--calib-data is for --int8 and --fp8; an {self.precision} bundle is not calibrated")
        if self.half_storage and self.precision != "fp32":
            raise UsageError(f"half storage is of fp32 bundles; {self.precision} ones are small already")

    def key(self, checkpoint: Path) -> str:
        """Equal where a build would write the same files."""
        said = {name: str(value) for name, value in vars(self).items()}
        if self.precision in EIGHT_BITS:
            said |= {"onnxruntime": version("onnxruntime"), "cpu": "" if self.for_gpu else weight_type(cpu_flags())}
            said |= {"form": "2"} if self.for_gpu else {}  # of what nodes.py writes: 1 may overflow float16
        else:
            del said["max_accuracy_drop"]
        if self.precision == "fp32" or (self.precision == "int8" and not self.for_gpu):
            said |= {"products": "2"}  # of few rows, too, have the weights on the right
        for name in ("calib_data", "sample_folder"):
            if (folder := getattr(self, name)) is not None:
                said[name] = _listing(Path(folder))
        facts = {**said, "checkpoint": file_sha256(checkpoint), **versions()}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def build_bundle(
    checkpoint: Path | str | None = None,
    output: Path | str | None = None,
    *,
    force: bool = False,
    say: Say = lambda _: None,
    detail: Say = lambda _: None,
    before: Callable[[Charset], object] = lambda _: None,
    **settings: Any,
) -> Path:
    """Write a bundle and check its answers against the float32 network's; returns its folder.

    checkpoint: None for the bundled one. output: None for bundles/STEM-PRECISION. force: replace an existing bundle,
    even one that is up to date. say, detail: take lines of progress. before: may refuse the network's charset, by an
    error, before anything is written. settings:

    precision: "fp32", "fp16", "int8" or "fp8". for_gpu: for engines: int8 with half precision around it, and the
    decoders packed for the compiled kernels; fp8 always is. max_batch: most images per call of a stage. normalization:
    "half" or "clip". charset, charset_test, image_size: where the checkpoint does not tell. sample_folder: word crops
    to compare words on, None for the bundled ones. min_agreement: share of words that must agree, None for 0.99, or for
    int8 and fp8, which have an accuracy gate, for 0. torch_weights: add the network's tensors, for the torch backend.
    calib_data, max_accuracy_drop: of these two, see export.quantization. half_storage: for a checkpoint of float16
    safetensors, which becomes the tensors for the torch backend; the float32 stages read their weights from it.

    The folder appears when everything is done, or not at all. Raises UsageError, CheckpointError, CharsetError,
    ImageError, ParityError, DataError.
    """
    how = Settings(**settings)
    how.check()
    how = replace(how, for_gpu=how.for_gpu or how.precision == "fp8")
    source = Path(checkpoint) if checkpoint is not None else _bundled()
    name = source.absolute().parent.name if source.name == WEIGHTS_FILE else source.stem
    target = Path(output) if output is not None else Path("bundles") / f"{name}-{how.precision}"
    target = Path(target.absolute())
    if not force and _is_up_to_date(target, source, how):
        say(f"{target.name} is up to date: same checkpoint, same options, same versions (--force builds it again)")
        return target
    check_target(target, force)
    samples = sample_images(Path(how.sample_folder) if how.sample_folder is not None else None)
    model = load_checkpoint(source, how.image_size, how.charset, how.charset_test, say=say)
    before(model.charset)
    say(f"{source.name}: {describe(model)}")
    if model.charset.note:
        say(model.charset.note)
    if how.torch_weights or how.half_storage:
        say_if_slow(model.config, say)
    with atomic_folder(target, force) as folder:
        manifest = _write_files(model, source, target.name, folder, how, say, detail)
        write_manifest(folder, manifest)
        pixels = prepare(samples, manifest.image_size, how.normalization)
        parity = check_parity(model, folder, pixels)
        say(parity.table())
        if note := untrained(model.charset, parity.read, sample_labels(how.sample_folder)):
            say(note)
        agreement = how.min_agreement
        agreement = (0 if how.precision in EIGHT_BITS else MIN_AGREEMENT) if agreement is None else agreement
        half = how.precision == "fp16" or (how.precision in EIGHT_BITS and how.for_gpu)
        if half or how.torch_weights:
            check_half(parity.activations, half, say)
        parity.check(agreement)
        figures = parity.to_dict()
        if WEIGHTS in manifest.stages:
            with_torch = check_weights(model, Bundle(folder, manifest), pixels, say)
            with_torch.check(agreement)
            figures["torch"] = with_torch.to_dict()
        write_manifest(folder, replace(manifest, parity=figures))
    return target


def check_parity(model: Clip4Str, folder: Path, pixels: np.ndarray) -> Parity:
    """The bundle in `folder` on ONNX Runtime against the network, with the network's largest numbers."""
    stages, watched = OrtBackend(Bundle.open(folder, verify=False)), Watched(model)
    with Progress(len(pixels), "comparing words", "images") as bar:
        parity = measure(model, stages, pixels, bar.update, watched)
    parity.activations = watched.largest
    return parity


def _write_files(
    model: Clip4Str, source: Path, name: str, folder: Path, how: Settings, say: Say, detail: Say
) -> Manifest:
    """Everything but the manifest, which is returned."""
    quantization: dict[str, Any] = {}
    weights = folder / WEIGHTS_FILE
    if how.half_storage:
        shutil.copyfile(source, weights)
        files = [*write_stages(model, folder, how.precision, say, detail, storage=HalfStorage(weights)), weights]
    elif how.precision in EIGHT_BITS:
        from clip4str.export.quantization import QuantizationOptions, quantise

        calib_data = None if how.calib_data is None else Path(how.calib_data)
        device = "gpu" if how.for_gpu else "cpu"
        options = QuantizationOptions(calib_data, how.max_accuracy_drop, device, precision=how.precision)
        files, quantization = quantise(model, folder, options, normalization=how.normalization, say=say, detail=detail)
    else:
        files = write_stages(model, folder, how.precision, say, detail)
    stages = {stage: f"{stage}.onnx" for stage in STAGES}
    if how.torch_weights and not how.half_storage:
        files.append(write_weights(model, weights, "fp32" if how.precision == "fp32" else "fp16", say))
    if weights in files:
        stages[WEIGHTS] = WEIGHTS_FILE
    if how.for_gpu and how.precision != "fp32" and (decoders := write_decoders(model, folder / DECODERS_FILE, say)):
        stages[KERNELS] = DECODERS_FILE
        files.append(decoders)
    files += _model_card(source, folder)
    return Manifest(
        name=name,
        config=model.config.to_dict(),
        charset=model.charset.characters,
        charset_test=model.charset.test,
        normalization=how.normalization,
        precision=how.precision,
        max_batch=how.max_batch,
        files={path.name: describe_file(path) for path in files},
        stages=stages,
        checkpoint={"name": source.name, "sha256": file_sha256(source)},
        built_by=versions(),
        quantization=quantization,
        key=how.key(source),
    )


def _model_card(source: Path, folder: Path) -> list[Path]:
    """A card beside the checkpoint, or beside the bundle that it lies in, comes along, but for its pictures."""
    folders = source.absolute().parents[: 2 if source.name == WEIGHTS_FILE else 1]
    card = next((folder / MODEL_CARD for folder in folders if (folder / MODEL_CARD).is_file()), None)
    if card is None:
        return []
    lines = card.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    copy = folder / MODEL_CARD
    copy.write_text("".join(line for line in lines if not line.startswith("![")), encoding="utf-8")
    return [copy]


def _is_up_to_date(target: Path, source: Path, how: Settings) -> bool:
    """Is there a whole bundle that this build would write again?"""
    if not target.is_dir() or not source.is_file():
        return False
    try:
        return Bundle.open(target, verify=True).manifest.key == how.key(source)
    except BundleError:
        return False


def _listing(folder: Path) -> str:
    """Names, sizes and times of a folder's files: what was there."""
    entries = sorted(folder.rglob("*")) if folder.is_dir() else [folder] if folder.exists() else []
    return json.dumps([(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in entries])


def _bundled() -> Path:
    if not BUNDLED.is_file():
        raise CheckpointError("this installation has no bundled checkpoint; name one: clip4str build CHECKPOINT")
    return BUNDLED


def versions() -> dict[str, str]:
    """Of what a build depends on."""
    return {
        "clip4str": clip4str.__version__,
        "torch": version("torch"),
        "onnx": onnx.__version__,
        "python": platform.python_version(),
    }
