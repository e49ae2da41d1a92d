"""What a run can go on from: its last state, the one before it, averaged weights, the bundled network."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from clip4str.core.errors import CheckpointError, DataError, first_line
from clip4str.core.output_files import write_json, write_whole
from clip4str.core.safetensors_metadata import read_metadata
from clip4str.training.run_log import read_rows
from clip4str.training.state_file import load_state

from .places import Places

LAST, SPARE = "last.ckpt", "last.1.ckpt"
AVERAGED, INIT, START = "model.safetensors", "start.safetensors", "start.json"
WORDS_SEEN = "words_seen"  # in the metadata of weights that are handed over


@dataclass(frozen=True)
class State:
    """step: optimiser steps. words: seen by this run."""

    step: int
    words: int
    minutes: float


@dataclass(frozen=True)
class Start:
    """What a run began with. source: in words. words: seen by those weights before."""

    source: str
    words: int


def read_state(path: Path) -> State:
    """Raises DataError for a file that is damaged, incomplete or of another program. Nothing in it is executed."""
    try:
        loaded = load_state(path)
        words = [c["words"] for c in loaded["callbacks"].values() if isinstance(c, dict) and "words" in c]
        return State(int(loaded["global_step"]), int(words[0]), loaded["clip4str_training"]["elapsed"] / 60)
    except (DataError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path.name} cannot be gone on from ({first_line(error, 200)})") from None


def read_start(run: Path) -> Start:
    """What the run in this folder began with; nothing where it does not say."""
    try:
        start = Start(**json.loads((run / START).read_text(encoding="utf-8")))
        return Start(str(start.source), int(start.words))
    except (OSError, ValueError, TypeError, OverflowError, RecursionError):
        return Start("", 0)


def begin(places: Places, words_before: int) -> tuple[str, ...]:
    """Make the folder of the run ready to be gone on with, from the newest there is; says what that is, line by line.

    words_before: seen by the bundled weights where their file does not say. Raises DataError if there is nothing.
    """
    run, fresh = places.run, places.run.with_name(".run.part")
    if not run.exists() and (fresh / START).exists():  # killed between two renames
        fresh.rename(run)
    run.mkdir(parents=True, exist_ok=True)
    state, said = _newest_state(run)
    source, before = read_start(run).source, read_start(run).words
    bundled = max(bundled_weights(places.checkout, words_before), default=(-1, places.checkout))
    if state and before + state.words >= bundled[0]:
        return (*said, f"goes on from step {state.step:,}, {state.words:,} words ({before + state.words:,} in all)")
    if state:
        name = bundled[1].parent.name
        said.append(f"{name} has seen more words ({bundled[0]:,}) than the state ({before + state.words:,})")
    words, weights = bundled if state else max([bundled, *_other_weights(run, said)])
    if words < 0:
        raise DataError(f"{places.checkout}: no weights in model/bundled, and no state in {run}: nothing to start from")
    if weights == run / INIT:  # it was stopped before its first state
        return (*said, f"starts from {source}, {words:,} words seen before")
    return (*said, _anew(places, weights, words))


def words_seen(weights: Path) -> int | None:
    """None where the file does not say. Raises CheckpointError for a cut or damaged file."""
    said = read_metadata(weights).get(WORDS_SEEN, "")
    return int(said) if said.isdecimal() and len(said) < 16 else None


def averaged_words(folder: Path, before: int) -> int:
    """Seen by the averaged weights in this folder of the run, or of a branch of it. before: by those that the run began
    with. Raises CheckpointError for a damaged file."""
    said = words_seen(folder / AVERAGED)
    logged = read_rows(folder / "log.csv")
    return said if said is not None else before + int(logged[-1]["words"] if logged else 0)


def _other_weights(run: Path, said: list[str]) -> list[tuple[int, Path]]:
    """(words seen, file) of what a run without a state has: averaged weights, those that it began with."""
    found = []
    before = read_start(run).words
    for name in (AVERAGED, INIT):
        try:
            if (run / name).exists():
                read_metadata(run / name)
                found.append((averaged_words(run, before) if name == AVERAGED else before, run / name))
        except CheckpointError as error:
            said.append(str(error))
    return found


def bundled_weights(checkout: Path, words_before: int) -> list[tuple[int, Path]]:
    """(words seen, file) of what the checkout ships."""
    found = []
    for path in sorted((checkout / "model" / "bundled").glob("*/*.safetensors")):
        with contextlib.suppress(CheckpointError):
            words = words_seen(path)
            found.append((words_before if words is None else words, path))
    return found


def _newest_state(run: Path) -> tuple[State | None, list[str]]:
    said = []
    for name in (LAST, SPARE):
        path = run / name
        if not path.exists():
            continue
        try:
            state = read_state(path)
        except DataError as error:
            said.append(str(error))
            os.replace(path, run / f"damaged-{name}")
            continue
        if name == SPARE:
            os.replace(path, run / LAST)
        return state, said
    return None, said


def _anew(places: Places, weights: Path, words: int) -> str:
    """A new run from these weights; what is there already is set aside under another name."""
    run, name = places.run, weights.parent.name if weights.is_relative_to(places.checkout) else weights.name
    fresh = run.with_name(".run.part")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    write_whole(fresh / INIT, weights.read_bytes())
    write_json(fresh / START, asdict(Start(name, words)))  # last: with it the folder is whole
    if any((run / part).exists() for part in (LAST, AVERAGED, f"damaged-{LAST}")):
        name += f" (what was there: {set_aside(run).name})"
    else:
        shutil.rmtree(run)
    fresh.rename(run)
    return f"starts from {name}, {words:,} words seen before"


def set_aside(folder: Path) -> Path:
    """Renames it to the first free of NAME-1, NAME-2, ..."""
    number = 1
    while (aside := folder.with_name(f"{folder.name}-{number}")).exists():
        number += 1
    return folder.rename(aside)


def progress_mark(run: Path) -> Any:
    """Something that changes whenever a state is saved."""
    try:
        found = (run / LAST).stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino


def copy_recipe(recipe: Path, run: Path, options: Sequence[str]) -> None:
    """What is run, for whoever asks later: the recipe as it is, and its options as they were given here."""
    shutil.copyfile(recipe, run / recipe.name)
    write_json(run / "options.json", list(options))
