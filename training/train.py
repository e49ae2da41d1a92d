#!/usr/bin/env python3
"""Train a CLIP4STR network on word crops: LMDB folders, and words rendered on the fly.

Examples:
  python training/train.py --data words/train/real --synthetic pool --output runs/small --steps 20000
  clip4str atlas --output atlas.safetensors
  python training/train.py --data words/train/real --render 0.75 --render-atlas atlas.safetensors --words words.txt \\
      --output runs/small --minutes 18 --batch 1024 --compile
  python training/train.py --size base16 --init clip --data words/train/real --output runs/base16 \\
      --batch 128 --accumulate 8 --steps 51600 --devices 8 --strategy ddp --precision bf16-mixed

A draft head, with which a frozen checkpoint reads the same words sooner, is learned from unlabelled crops in minutes:
  python training/train.py --draft-head my.ckpt --data crops/ --output my-drafting.safetensors

Give the same command again to go on where a run stopped, at any minute. The output folder then holds last.ckpt (to go
on from, and readable as a checkpoint), model.safetensors (averaged weights, the result), log.csv and log.png.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import signal
import sys
import time
import warnings
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    # One process per device imports this file again; matplotlib and MKL need no more threads than asked for.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from clip4str.core.atomic_files import replaced
from clip4str.core.console import fail
from clip4str.core.errors import Clip4StrError, DataError, UsageError, first_line
from clip4str.core.output_files import write_json
from clip4str.training.arguments import check, config_from, parser, settings_from
from clip4str.training.state_file import load_state
from clip4str.training.workers import end_workers, leave_stopping_to_the_parent, said

VALIDATION_CROPS = 300  # without text
PATIENCE = timedelta(days=30)  # of processes with each other; by default one paused for half an hour ends a run


def build_data(
    args: argparse.Namespace, charset: Any, size: tuple[int, int], progress: bool, longest: int
) -> tuple[Any, Any]:
    """The stream of batches and the held-out words, of up to so many characters."""
    from clip4str.data.left_out import read_left_out
    from clip4str.training.data import HELD_OUT, RENDERED_STRENGTH, Stream, load_validation, load_words, say_noted
    from clip4str.training.logbook import HeldOut

    left_out = read_left_out(args.leave_out) if args.leave_out else frozenset()
    whole, apart, pictures = load_validation(args.validation, charset, longest)
    held_out = 0.0 if whole else HELD_OUT
    real, held = None, None
    noted: Counter[str] = Counter()
    if args.data:
        real, held = load_words(args.data, charset, held_out, progress, left_out | pictures,
                                args.weights, args.caseless, apart, longest, noted)  # fmt: skip
    made, made_held = None, None
    if args.synthetic:
        made, made_held = load_words(args.synthetic, charset, 0 if args.data or whole else 0.01, progress,
                                     longest=longest, noted=noted)  # fmt: skip
    if progress and (line := say_noted(noted)):
        print(line)
    others = args.render if made is None else 1.0
    share = args.real_fraction if others else 1.0
    sources = []
    if real is not None:
        sources.append((real, share, 1.0))
    if made is not None:
        sources.append((made, 1 - args.render - (share if real is not None else 0), RENDERED_STRENGTH))
    for source, _, _ in sources:
        source.check_decodable()
    render = args.render if sources else 1.0
    textless, unread = build_textless(args, progress)
    vocabulary: list[str] = []
    if args.words:
        try:
            vocabulary = Path(args.words).read_text(encoding="utf-8").split()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{args.words}: cannot be read as a word list ({error})") from None
    stream = Stream([s for s in sources if s[1] > 0], charset, size, args.batch, args.seed, render, vocabulary,
                    textless=textless)  # fmt: skip
    words = held or made_held
    return stream, HeldOut(whole or ({"held out": words} if words else {}), size, args.validation_words, unread)


def build_textless(args: argparse.Namespace, progress: bool) -> tuple[Any, list[Any]]:
    """The share of crops on which nothing is to be read and their source, or None; and such crops to validate on."""
    from clip4str.training.textless.crops import Textless, measuring_crops
    from clip4str.training.textless.photos import Photos

    if not args.textless:
        return None, []
    learned, measured = (Photos(args.photos, part) if args.photos else None for part in (False, True))
    crops = Textless(args.seed, learned)
    for note in crops.notes if progress else ():
        print(note, file=sys.stderr)
    held_out = measuring_crops(measured, VALIDATION_CROPS, crops.made)
    return (args.textless, crops), [crop.picture for crop in held_out]


def main(argv: list[str] | None = None) -> int:
    try:
        if any(word.partition("=")[0] == "--draft-head" for word in (sys.argv if argv is None else argv)):
            from clip4str.training.draft import main as add_draft_head

            return add_draft_head(argv)
        args = parser(__doc__ or "").parse_args(argv)
        try:
            return train(args)
        except KeyboardInterrupt:
            saved = (Path(args.output) / "last.ckpt").exists()
            goes_on = f"; the same command goes on from {args.output}" if saved else " before the first step"
            print(f"\nstopped{goes_on}", file=sys.stderr)
            return 130
    except Clip4StrError as error:
        return fail("train", said(error))


def train(args: argparse.Namespace) -> int:
    check(args)
    args.init = args.init or ("random" if args.size == "small" else "clip")
    try:
        import lightning as L
        import torch
    except ImportError as error:
        raise UsageError(f"training needs the [train] extra: pip install 'clip4str[train]' ({error})") from None
    from lightning.pytorch.plugins.environments import LightningEnvironment

    from clip4str.model import load_checkpoint
    from clip4str.training.characters import charset_of, check_rendering, is_checkpoint, network_of
    from clip4str.training.logbook import Logbook
    from clip4str.training.module import Training
    from clip4str.training.start import start_from

    _quiet()
    if args.threads:
        torch.set_num_threads(args.threads)
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    folder = Path(args.output)
    last = folder / "last.ckpt"
    if last.exists() and args.resume == "never":
        raise UsageError(f"{folder} holds a run already; choose another --output, or --resume auto to go on")

    torch.manual_seed(args.seed)
    settings = settings_from(args)
    if args.branch and not last.exists() and rank == 0:
        branch_off(Path(args.branch), folder)
    start, steps, minutes = resume_point(last) if last.exists() else (0, 0, 0.0)
    checkpoint = load_checkpoint(args.init) if start == 0 and is_checkpoint(args.init) else None
    before = network_of(last) if start else None if checkpoint is None else checkpoint.config
    charset, line = charset_of(args, before)
    config = config_from(args, charset)
    if args.render:
        check_rendering(config)
    module = Training(config, settings)
    lines = [line, module.charset.note]
    stream, held_out = build_data(args, module.charset, config.image_size, rank == 0, config.steps - 1)
    for name, count in held_out.undecodable.items() if rank == 0 else ():
        print(f"{name}: {count} of the first pictures cannot be decoded, and are not validated on", file=sys.stderr)
    if start == 0:
        lines += start_from(module, args.init, args.size, checkpoint)
    elif args.branch and steps == start:
        raise UsageError(f"{folder} holds a run that is no branch; choose another --output, or go on without --branch")
    elif (args.steps and steps >= args.steps) or (args.minutes and minutes >= args.minutes):
        print(f"{folder}: this run is complete ({steps} steps, {minutes:.1f} minutes)")
        return 0
    folder.mkdir(parents=True, exist_ok=True)
    stream.start = start * args.accumulate
    stream.rank, stream.world = rank, args.devices

    logbook = Logbook(folder, held_out, args.save_minutes, args.validate_every,
                      dtype=torch.float16 if args.half_precision_result else torch.float32)  # fmt: skip
    trainer = L.Trainer(
        accelerator=args.accelerator, devices=args.devices, strategy=strategy(args), precision=precision(args),
        max_epochs=-1, min_epochs=0, accumulate_grad_batches=args.accumulate, gradient_clip_val=20.0,
        callbacks=[logbook], logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False, default_root_dir=folder,
        plugins=[LightningEnvironment()] if args.devices > 1 else None,
    )  # fmt: skip
    if rank == 0:
        print(*filter(None, lines), sep="\n", end="\n" if any(lines) else "")
        size = sum(p.numel() for p in module.parameters()) / 1e6
        print(f"{args.size}: {size:.1f} million parameters, {describe(stream)}, {len(held_out)} held out; "
              f"{'going on at step ' + str(start) if start else 'from ' + args.init} -> {folder}")  # fmt: skip
        write_json(folder / "command.json", vars(args))
    workers = args.workers if args.workers is not None else min(8, max(1, (os.cpu_count() or 2) // 2))
    stored = torch.utils.data.DataLoader(
        stream, batch_size=None, num_workers=workers, prefetch_factor=4 if workers else None,
        pin_memory=torch.cuda.is_available(), persistent_workers=workers > 0,
        worker_init_fn=leave_stopping_to_the_parent,
    )  # fmt: skip
    loader: Any = stored
    if args.render_atlas:
        from clip4str.training.drawing.data import drawn_beside

        loader = drawn_beside(stored, stream, args.render_atlas, trainer.strategy.root_device)
    try:
        trainer.fit(module, loader, ckpt_path=str(last) if start else None, weights_only=True)
    except SystemExit:  # how Lightning answers an interrupt, after the logbook has saved
        raise KeyboardInterrupt from None
    finally:
        end_workers(stored)
    if trainer.is_global_zero and (lost := logbook.undecodable()):
        print(lost, file=sys.stderr)
    if logbook.stopped:
        if trainer.is_global_zero:
            print(f"stopped and saved at step {trainer.global_step}; the same command goes on", file=sys.stderr)
        return 128 + signal.SIGTERM
    if trainer.is_global_zero:
        held = ", ".join(f"{k} {100 * v:.1f} %" for k, v in logbook.scores.items())
        print(f"done: {trainer.global_step} steps, {logbook.words} words, {module.elapsed / 60:.1f} minutes"
              + (f"; held-out words right: {held}" if held else "") + f"; {folder / 'model.safetensors'}")  # fmt: skip
    return 0


def strategy(args: argparse.Namespace) -> Any:
    """For Lightning: DDP among several devices, whose processes outwait a pause (stop signals) of days."""
    if args.devices < 2 or args.strategy not in ("auto", "ddp"):
        return args.strategy
    from lightning.pytorch.strategies import DDPStrategy

    skips = bool(args.cross_start) or args.cross_every > 1
    return DDPStrategy(find_unused_parameters=skips, timeout=PATIENCE)


def precision(args: argparse.Namespace) -> Any:
    if args.precision != "auto":
        return args.precision
    import torch

    if args.accelerator != "cpu" and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"
    # Some processors have instructions for bfloat16 and are slower with them: measured, by the first process for all.
    return os.environ.setdefault("CLIP4STR_PRECISION", "bf16-mixed" if bfloat16_pays() else "32")


def bfloat16_pays(rounds: int = 5) -> bool:
    """Is a product of a tower's size quicker in bfloat16 than in float32 on this CPU?"""
    import torch

    quickest = []
    for dtype in (torch.bfloat16, torch.float32):
        a, b = torch.ones(4096, 192, dtype=dtype), torch.ones(192, 768, dtype=dtype)
        times = []
        for _ in range(rounds + 1):
            began = time.perf_counter()
            a @ b
            times.append(time.perf_counter() - began)
        quickest.append(min(times[1:]))
    return quickest[0] < quickest[1]


def resume_point(path: Path) -> tuple[int, int, float]:
    """Optimiser steps of the run that wrote this checkpoint; steps and minutes since it began or branched off."""

    try:
        loaded = load_state(path)
        extra, step = loaded["clip4str_training"], int(loaded["global_step"])
        first, seconds = extra.get("began", (0, 0.0))
        return step, step - first, (extra["elapsed"] - seconds) / 60
    except (DataError, LookupError, TypeError, ValueError) as error:
        spare = path.with_name("last.1.ckpt")
        instead = f"put {spare}, the state before it, in its place, or " if spare.exists() else ""
        raise DataError(
            f"{path}: damaged, or of another program ({first_line(error)}); {instead}choose another --output"
        ) from None


def branch_off(run: Path, folder: Path) -> None:
    """Make `folder` a run that goes on from the state of another. Raises DataError if that one has none."""
    import torch

    source = run / "last.ckpt"
    if not source.exists():
        raise DataError(f"--branch {run}: holds no run (no last.ckpt)")
    step, _, _ = resume_point(source)
    state = torch.load(source, map_location="cpu", weights_only=True)
    state["clip4str_training"]["began"] = (step, state["clip4str_training"]["elapsed"])
    folder.mkdir(parents=True, exist_ok=True)
    if (run / "log.csv").exists():
        shutil.copyfile(run / "log.csv", folder / "log.csv")
    with replaced(folder / "last.ckpt") as temporary:
        torch.save(state, temporary)


def describe(stream: Any) -> str:
    parts = [f"{len(words):,} words ({100 * share:.0f} %)" for words, share, _ in stream.sources]
    if stream.empty:
        parts.append(f"crops without text ({100 * stream.empty / stream.batch:.0f} %)")
    if stream.rendered:
        parts.append(f"rendered words ({100 * stream.rendered / stream.batch:.0f} %)")
    return " + ".join(parts)


def _quiet() -> None:
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"(lightning|torch)\.")


if __name__ == "__main__":
    raise SystemExit(main())
