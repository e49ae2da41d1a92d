#!/usr/bin/env python3
"""Trains the splitter and writes it as ONNX: twenty minutes on two cores.

    python training/spaces/train.py --atlas atlas.safetensors --words words.txt --output video/detect/words.onnx

Lines are drawn; --crops DIR adds real words (LMDB folders) as lines of a single word, whose letters must not be cut.
"""

from __future__ import annotations

import math
import random
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from clip4str.core.atomic_files import replaced
from clip4str.core.console import Parser, run_script
from clip4str.core.errors import Clip4StrError
from clip4str.data.word_lmdb import LmdbWords
from clip4str.runtime.images import load_image
from clip4str.training.drawing.atlas import load_atlas
from clip4str.training.spaces.lines import HEIGHT, STRIDE, WIDEST, Lines, blurred, centred
from clip4str.training.spaces.network import Exported, Splitter
from clip4str.training.words import read_words

RATE = 3e-3


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="training/spaces/train.py", description="Train the splitter of lines into words.")
    parser.add_argument("--atlas", type=Path, required=True, help="glyphs, see training/build_atlas.py")
    parser.add_argument("--words", type=Path, required=True, help="a word a line, the most frequent first")
    parser.add_argument("--crops", type=Path, nargs="*", default=[], help="LMDB folders of real words")
    parser.add_argument("--output", type=Path, required=True, help="the ONNX file")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    torch.manual_seed(args.seed)
    lines = Lines(load_atlas(args.atlas), read_words(args.words), args.seed)
    crops = Crops(args.crops, args.seed) if args.crops else None
    splitter = Splitter()
    train(splitter, lines, crops, args.minutes, args.batch)
    export(splitter.eval(), args.output)
    return 0


class Crops:
    """Lines out of real words, (pictures, word, known) as Lines.batch gives them: some a single word, for letters
    must not be cut; most of them neighbours in their set, of one photo if it comes well, laid side by side, for else
    whatever looks real would be one word. Nobody knows where within its margins a word begins and ends."""

    def __init__(self, folders: Sequence[Path], seed: int) -> None:
        self.sets = [LmdbWords(folder) for folder in folders]
        self.random = random.Random(seed)
        self.noise = np.random.default_rng(seed)

    def batch(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        lines = [self._line() for _ in range(count)]
        most = max(picture.shape[1] for picture, _, _ in lines)
        out = torch.zeros(count, 3, HEIGHT, most)
        word, known = torch.zeros(count, most // STRIDE), torch.zeros(count, most // STRIDE)
        for i, (picture, inside, sure) in enumerate(lines):
            columns = picture.shape[1] // STRIDE
            out[i, :, :, : picture.shape[1]] = centred(
                blurred(torch.from_numpy(picture).permute(2, 0, 1) / 255, self.random)
            )
            word[i, :columns] = torch.from_numpy(inside.reshape(columns, STRIDE).mean(1))
            known[i, :columns] = torch.from_numpy(sure.reshape(columns, STRIDE).min(1))
        return out, word, known

    def _line(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """float32: a picture (32, W, 3), its columns that belong to words (W,), and those of which that is known
        (W,)."""
        parts: list[np.ndarray] = []
        inside: list[np.ndarray] = []
        sure: list[np.ndarray] = []
        for word in self._words(self.random.choice((1, 2, 2, 3, 3, 4))):
            if parts:
                gap = self._gap(parts[-1], word)
                parts.append(gap)
                inside.append(np.zeros(gap.shape[1], np.float32))
                sure.append(np.ones(gap.shape[1], np.float32))
            edge = word.shape[1] // 8
            parts.append(word)
            inside.append(np.ones(word.shape[1], np.float32))
            sure.append(np.pad(np.ones(word.shape[1] - 2 * edge, np.float32), edge))
        wide = min(sum(part.shape[1] for part in parts), WIDEST) // STRIDE * STRIDE
        line, word, known = np.concatenate(parts, 1), np.concatenate(inside), np.concatenate(sure)
        return line[:, :wide], word[:wide], known[:wide]

    def _gap(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Room between two words, as wide as a space: from the one's edge to the other's, with their noise."""
        wide = max(3, round(HEIGHT * self.random.uniform(0.15, 0.6)))
        begin, end = np.median(left[:, -3:], 1), np.median(right[:, :3], 1)
        share = np.linspace(0, 1, wide, dtype=np.float32)[None, :, None]
        filled = begin[:, None] * (1 - share) + end[:, None] * share
        rough = min(float(np.diff(part, axis=0).std()) for part in (left[:, -3:], right[:, :3])) / 2
        return (filled + self.noise.normal(0, rough + 1, filled.shape)).clip(0, 255).astype(np.float32)

    def _words(self, count: int) -> list[np.ndarray]:
        """Neighbours of a set, float32 (32, W, 3)."""
        while True:
            words = self.random.choice(self.sets)
            first = self.random.randint(1, max(1, len(words) - count + 1))
            found = [self._one(words, number) for number in range(first, min(first + count, len(words) + 1))]
            kept: list[np.ndarray] = []
            for picture in found:
                if picture is not None and (not kept or _alike(kept[-1], picture)):
                    kept.append(picture)
            if kept:
                return kept

    def _one(self, words: LmdbWords, number: int) -> np.ndarray | None:
        try:
            label, image = words.label(number), load_image(words.image(number))
        except Clip4StrError:
            return None
        if " " in label.strip() or image.height > 1.2 * image.width:
            return None
        wide = round(HEIGHT * image.width / image.height * self.random.uniform(0.8, 1.25))
        return np.array(image.resize((min(max(wide, 12), WIDEST), HEIGHT)), np.float32)


def _alike(left: np.ndarray, right: np.ndarray) -> bool:
    """May two words stand on one ground?"""
    return float(np.abs(np.median(left[:, -3:], (0, 1)) - np.median(right[:, :3], (0, 1))).mean()) < 40


def train(splitter: Splitter, lines: Lines, crops: Crops | None, minutes: float, batch: int) -> None:
    optimizer = torch.optim.AdamW(splitter.parameters(), RATE, weight_decay=1e-2)
    began, step, shown = time.monotonic(), 0, -math.inf
    recent: deque[tuple[float, float]] = deque(maxlen=50)
    while (done := (time.monotonic() - began) / (60 * minutes)) < 1:
        rate = RATE * min(1.0, (step + 1) / 100, 2.5 * (1 - done) + 0.01)
        optimizer.param_groups[0]["lr"] = rate
        drawn = loss(splitter, lines.batch(batch))
        real = loss(splitter, crops.batch(batch // 2)) if crops else torch.zeros(())
        optimizer.zero_grad()
        (drawn + 0.5 * real).backward()
        torch.nn.utils.clip_grad_norm_(splitter.parameters(), 1.0)
        optimizer.step()
        step += 1
        recent.append((drawn.item(), real.item()))
        if time.monotonic() - shown > 20:
            means = np.mean(recent, axis=0)
            print(f"{100 * done:3.0f} %, step {step}: loss {means[0]:.4f} drawn, {means[1]:.4f} real", flush=True)
            shown = time.monotonic()


def loss(splitter: Splitter, examples: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Binary cross entropy over the columns that are known; gaps are rare and count threefold."""
    pictures, word, known = examples
    weight = known * (1 + 2 * (1 - word))
    each = F.binary_cross_entropy_with_logits(splitter(pictures), word, reduction="none")
    return (each * weight).sum() / weight.sum().clamp_min(1)


def export(splitter: Splitter, path: Path) -> None:
    example = torch.rand(2, 3, HEIGHT, 128)
    with replaced(path) as partial:
        torch.onnx.export(
            Exported(splitter), (example,), partial, input_names=["lines"], output_names=["word"], dynamo=False,
            opset_version=17, dynamic_axes={"lines": {0: "count", 3: "width"}, "word": {0: "count", 1: "columns"}},
        )  # fmt: skip


if __name__ == "__main__":
    sys.exit(run_script("training/spaces/train.py", main))
