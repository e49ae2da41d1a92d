"""The process that inputs are tried in. It may die of one: run.py finds it in the shared file, and starts another.

    child.py MODULE TARGET --shared FILE --keep FOLDER (--seconds S | --inputs N | --files FILE ...) [--seed N]

Says one JSON object a line: {"finding": ...}, and at the end {"counts": ...}.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import mmap
import os
import random
import re
import struct
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "hostile"))

from guard import Outcome, build_walls, observed, watch
from mutate import MOST, Mutator

SHARED = MOST + 4096  # bytes of the file that both processes see: a count, a length, the input
MOST_POOL = 400


class Trial:
    """One target's inputs, tried one by one. Each that is answered or refused in a way not seen before is kept to go on
    from: a refusal's place says how far an input came."""

    def __init__(self, target: Any, shared: Path, keep: Path, say: Any) -> None:
        self.target, self.keep, self.say = target, keep, say
        with shared.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), SHARED)
        (self.count,) = struct.unpack("<Q", self._shared[:8])
        self.counts: Counter[str] = Counter()
        self._seen: set[tuple] = set()
        self._found: set[tuple] = set()

    def one(self, data: bytes) -> bool:
        """Was it something new?"""
        data = data[:MOST]
        self.count += 1
        self._shared[8 : 16 + len(data)] = struct.pack("<Q", len(data)) + data
        self._shared[:8] = struct.pack("<Q", self.count)
        watch(4 * self.target.door.seconds)
        outcome = observed(lambda: self.target.run(data))
        watch(0)
        self.counts[outcome.how] += 1
        wrong = fault(outcome, self.target.door)
        place = (outcome.how, outcome.error, outcome.trace, re.sub(r"\d+|'.*'|\".*\"", "", outcome.message)[:80])
        if wrong and (wrong, outcome.error, outcome.trace) not in self._found:
            self._found.add((wrong, outcome.error, outcome.trace))
            path = saved(data, self.keep, self.target.name)
            shown = replace(outcome, message=outcome.message[:300])
            self.say({"finding": wrong, "file": str(path), "outcome": str(shown), "where": list(outcome.trace[-1:])})
        new = place not in self._seen
        self._seen.add(place)
        return new and not wrong


def fault(outcome: Outcome, door: Any) -> str:
    """What an outcome should not be; empty where all is well."""
    if outcome.how == "escaped":
        return f"{outcome.error} instead of an error of ours"
    if outcome.starved:
        return "asked for more memory than there was"
    if outcome.memory > door.memory:
        return f"took more than {door.memory >> 20} MB"
    if outcome.seconds > door.seconds:
        return f"took more than {door.seconds} s"
    if outcome.how == "refused" and not (outcome.message.isprintable() and 0 < len(outcome.message) < 3000):
        return "its message is not one line"
    return ""


def saved(data: bytes, keep: Path, target: str) -> Path:
    keep.mkdir(parents=True, exist_ok=True)
    path = keep / f"{target}-{hashlib.sha256(data).hexdigest()[:12]}"
    path.write_bytes(data)
    return path


def mutated(trial: Trial, seed: int) -> Iterator[bytes]:
    """Seeds first, then what becomes of them, without end."""
    seeds = list(trial.target.seeds())
    mutator = Mutator(seed, seeds, trial.target.form)
    for data in seeds:
        yield data
    chosen = random.Random(seed)
    while True:
        data = mutator.next()
        before = trial.count
        yield data
        if trial.new and trial.count > before:
            if len(mutator.pool) < MOST_POOL:
                mutator.pool.append(data)
            else:
                mutator.pool[chosen.randrange(len(seeds), MOST_POOL)] = data


def plain(trial: Trial, seed: int, seconds: float | None, inputs: int | None) -> None:
    end = None if seconds is None else time.monotonic() + seconds
    trial.new = False
    for data in mutated(trial, seed):
        if (end is not None and time.monotonic() > end) or (inputs is not None and trial.count >= inputs):
            return
        trial.new = trial.one(data)


def guided(trial: Trial, seed: int, seconds: float, folder: Path) -> None:
    """By atheris: libFuzzer over the coverage of our Python code, with our mutator. Does not return."""
    import atheris

    seeds = list(trial.target.seeds())
    folder.mkdir(exist_ok=True)
    for k, data in enumerate(seeds):
        (folder / f"seed-{k}").write_bytes(data)
    mutator = Mutator(seed, seeds, trial.target.form)

    def changed(data: bytes, most: int, number: int) -> bytes:
        mutator.random.seed(number)
        return mutator.changed(data)[:most]

    def one(data: bytes) -> None:
        trial.one(data)
        trial.say({"counts": trial.counts}) if trial.count % 500 == 0 else None

    handlers = ("segv", "bus", "abrt", "ill", "fpe", "int", "term", "xfsz", "usr1", "usr2")
    atheris.Setup(
        ["fuzz", str(folder), f"-max_total_time={max(1, int(seconds))}", f"-seed={seed + 1}", "-rss_limit_mb=0",
         "-timeout=0", f"-max_len={MOST}", "-verbosity=0", "-print_final_stats=0",
         *(f"-handle_{name}=0" for name in handlers)],
        one, custom_mutator=changed, internal_libfuzzer=True,
    )  # fmt: skip
    atheris.Fuzz()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    add = parser.add_argument
    add("module"), add("target")
    add("--shared", type=Path, required=True), add("--keep", type=Path, required=True)
    add("--seconds", type=float), add("--inputs", type=int), add("--files", type=Path, nargs="*")
    add("--seed", type=int, default=0), add("--atheris", action="store_true")
    args = parser.parse_args(argv)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints must not be taken for an answer

    def say(what: dict) -> None:
        print(json.dumps(what), file=answers, flush=True)

    if args.atheris:
        import atheris

        with atheris.instrument_imports(include=["clip4str"]):
            target = importlib.import_module(args.module).TARGETS[args.target]
            target.door.warm_up()
            observed(lambda: target.run(next(iter(target.seeds()))))
    else:
        target = importlib.import_module(args.module).TARGETS[args.target]
        target.door.warm_up()
    trial = Trial(target, args.shared, args.keep, say)
    target.seeds()
    build_walls()
    say({"ready": True})
    if args.files is not None:
        for path in args.files:
            trial.one(path.read_bytes())
    elif args.atheris:
        guided(trial, args.seed, args.seconds, Path.cwd() / "corpus")
    else:
        plain(trial, args.seed, args.seconds, args.inputs)
    say({"counts": trial.counts})
    return 0


if __name__ == "__main__":
    sys.exit(main())
