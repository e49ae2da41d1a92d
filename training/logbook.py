"""What a run writes down: progress bar, CSV, chart, checkpoints that a kill cannot damage."""

from __future__ import annotations

import csv
import os
import signal
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from clip4str.core.atomic_files import flush, replaced
from clip4str.core.errors import DataError, first_line
from clip4str.core.reading import Decoding
from clip4str.model import Clip4Str, save_checkpoint

from .augment import resize
from .data import Words
from .module import Training, word_accuracy
from .run_log import chart, drop_rows_after

COLUMNS = ("step", "words", "minutes", "lr", "loss", "visual", "cross", "ctc", "accuracy", "words_per_second",
           "validation_visual", "validation_cross")  # fmt: skip
TEXTLESS = "textless"
LOG_SECONDS = 30.0  # between rows where steps are slow
SHOWN = 5  # pictures that could not be decoded


class HeldOut:
    """Words kept for validation, as pixels: sets by name, the first `most` words of each.

    textless: crops on which nothing is to be read. names: of the sets, where there is more than one, and "textless",
    where there are such crops: `accuracy` has a figure for each. undecodable: pictures left out, by set.
    Raises DataError for a set none of whose pictures can be decoded.
    """

    def __init__(self, sets: Mapping[str, Words], size: tuple[int, int], most: int,
                 textless: Sequence[Image.Image] = ()) -> None:  # fmt: skip
        self.labels: list[str] = []
        self.names = (*(sets if len(sets) > 1 else ()), *((TEXTLESS,) if textless else ()))
        self._parts: dict[str, slice] = {}
        self.undecodable: dict[str, int] = {}
        pixels = [np.zeros((0, *size, 3), np.uint8)]
        for name, words in sets.items():
            pictures = [(words.picture(i), words.labels[i]) for i in range(min(most, len(words)))]
            words.close()
            kept = [(resize(picture, size), label) for picture, label in pictures if picture is not None]
            if len(kept) < len(pictures):
                self.undecodable[name] = len(pictures) - len(kept)
            if pictures and not kept:
                raise DataError(f"validation set {name}: none of its {len(pictures):,} pictures can be decoded")
            self._parts[name] = slice(len(self.labels), len(self.labels) + len(kept))
            self.labels += [label for _, label in kept]
            pixels += [picture[None] for picture, _ in kept]
        pixels += [resize(picture, size)[None] for picture in textless]
        self.pixels = torch.from_numpy(np.concatenate(pixels))

    def __len__(self) -> int:
        return len(self.labels)

    def accuracy(self, model: Training) -> dict[str, float]:
        """Word accuracy with the averaged weights, read as a user would: "visual" and, once it runs, "cross" are those
        of both branches over all words; then that of each set in `names`, by the last branch that runs; and the share
        of textless crops on which it reads no letter and no digit."""
        before, scores = model.decoding, {}
        read: list[str] = []
        with model.averaged():
            for branch in ("visual", "cross"):
                if branch == "visual" or model.cross_running:
                    model.decoding = Decoding(branch=branch)
                    read = model.read_words(self.pixels)
                    scores[branch] = word_accuracy(read, self.labels, model)
        model.decoding = before
        for name, part in self._parts.items():
            if name in self.names:
                scores[name] = word_accuracy(read[part], self.labels[part], model)
        if TEXTLESS in self.names:
            unread = [not word for word in read[len(self.labels) :]]
            scores[TEXTLESS] = sum(unread) / len(unread)
        return scores


class Logbook(L.Callback):
    """Measures, shows and saves. folder: of the run. held_out: words to validate on, maybe none.

    save_minutes: time between checkpoints. validate_every, log_every: steps between validations and CSV rows.
    """

    def __init__(self, folder: Path, held_out: HeldOut, save_minutes: float = 3.0, validate_every: int = 500,
                 log_every: int = 50, dtype: torch.dtype = torch.float32) -> None:  # fmt: skip
        self.folder, self.held_out, self.dtype = folder, held_out, dtype
        self.save_seconds, self.validate_every, self.log_every = 60 * save_minutes, validate_every, log_every
        self.columns = (*COLUMNS, *(f"validation_{name}" for name in held_out.names))
        self.scores: dict[str, float] = {}
        self.words = 0
        self.stopped = False
        self._stop_asked = False
        self._undecodable: dict[str, None] = {}
        self._sums: dict[str, list[Tensor]] = defaultdict(list)

    def state_dict(self) -> dict[str, Any]:
        return {"words": self.words, "scores": self.scores}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.words, self.scores = state["words"], state["scores"]

    def on_train_start(self, trainer: L.Trainer, module: Training) -> None:  # type: ignore[override]
        self._saved = self._logged = time.monotonic()
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._ask_to_stop)  # Lightning's own can hang between processes
        self._words_logged, self._last_step = self.words, trainer.global_step
        dropped = drop_rows_after(self.folder / "log.csv", trainer.global_step, self.columns)
        if dropped:
            print(f"{self.folder / 'log.csv'}: {dropped} damaged rows dropped", file=sys.stderr)
        self._bar = tqdm(
            total=100, initial=round(100 * module.progress(), 1), disable=not trainer.is_global_zero,
            bar_format="{percentage:5.1f}%|{bar}| {elapsed} {postfix}",
        )  # fmt: skip

    def _ask_to_stop(self, *_: object) -> None:
        self._stop_asked = True

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: L.Trainer, module: Training, outputs: dict[str, Tensor], batch: Any, number: int
    ) -> None:
        self.words += len(batch.pixels) * trainer.world_size
        self._undecodable.update(dict.fromkeys(batch.undecodable))
        if trainer.is_global_zero:
            for name, value in outputs.items():
                self._sums[name].append(value.detach())
        step = trainer.global_step
        if step == self._last_step:  # gradients are still being collected; the last step's state is whole
            if self._stop_asked and trainer.world_size == 1:
                trainer.should_stop = self.stopped = True
            return
        self._last_step = step
        # The first process decides for all.
        now = time.monotonic() - self._saved > self.save_seconds
        stop, save = trainer.strategy.broadcast((self._stop_asked, now))
        self.stopped = bool(stop)
        trainer.should_stop = last = bool(trainer.should_stop or stop)
        due = step % self.validate_every == 0 or (last and not stop)  # who is told to stop has no minutes left
        validate = due and trainer.is_global_zero and len(self.held_out) > 0
        if validate:
            self.scores = self.held_out.accuracy(module)
        slow = time.monotonic() - self._logged > LOG_SECONDS
        if (step == 1 or step % self.log_every == 0 or slow or validate or last) and trainer.is_global_zero:
            self._log(trainer, module, validate)
        if save and not last:
            self.save(trainer, module)

    def on_train_end(self, trainer: L.Trainer, module: Training) -> None:  # type: ignore[override]
        self.save(trainer, module)
        self._bar.close()

    def on_exception(self, trainer: L.Trainer, module: Training, exception: BaseException) -> None:  # type: ignore[override]
        started = hasattr(self, "_bar")
        # SystemExit: Lightning's for a SIGTERM that came before on_train_start
        if started and isinstance(exception, (KeyboardInterrupt, SystemExit)) and trainer.world_size == 1:
            self.save(trainer, module)
        if started:
            self._bar.close()

    def undecodable(self) -> str:
        """What is to be said of pictures that could not be decoded, or nothing."""
        if not self._undecodable:
            return ""
        shown = ", ".join(list(self._undecodable)[:SHOWN]) + (", ..." if len(self._undecodable) > SHOWN else "")
        return f"{len(self._undecodable)} pictures could not be decoded and gave way to others: {shown}"

    def _log(self, trainer: L.Trainer, module: Training, validated: bool) -> None:
        now = time.monotonic()
        row: dict[str, Any] = {name: torch.stack(values).float().mean().item() for name, values in self._sums.items()}
        self._sums.clear()
        speed = (self.words - self._words_logged) / max(1e-9, now - self._logged)
        self._logged, self._words_logged = now, self.words
        row |= {"step": trainer.global_step, "words": self.words, "minutes": module.elapsed / 60,
                "lr": trainer.optimizers[0].param_groups[0]["lr"], "words_per_second": speed}  # fmt: skip
        if validated:
            row |= {f"validation_{k}": v for k, v in self.scores.items()}
        path = self.folder / "log.csv"
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, self.columns)
            if file.tell() == 0:
                writer.writeheader()
            writer.writerow({k: f"{v:.5g}" if isinstance(v, float) else v for k, v in row.items()})
        self._bar.n = round(100 * module.progress(), 1)
        held = " ".join(f"{k} {100 * v:.1f}%" for k, v in self.scores.items()) or "-"
        self._bar.set_postfix_str(f"step {row['step']} {speed:.0f} words/s loss {row['loss']:.3f} held out: {held}")

    def save(self, trainer: L.Trainer, module: Training) -> None:
        """last.ckpt to go on from, model.safetensors to use, the chart to look at; each replaced in one move.

        last.1.ckpt is the state before, should a disk spoil the last one.
        """
        last, log = self.folder / "last.ckpt", self.folder / "log.csv"
        if trainer.is_global_zero:
            with _saying_what_cannot_be_written(self.folder):
                with replaced(last) as temporary:
                    trainer.save_checkpoint(temporary)
                    if last.exists():
                        with replaced(last.with_name("last.1.ckpt"), durable=False) as spare:
                            os.link(last, spare)
                with module.averaged():
                    save_network(module, self.folder / "model.safetensors", self.dtype)
                if log.exists():
                    flush(log)
            chart(log, self.folder / "log.png")
        else:
            trainer.save_checkpoint(last)  # the others only take part
        self._saved = time.monotonic()


@contextmanager
def _saying_what_cannot_be_written(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError) as error:  # torch's for a full disk is a RuntimeError
        raise DataError(f"{folder}: the run cannot be saved ({first_line(error)})") from None


def save_network(module: Training, path: Path, dtype: torch.dtype) -> None:
    """The network alone, as safetensors that load_checkpoint reads."""
    with torch.device("meta"):
        network = Clip4Str(replace(module.config))
    network.load_state_dict(module.network_state(), assign=True)
    save_checkpoint(network, path, dtype)
