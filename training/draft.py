"""Adds a draft head to a frozen checkpoint, from word crops without labels.

The head (model/draft.py) learns to say what the network's own visual branch reads, so any crops do; a word it gets
right needs one pass of the visual decoder to be confirmed, and no word becomes another one. The frozen tower sees every
crop once, its tokens are kept in memory, and all that is learned is one linear layer: minutes on a CPU.

Examples:
  python training/train.py --draft-head my.ckpt --data crops/ --output my-drafting.safetensors
  python training/train.py --draft-head my.ckpt --data words/train/real photos/ --crops 5000 \\
      --output my-drafting.safetensors
"""

from __future__ import annotations

import argparse
import hashlib
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from clip4str.core.batches import batches
from clip4str.core.console import Parser
from clip4str.core.driver import PredictAndRefine
from clip4str.core.errors import DataError, ImageError, UsageError
from clip4str.core.masks import Rule
from clip4str.core.reading import Decoding, Pass, Reading, Stages
from clip4str.data.word_lmdb import LmdbWords
from clip4str.model.checkpoint import load_checkpoint, save_checkpoint
from clip4str.model.clip4str import Clip4Str
from clip4str.model.draft import DraftHead, frames_per_column
from clip4str.runtime.images import load_image, prepare
from clip4str.runtime.read_command import IMAGE_SUFFIXES

FLAG = "--draft-head"
HELD_OUT = 0.1  # share of the crops that nothing is learned from
TIMED = 300  # words held out on which passes are counted, one by one
BATCH = 16  # crops that the tower sees at a time

Content = Callable[[], bytes]


class Learned(NamedTuple):
    """What the tower saw: memory (n, M, d) float16; ids (n, T) of the words that the visual branch read; held: the rows
    that are for checking."""

    memory: Tensor
    ids: np.ndarray
    held: np.ndarray


def parser() -> Parser:
    p = Parser(prog="clip4str train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = p.add_argument
    add(FLAG, required=True, metavar="CHECKPOINT", help="the network that gets one; one that it has is replaced")
    add("--data", nargs="+", required=True, metavar="DIR", help="word crops: folders of pictures, or LMDBs, any depth")
    add("--output", required=True, type=Path, metavar="FILE", help="checkpoint to write, .safetensors")
    add("--crops", type=int, default=10_000, metavar="N", help="most crops to look at (default 10000)")
    add("--memory", type=int, default=2048, metavar="MIB", help="for the tokens of all crops (default 2048)")
    add("--steps", type=int, default=1500, help="optimiser steps (default 1500)")
    add("--batch", type=int, default=256, help="words per step (default 256)")
    add("--lr", type=float, default=3e-3, help="peak learning rate (default 3e-3)")
    add("--threads", type=int, default=0, help="CPU threads (default: torch's choice)")
    add("--accelerator", default="auto", choices=("auto", "cpu", "gpu"))
    add("--seed", type=int, default=0)
    add("--clip-mean", action="store_true", help="normalise with CLIP's mean and deviation instead of one half")
    add("--half-precision-result", action="store_true", help="write float16")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """The command. 0: written; 130: interrupted. Raises what Clip4StrErrors there are."""
    args = parser().parse_args(argv)
    _check(args)
    try:
        return _run(args)
    except KeyboardInterrupt:
        print("\ninterrupted, nothing was written", file=sys.stderr)
        return 130


def _run(args: argparse.Namespace) -> int:
    if args.threads:
        torch.set_num_threads(args.threads)
    on_gpu = args.accelerator != "cpu" and torch.cuda.is_available()
    if args.accelerator == "gpu" and not on_gpu:
        raise UsageError("--accelerator gpu: torch finds none here")
    began = time.perf_counter()
    model = load_checkpoint(args.draft_head).to("cuda" if on_gpu else "cpu")
    torch.manual_seed(args.seed)
    head = DraftHead(replace(model.config, draft_frames=frames_per_column(model.config.grid, model.config.steps)))
    most = (args.memory << 20) // (2 * model.config.memory_tokens * model.config.d)
    contents = find_crops(args.data, min(args.crops, most))
    learned = look(model, contents, "clip" if args.clip_mean else "half")
    held, count = int(learned.held.sum()), len(learned.held)
    print(f"{count} crops, {held} held out; the tower has seen them after {time.perf_counter() - began:.0f} s")
    fit(head.to(model.clip_model.logit_scale.device), learned, args.steps, args.batch, args.lr, args.seed)
    print(report(model, head, learned))
    args.output.parent.mkdir(parents=True, exist_ok=True)
    dtype = torch.float16 if args.half_precision_result else torch.float32
    save_checkpoint(with_head(model, head), args.output, dtype)
    print(f"{args.output}: after {time.perf_counter() - began:.0f} s")
    return 0


def _check(args: argparse.Namespace) -> None:
    for name in ("crops", "memory", "steps", "batch"):
        if getattr(args, name) < 1:
            raise UsageError(f"--{name} is at least 1, not {getattr(args, name)}")
    if not 0 < args.lr < math.inf:
        raise UsageError(f"--lr is above 0, not {args.lr:g}")
    if args.output.suffix != ".safetensors":
        raise UsageError(f"--output: a checkpoint to write ends in .safetensors, not {args.output.name!r}")
    if args.output.exists():
        raise UsageError(f"{args.output}: exists; choose another --output")


def find_crops(folders: Sequence[str], most: int) -> list[Content]:
    """What reads each crop's encoded bytes, at most `most`, evenly out of all folders. Raises DataError."""
    sets: list[tuple[Callable[[int], bytes], int]] = []  # what reads a crop by its number, and how many there are
    for folder in folders:
        before = sum(count for _, count in sets)
        if not Path(folder).is_dir():
            raise DataError(f"{folder}: {'is not a folder' if Path(folder).exists() else 'does not exist'}")
        for place, inner, files in os.walk(folder):
            inner[:] = sorted(name for name in inner if not name.startswith("."))
            if "data.mdb" in files:
                words = LmdbWords(place)
                sets.append((partial(_stored, words), len(words)))
            pictures = [Path(place, name) for name in sorted(files) if Path(name).suffix.lower() in IMAGE_SUFFIXES]
            sets.append((partial(_in_file, pictures), len(pictures)))
        if sum(count for _, count in sets) == before:
            raise DataError(f"{folder}: neither pictures nor LMDB data sets (folders with a data.mdb) in it or below")
    ends = np.cumsum([0, *(count for _, count in sets)])
    chosen = np.linspace(0, ends[-1] - 1, min(ends[-1], max(1, most))).round().astype(int)
    numbers = np.searchsorted(ends, chosen, "right") - 1
    return [partial(sets[number][0], int(crop - ends[number])) for crop, number in zip(chosen, numbers)]


def _stored(words: LmdbWords, number: int) -> bytes:
    return words.image(number + 1)


def _in_file(pictures: Sequence[Path], number: int) -> bytes:
    return pictures[number].read_bytes()


@torch.inference_mode()
def look(model: Clip4Str, contents: Sequence[Content], normalization: str) -> Learned:
    """Every crop through the tower and the visual branch once. What is no picture is left out. Raises DataError."""
    c, device, ids, held = model.config, model.clip_model.logit_scale.device, [], list[bool]()
    memory = torch.empty(len(contents), c.memory_tokens, c.d, dtype=torch.float16)
    with tqdm(total=len(contents), desc="looking at crops", unit="crop", leave=False, disable=None) as bar:
        for batch in batches(contents, BATCH):
            pictures = []
            for content in batch:
                encoded = content()
                try:
                    pictures.append(load_image(encoded))
                except ImageError:  # most data sets hold a few
                    continue
                # By its bytes, so that copies of a picture are on one side.
                held.append(hashlib.sha256(encoded).digest()[0] < 256 * HELD_OUT)
            bar.update(len(batch))
            if not pictures:
                continue
            pixels = torch.from_numpy(prepare(pictures, c.image_size, normalization)).to(device)
            seen = model.clip_model.visual(pixels).half()
            memory[len(held) - len(pictures) : len(held)] = seen
            ids.append(read_visual(model, seen).ids)
    away = np.array(held, bool)
    if not away.any() or away.all():
        raise DataError(f"{len(away)} crops are too few: some are learned from, a tenth is held out")
    return Learned(memory[: len(away)], np.concatenate(ids), away)


class _Visual(Stages):
    """The network over memory that is there, with a draft where there is a head."""

    flexible_steps = True

    def __init__(self, model: Clip4Str, head: DraftHead | None) -> None:
        self.model, self.decoder, self.head = model, model.visual_decoder, head

    def image(self, memory: Tensor) -> tuple[Any, ...]:
        kv = self.decoder.project_memory(memory)
        return (kv, None) if self.head is None else (kv, None, self.head(memory).argmax(dim=-1).cpu().numpy())

    def visual(self, tokens: np.ndarray, rule: Rule, visual_kv: Tensor) -> Pass:
        return self.model.visual(tokens, rule, visual_kv)

    def text(self, bpe: np.ndarray) -> Any:
        return self.model.text(bpe)

    def cross(self, tokens: np.ndarray, rule: Rule, cross_kv: Any, text_kv: Any) -> Pass:
        return self.model.cross(tokens, rule, cross_kv, text_kv)

    def stack(self, rows: Sequence[Any]) -> Any:
        return self.model.stack(rows)


@torch.inference_mode()
def read_visual(model: Clip4Str, memory: Tensor, head: DraftHead | None = None) -> Reading:
    """The visual branch's words, unrefined, from memory (n, M, d)."""
    how = Decoding(refine=0, branch="visual")
    driver = PredictAndRefine(model.charset, model.tokenizer, model.config.steps, how)
    return driver(_Visual(model, head), memory.float())


def fit(head: DraftHead, learned: Learned, steps: int, batch: int, lr: float, seed: int = 0) -> None:
    """AdamW on the head alone, its rate warmed up for 50 steps and let down along a cosine."""
    from .module import ctc_loss

    device, rows = head.weight.device, np.flatnonzero(~learned.held)
    ids = torch.from_numpy(learned.ids.astype(np.int64))
    tokens = torch.cat((torch.zeros_like(ids[:, :1]), ids), dim=1)  # the start token is not looked at
    optimizer = torch.optim.AdamW(head.parameters(), lr=lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / 50) * (1 + math.cos(math.pi * step / steps)) / 2
    )
    rng = np.random.default_rng(seed)
    for _ in tqdm(range(steps), desc="learning", unit="step", leave=False, disable=None):
        chosen = torch.from_numpy(rng.choice(rows, min(batch, len(rows)), replace=False))
        memory = learned.memory[chosen].to(device).float()
        loss = ctc_loss(head(memory), tokens[chosen].to(device), pad=-1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    if not all(torch.isfinite(p).all() for p in head.parameters()):
        raise UsageError("the head's weights are no numbers any more; try a lower --lr")
    head.requires_grad_(False)


def report(model: Clip4Str, head: DraftHead, learned: Learned) -> str:
    """On what was held out: drafts that are the word, passes a word one by one, and that no word has changed."""
    rows = np.flatnonzero(learned.held)[:TIMED]
    right, passes, changed = 0, [0, 0], 0
    for row in rows:
        memory = learned.memory[row : row + 1].to(head.weight.device)
        before, after = (read_visual(model, memory, h) for h in (None, head))
        passes = [total + reading.stats.visual_passes for total, reading in zip(passes, (before, after))]
        right += after.stats.visual_passes == 1
        changed += not np.array_equal(before.ids, after.ids)
    return (
        f"of {len(rows)} words held out {100 * right / len(rows):.1f} % are drafted rightly; visual passes a word "
        f"{passes[0] / len(rows):.2f} before, {passes[1] / len(rows):.2f} now; words changed: {changed}"
    )


def with_head(model: Clip4Str, head: DraftHead) -> Clip4Str:
    """The same network, its tensors shared, with this head."""
    frames = head.weight.shape[0] // head.classes
    with torch.device("meta"):
        network = Clip4Str(replace(model.config, draft_frames=frames, charset_test=model.charset.test), model.decoding)
    state = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("draft_head.")}
    state |= {f"draft_head.{name}": tensor for name, tensor in head.state_dict().items()}
    network.load_state_dict(state, assign=True)
    return network.eval().requires_grad_(False)
