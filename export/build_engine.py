"""Checkpoint -> bundle: `python export/build_engine.py [CHECKPOINT]`, or `clip4str build`."""

from __future__ import annotations

import platform
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
from tqdm import tqdm

import clip4str
from clip4str.export.decoders import decoder_graph
from clip4str.export.graph import Graph
from clip4str.export.parity import Parity, measure
from clip4str.export.parity_images import sample_images
from clip4str.export.staging import atomic_folder, check_target
from clip4str.export.torch_weights import WEIGHTS_FILE, check_weights, write_weights
from clip4str.export.towers import image_graph, text_graph
from clip4str.model.checkpoint import BUNDLED, load_checkpoint
from clip4str.model.clip4str import Clip4Str
from clip4str.runtime.backends.ort import OrtStages
from clip4str.runtime.bundle import STAGES, WEIGHTS, Bundle, Manifest, describe_file, file_sha256, write_manifest
from clip4str.runtime.cli import Parser, fail
from clip4str.runtime.errors import CheckpointError, Clip4StrError, UsageError
from clip4str.runtime.images import NORMALIZATION, prepare

PRECISIONS = ("fp32", "fp16")
MOST_BATCH = 4096
MODEL_CARD = "MODEL_CARD.md"
PROGRAM = "clip4str build"

Say = Callable[[str], object]


def build_bundle(
    checkpoint: Path | str | None = None,
    output: Path | str | None = None,
    *,
    precision: str = "fp32",
    max_batch: int = 32,
    normalization: str = "half",
    charset: str | None = None,
    charset_test: str | None = None,
    image_size: tuple[int, int] | None = None,
    sample_folder: Path | str | None = None,
    min_agreement: float = 0.99,
    torch_weights: bool = False,
    force: bool = False,
    say: Say = lambda _: None,
    detail: Say = lambda _: None,
) -> Path:
    """Write a bundle and check its answers against the float32 network's; returns its folder.

    checkpoint: None for the bundled one. output: None for bundles/STEM-PRECISION. max_batch: most images per call of
    a stage. sample_folder: word crops to compare words on, None for the bundled ones. min_agreement: share of words
    that must agree. torch_weights: add the network's tensors, for the torch backend. force: replace an existing
    bundle. say, detail: take lines of progress.

    The folder appears when everything is done, or not at all. Raises UsageError, CheckpointError, CharsetError,
    ImageError, ParityError.
    """
    _check_options(precision, max_batch, normalization, min_agreement)
    source = Path(checkpoint) if checkpoint is not None else _bundled()
    target = Path(output) if output is not None else Path("bundles") / f"{source.stem}-{precision}"
    target = Path(target.absolute())
    check_target(target, force)
    samples = sample_images(Path(sample_folder) if sample_folder is not None else None)
    model = load_checkpoint(source, image_size, charset, charset_test)
    say(f"{source.name}: {_describe(model)}")
    with atomic_folder(target, force) as folder:
        files = write_stages(model, folder, precision, say, detail)
        stages = {stage: f"{stage}.onnx" for stage in STAGES}
        if torch_weights:
            stages[WEIGHTS] = WEIGHTS_FILE
            files.append(write_weights(model, folder / WEIGHTS_FILE, precision, say))
        files += _model_card(source, folder)
        manifest = Manifest(
            name=target.name,
            config=model.config.to_dict(),
            charset=model.charset.characters,
            charset_test=model.charset.test,
            normalization=normalization,
            precision=precision,
            max_batch=max_batch,
            files={path.name: describe_file(path) for path in files},
            stages=stages,
            checkpoint={"name": source.name, "sha256": file_sha256(source)},
            built_by=_versions(),
        )
        write_manifest(folder, manifest)
        pixels = prepare(samples, manifest.image_size, normalization)
        parity = check_parity(model, folder, pixels)
        say(parity.table())
        parity.check(min_agreement)
        figures = parity.to_dict()
        if torch_weights:
            with_torch = check_weights(model, Bundle(folder, manifest), pixels, say)
            with_torch.check(min_agreement)
            figures["torch"] = with_torch.to_dict()
        write_manifest(folder, replace(manifest, parity=figures))
    return target


def _model_card(source: Path, folder: Path) -> list[Path]:
    """A card beside the checkpoint comes along, but for its pictures."""
    card = source.with_name(MODEL_CARD)
    if not card.is_file():
        return []
    lines = card.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    copy = folder / MODEL_CARD
    copy.write_text("".join(line for line in lines if not line.startswith("![")), encoding="utf-8")
    return [copy]


def write_stages(
    model: Clip4Str, folder: Path, precision: str, say: Say = lambda _: None, detail: Say = lambda _: None
) -> list[Path]:
    """The stage files of a bundle, checked by the ONNX checker; returns all paths written."""
    metadata = {"clip4str": clip4str.__version__, "precision": precision, "charset": model.charset.characters}
    written: list[Path] = []
    for stage in STAGES:
        start = time.perf_counter()
        graph = stage_graph(model, stage, precision)
        doc = f"CLIP4STR, {stage} stage, {precision}; {_describe(model)}"
        paths = graph.save(folder / f"{stage}.onnx", {**metadata, "stage": stage}, doc)
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


def stage_graph(model: Clip4Str, stage: str, precision: str) -> Graph:
    if stage == "image":
        return image_graph(model, precision)
    if stage == "text":
        return text_graph(model, precision)
    return decoder_graph(model, precision, stage)


def check_parity(model: Clip4Str, folder: Path, pixels: np.ndarray) -> Parity:
    """The bundle in `folder` on ONNX Runtime against the network."""
    stages = OrtStages(Bundle.open(folder, verify=False))
    with tqdm(total=len(pixels), desc="comparing words", unit="image", leave=False, disable=None) as bar:
        return measure(model, stages, pixels, bar.update)


def main(argv: Sequence[str] | None = None) -> int:
    """The command. 0: written; 2: an error, said in one line; 130: interrupted."""
    try:
        options = _parser().parse_args(argv)
        start = time.perf_counter()
        with _terminated_is_interrupted():
            folder = build_bundle(
                options.checkpoint,
                options.output,
                precision=options.precision,
                max_batch=options.max_batch,
                normalization=options.normalization,
                charset=options.charset,
                charset_test=options.charset_test,
                image_size=_size(options.image_size) if options.image_size else None,
                sample_folder=options.sample_images,
                min_agreement=options.min_agreement,
                torch_weights=options.torch,
                force=options.force,
                say=_print,
                detail=_print if options.verbose else lambda _: None,
            )
    except KeyboardInterrupt:
        print(f"{PROGRAM}: interrupted, nothing was written", file=sys.stderr)
        return 130
    except (Clip4StrError, OSError) as error:
        return fail("build", error)
    except MemoryError:
        return fail("build", "not enough memory")
    print(f"wrote {_shown(folder)} in {time.perf_counter() - start:.0f} s")
    return 0


@contextmanager
def _terminated_is_interrupted() -> Iterator[None]:
    """A build that is told to stop tidies up like one that is interrupted."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _parser() -> Parser:
    parser = Parser(
        prog=PROGRAM,
        description="Turn a CLIP4STR checkpoint into a bundle: four ONNX stage graphs and a manifest. Ends by "
        "comparing the bundle's words with the float32 network's on sample images, and refuses to write one that "
        "reads differently.",
    )
    add = parser.add_argument
    add(
        "checkpoint",
        nargs="?",
        metavar="CHECKPOINT",
        help=".ckpt, .pt or .safetensors; default: the bundled network",
    )
    precision = parser.add_mutually_exclusive_group()
    for name, text in (
        ("fp32", "float32 weights: fastest on a CPU (default)"),
        ("fp16", "half precision: for GPUs"),
    ):
        precision.add_argument(f"--{name}", dest="precision", action="store_const", const=name, help=text)
    parser.set_defaults(precision="fp32")
    add("--output", metavar="DIR", help="bundle folder; default: bundles/CHECKPOINT-PRECISION")
    add("--max-batch", metavar="N", type=int, default=32, help="most images per call (default 32)")
    add("--normalization", choices=sorted(NORMALIZATION), default="half",
        help="half: mean = std = 0.5, as published accuracy was measured (default); clip: CLIP's own")  # fmt: skip
    add("--charset", metavar="S", help="characters the network was trained on, where the checkpoint does not tell")
    add(
        "--charset-test",
        metavar="S",
        help="characters that captions are reduced to; default: the checkpoint's",
    )
    add("--image-size", metavar="HxW", help="input size, where the checkpoint does not tell")
    add("--sample-images", metavar="DIR", help="word crops to compare words on; default: the bundled ones")
    add("--min-agreement", metavar="SHARE", type=float, default=0.99,
        help="share of words that must agree with the float32 network (default 0.99)")  # fmt: skip
    add("--torch", action="store_true", help="also write the weights as tensors, for the torch backend")
    add("--force", action="store_true", help="replace an existing bundle")
    add("--verbose", action="store_true", help="say more")
    return parser


def _check_options(precision: str, max_batch: int, normalization: str, min_agreement: float) -> None:
    if precision not in PRECISIONS:
        raise UsageError(f"precision is one of {', '.join(PRECISIONS)}, not {precision!r}")
    if normalization not in NORMALIZATION:
        raise UsageError(f"normalization is one of {', '.join(sorted(NORMALIZATION))}, not {normalization!r}")
    if not 1 <= max_batch <= MOST_BATCH:
        raise UsageError(f"the largest batch must be 1 to {MOST_BATCH}, not {max_batch}")
    if not 0 <= min_agreement <= 1:
        raise UsageError(f"the agreement wanted is a share from 0 to 1, not {min_agreement:g}")


def _bundled() -> Path:
    if not BUNDLED.is_file():
        raise CheckpointError("this installation has no bundled checkpoint; name one: clip4str build CHECKPOINT")
    return BUNDLED


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise UsageError(f"--image-size is HxW, such as 32x128, not {text!r}")
    return int(height), int(width)


def _describe(model: Clip4Str) -> str:
    c, parameters = model.config, sum(p.numel() for p in model.parameters())
    return (
        f"{parameters / 1e6:.1f}M parameters, {c.image_size[0]}x{c.image_size[1]} images, {len(c.charset)} characters"
    )


def _versions() -> dict[str, str]:
    return {
        "clip4str": clip4str.__version__,
        "torch": version("torch"),
        "onnx": onnx.__version__,
        "python": platform.python_version(),
    }


def _print(line: str) -> None:
    print(line, flush=True)


def _shown(folder: Path) -> str:
    here = Path.cwd()
    return str(folder.relative_to(here) if folder.is_relative_to(here) else folder)


if __name__ == "__main__":
    sys.exit(main())
