"""A network that computes in milliseconds, and LMDB folders of drawn words."""

from __future__ import annotations

import io
from pathlib import Path

import lmdb
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from clip4str.model import Clip4Str, Config

TINY = Config(
    image_size=(16, 64), patch_size=(16, 4), image_width=64, image_layers=2, text_width=64, text_layers=1,
    text_positions=16, vocabulary=600, d=64, decoder_mlp=128,
)  # fmt: skip
WORDS = ["stop", "Exit", "24", "taxi"]


def tiny_network(seed: int = 0) -> Clip4Str:
    torch.manual_seed(seed)
    return Clip4Str(TINY)


def draw(word: str, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    picture = Image.new("RGB", (64, 16), tuple(int(c) for c in rng.integers(150, 255, 3)))
    ImageDraw.Draw(picture).text((3, 2), word, fill=(20, 20, 20), font=ImageFont.load_default())
    return picture


def write_lmdb(folder: Path, words: list[str], first: int = 0) -> Path:
    folder.mkdir(parents=True)
    with lmdb.open(str(folder), map_size=2**24) as environment, environment.begin(write=True) as txn:
        for i, word in enumerate(words, start=1):
            buffer = io.BytesIO()
            draw(word, first + i).save(buffer, "PNG")
            txn.put(b"image-%09d" % i, buffer.getvalue())
            txn.put(b"label-%09d" % i, word.encode())
        txn.put(b"num-samples", str(len(words)).encode())
    return folder


def train(words: Path, output: Path, *extra: str) -> int:
    """The command's exit code."""
    from clip4str.training.train import main

    return main(["--data", str(words), "--output", str(output), "--batch", "4", "--workers", "0", "--threads", "1",
                 "--precision", "32", "--accelerator", "cpu", "--seed", "1", *extra])  # fmt: skip
