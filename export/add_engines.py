"""Engines for a bundle, on the machine that will run them: no torch, only the bundle's ONNX files and TensorRT."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from clip4str.core.bpe import BytePairTokenizer
from clip4str.core.driver import PredictAndRefine
from clip4str.core.errors import BundleError, ParityError, UsageError
from clip4str.core.progress import Progress
from clip4str.core.text import Charset
from clip4str.export.atomic_folder import atomic_folder
from clip4str.export.engines import EngineOptions, build_engines, engine_key
from clip4str.export.parity import compare
from clip4str.export.parity_images import sample_images
from clip4str.runtime.backends import Options
from clip4str.runtime.backends.ort import OrtBackend
from clip4str.runtime.backends.trt.stage_by_stage import lacks_decoders, without_decoders
from clip4str.runtime.bundle import KERNELS, MANIFEST, STAGES, Bundle, Manifest, describe_file, write_manifest
from clip4str.runtime.cuda import open_cuda, why_unusable
from clip4str.runtime.images import prepare

MIN_AGREEMENT = {"fp32": 0.99, "fp16": 0.99, "int8": 0.95, "fp8": 0.95}
Say = Callable[[str], object]


def finish_bundle(
    folder: Path,
    options: EngineOptions,
    *,
    sample_folder: Path | str | None = None,
    min_agreement: float | None = None,
    force: bool = False,
    say: Say = lambda _: None,
    detail: Say = lambda _: None,
) -> Path:
    """Build the engines of the bundle in `folder` and check their words against its ONNX files'; returns the folder.

    Does nothing if its engines were built from the same files by the same TensorRT on the same GPU with the same
    options, unless `force`. min_agreement: share of words that must agree, None for 0.99, int8 and fp8 0.95. The bundle
    stays as it was until everything is done. Raises BundleError, BackendError, UsageError, ImageError, ParityError.
    """
    folder = Path(folder.absolute())
    bundle = Bundle.open(folder, verify=True)
    manifest = bundle.manifest
    for stage in STAGES:
        bundle.path(stage)
    if options.max_batch > manifest.max_batch:
        raise UsageError(f"{folder}: built for batches of up to {manifest.max_batch}, not {options.max_batch}")
    if lacks_decoders(manifest):
        say(without_decoders(_place(folder), manifest))
    key = engine_key(manifest, options)
    images = sample_images(Path(sample_folder) if sample_folder is not None else None)
    if manifest.engines.get("key") == key and not force:
        say(f"engines of {folder.name} are up to date: same files, TensorRT, GPU and options (--force builds again)")
        if not manifest.engines.get("parity", {}).get("checked"):  # built where they could not be run
            parity = _parity(folder, manifest, images, min_agreement, say)
            if parity["checked"]:
                write_manifest(folder, replace(manifest, engines={**manifest.engines, "parity": parity}))
        return folder
    with atomic_folder(folder, force=True) as staging:
        old = set(manifest.engines.get("files", {}).values())
        _link_files(folder, staging, {MANIFEST, *old})
        engines = build_engines(staging, manifest, options, say=say, detail=detail)
        engines["command"] = options.command(_place(folder))
        files = {name: entry for name, entry in manifest.files.items() if name not in old}
        files |= {name: describe_file(staging / name) for name in engines["files"].values()}
        manifest = replace(manifest, files=files, engines=engines)
        write_manifest(staging, manifest)
        engines["parity"] = _parity(staging, manifest, images, min_agreement, say)
        write_manifest(staging, manifest)
    return folder


def _parity(folder: Path, manifest: Manifest, images: Any, min_agreement: float | None, say: Say) -> dict[str, Any]:
    """The engines' words and stages against ONNX Runtime's over the same bundle, where there is a GPU to run them."""
    if (why := _why_not_run(manifest)) is not None:
        say(f"engines not run here ({why}): the first machine that loads them should check them with clip4str build")
        return {"checked": False, "why": why}
    # The engines' own decoders first, whether or not the compiled kernels are here: elsewhere they may not be.
    engines_alone = {stage: name for stage, name in manifest.stages.items() if stage != KERNELS}
    figures = _compared(Bundle(folder, replace(manifest, stages=engines_alone)), images, min_agreement, say)
    if KERNELS in manifest.stages:
        figures["with_kernels"] = _compared(Bundle(folder, manifest), images, min_agreement, say, only_kernels=True)
    return {"checked": True, **figures}


def _compared(
    bundle: Bundle, images: Any, min_agreement: float | None, say: Say, only_kernels: bool = False
) -> dict[str, Any]:
    """only_kernels: compare nothing, {}, if the compiled kernels do not run here."""
    from clip4str.runtime.backends import trt

    manifest = bundle.manifest
    tokenizer = BytePairTokenizer(manifest.config["vocabulary"], manifest.config["context"])
    driver = PredictAndRefine(Charset(manifest.charset, manifest.charset_test), tokenizer, manifest.config["steps"])
    pixels = prepare(images, manifest.image_size, manifest.normalization)
    backend = trt.open_backend(bundle, driver, Options())
    try:
        if only_kernels and not backend.compiled_kernels:
            return {}
        backend.with_logits = True
        with Progress(len(pixels), "comparing words", "images") as bar:
            parity = compare(driver, OrtBackend(bundle), backend, pixels, bar.update, most=backend.batch_size)
        say(parity.table())
        least = MIN_AGREEMENT[manifest.precision] if min_agreement is None else min_agreement
        parity.check(least)
        return {**parity.to_dict(), **_in_one_launch(backend, driver, pixels, least, say)}
    finally:
        backend.close()


def _in_one_launch(backend: Any, driver: PredictAndRefine, pixels: Any, least: float, say: Say) -> dict[str, float]:
    """How many words are, read in one launch, those that the same stages give one after the other; {} if none are read
    so here. Raises ParityError."""
    backend.with_logits = False
    if not backend.one_launch:
        return {}
    same, size = 0, backend.batch_size
    for start in range(0, len(pixels), size):
        part = pixels[start : start + size]
        same += int((backend.read(driver, part).ids == driver(backend, part).ids).all(axis=1).sum())
    found = f"{same} of {len(pixels)} words agree in one launch with those stage by stage"
    say(found)
    if same < least * len(pixels):
        raise ParityError(f"{found} (wanted {100 * least:g}%); CLIP4STR_ONE_LAUNCH=0 does without it")
    return {"one_launch_agreement": round(same / len(pixels), 5)}


def _why_not_run(manifest: Manifest) -> str | None:
    """Why this machine cannot run these engines; None if it can."""
    if (why := why_unusable()) is not None:
        return why
    layer = open_cuda()
    here, built_for = layer.device.compute_capability, manifest.engines["compute_capabilities"]
    layer.close()
    if manifest.engines["target"] == "tensorrt-rtx" and built_for and here not in built_for:
        return f"they are for compute capability {', '.join(built_for)}, here is {here}"
    return None


def _place(folder: Path) -> str:
    """Where a bundle is, as far as it is anybody else's business."""
    here = Path.cwd()
    return str(folder.relative_to(here) if folder.is_relative_to(here) and folder != here else folder.name)


def _link_files(source: Path, target: Path, without: set[str]) -> None:
    """The same files once more, without a copy where the file system can."""
    for path in sorted(source.iterdir()):
        if path.name in without:
            continue
        if path.is_symlink() or not path.is_file():
            raise BundleError(f"{path}: is not a plain file; a bundle holds nothing else")
        try:
            os.link(path, target / path.name)
        except OSError:
            shutil.copy2(path, target / path.name)
