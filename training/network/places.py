"""Where the run lives: a folder beside the project, so that work on the code does not disturb it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

HOME, WORDS, PHOTOS = "CLIP4STR_NETWORK", "CLIP4STR_WORDS", "CLIP4STR_PHOTOS"
# glibc: large buffers in huge pages. A step is an eighth shorter with AMX, where products take less time than memory.
HUGE, HUGE_PAGES = "GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"
LEAST_FREE = 2**30  # bytes: a state is written whole beside the two before it


@dataclass(frozen=True)
class Places:
    """project: the repository whose command was given. home: folder of the run. words, photos: real ones."""

    project: Path
    home: Path
    words: Path
    photos: Path

    @property
    def checkout(self) -> Path:
        return self.home / "checkout"

    @property
    def data(self) -> Path:
        """Fonts, atlas, pool."""
        return self.home / "data"

    @property
    def run(self) -> Path:
        """What training/train.py writes: state, averaged weights, log.csv."""
        return self.home / "run"

    @property
    def lock(self) -> Path:
        return self.home / "lock"

    @property
    def process(self) -> Path:
        return self.home / "process.json"

    @property
    def log(self) -> Path:
        """What happened, a line each."""
        return self.home / "network.log"

    @property
    def output(self) -> Path:
        """What training and the data's commands print, as it comes."""
        return self.home / "output.txt"

    @property
    def failed(self) -> Path:
        """There where the run ended by itself and not well: why."""
        return self.home / "failed.txt"

    def environment(self) -> dict[str, str]:
        """What a process of the checkout needs to find the same places."""
        return {HUGE: HUGE_PAGES, **os.environ, HOME: str(self.home), WORDS: str(self.words), PHOTOS: str(self.photos),
                "PYTHONPATH": str(self.checkout), "PYTHONUNBUFFERED": "1"}  # fmt: skip

    def note(self, text: str) -> None:
        """A line for the log, with date and time; none where the disk is full: that ends no run."""
        with contextlib.suppress(OSError), self.log.open("a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {text}\n")


def places(project: Path, environment: Mapping[str, str] = os.environ) -> Places:
    """Beside the project, or where the environment's variables say."""
    beside = project.parent
    defaults = {HOME: beside / "network", WORDS: beside / "shared/data/train/real",
                PHOTOS: beside / "shared/data/photos/IC15_train"}  # fmt: skip
    home, words, photos = (Path(environment.get(name) or path).absolute() for name, path in defaults.items())
    return Places(project, home, words, photos)
