"""The public ways in for strangers' files, with what each file may take: memory beyond what was there, and seconds of a
processor (a slow one of 2020, nothing else running; a test on a busy machine loses nothing by it)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

MB = 1 << 20
SAMPLE = Path(__file__).parents[2] / "export" / "sample_crops" / "13-43.jpg"


@dataclass(frozen=True)
class Door:
    """open(path): raises a Clip4StrError, or returns. warm_up: loads what a first call would, before memory is
    measured."""

    open: Callable[[Path], Any]
    warm_up: Callable[[], Any]
    memory: int
    seconds: float


@cache
def _recognizer() -> Any:
    from clip4str.runtime import Recognizer

    return Recognizer.load(threads=1, backend="onnxruntime")


def read_picture(path: Path) -> str:
    [word] = _recognizer().read([path])
    assert all(map(math.isfinite, (word.confidence, *word.char_confidences))), word
    return word.text


def open_checkpoint(path: Path) -> str:
    """Load, and be sure that all weights can be computed with."""
    import torch

    from clip4str.model import load_checkpoint

    model = load_checkpoint(path)
    assert all(torch.isfinite(v).all() for v in model.state_dict().values()), "weights that are no numbers"
    return f"{sum(p.numel() for p in model.parameters())} parameters"


def open_bundle(path: Path) -> str:
    """What `clip4str info` and a Recognizer do."""
    from clip4str.runtime import Recognizer, info_command

    info_command.main([str(path)])
    with Recognizer.load(path, backend="onnxruntime", threads=1) as recognizer:
        [word] = recognizer.read([SAMPLE])
    assert math.isfinite(word.confidence), word
    return word.text


def read_lmdb(path: Path) -> str:
    from clip4str.data.word_lmdb import LmdbWords

    with LmdbWords(path) as words:
        for number in range(1, min(len(words), 100) + 1):
            words.image(number), words.label(number, errors="replace")
        return f"{len(words)} words"


def open_atlas(path: Path) -> str:
    """Load, and look at every tile."""
    from clip4str.training.drawing.atlas import SPACE, load_atlas

    atlas = load_atlas(path)
    for face in range(min(len(atlas), 8)):
        for glyph in range(SPACE):
            atlas.tile(face, glyph)
    return f"{len(atlas)} faces"


def _import(*names: str) -> Callable[[], None]:
    import importlib

    return lambda: [importlib.import_module(name) for name in names] and None


DOORS = {
    "pictures": Door(read_picture, lambda: read_picture(SAMPLE), 1024 * MB, 5),
    "checkpoints": Door(open_checkpoint, _import("clip4str.model", "safetensors.torch"), 256 * MB, 5),
    "bundles": Door(open_bundle, lambda: read_picture(SAMPLE), 512 * MB, 5),
    "lmdbs": Door(read_lmdb, _import("lmdb", "clip4str.data.word_lmdb"), 128 * MB, 2),
    "atlases": Door(open_atlas, _import("safetensors.numpy", "clip4str.training.drawing.atlas"), 1024 * MB, 5),
}
