"""The accuracy gate: an eight-bit bundle's words, read on ONNX Runtime, beside those of the float32 network.

What is lost is word accuracy where the crops are labelled, by the standard protocol (small letters and digits) or in
the network's own characters where these are others, and else words that differ at all. Labels of which nothing is
compared count as right where the word is float32's. A plan that loses too much returns units to higher precision, those
first that disturb their tower's outputs most when they alone are quantised: 1, 2, 4 ... until it passes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from clip4str.core.batches import batches
from clip4str.core.driver import PredictAndRefine
from clip4str.core.errors import NonFiniteError, ParityError
from clip4str.core.progress import Progress
from clip4str.core.reading import NO_WORD
from clip4str.core.text import comparing
from clip4str.export.quantization.plan import Quantization, units_of
from clip4str.export.quantization.samples import Sample
from clip4str.export.untrained import character_probabilities, untrained
from clip4str.model.clip4str import Clip4Str
from clip4str.runtime.backends.ort import OrtBackend
from clip4str.runtime.bundle import STAGES, Bundle, Manifest
from clip4str.runtime.images import prepare

BATCH = 16
TRUSTED = 50.0  # percent: what the float32 network must read as labelled, or the labels say nothing of accuracy
HEADER = f"{'network':32} {'accuracy':>9} {'agreement':>10} {'MB':>8} {'ms a word':>10}"

Say = Callable[[str], object]


@dataclass(frozen=True)
class Attempt:
    """One row of the gate's table. accuracy, agreement (with the float32 network's words) and drop: percent, points."""

    network: str
    kept: int
    accuracy: float | None
    agreement: float
    drop: float
    megabytes: float
    milliseconds: float

    def row(self) -> str:
        accuracy = "-" if self.accuracy is None else f"{self.accuracy:.2f} %"
        return (
            f"{self.network:32} {accuracy:>9} {self.agreement:8.2f} % {self.megabytes:8.1f} {self.milliseconds:10.2f}"
        )

    def to_dict(self) -> dict[str, Any]:
        return {k: round(v, 4) if isinstance(v, float) else v for k, v in asdict(self).items()}


class Gate:
    """Reads the same crops with one bundle after another. The first is the float32 network's, the others are of
    `precision`."""

    def __init__(
        self, model: Clip4Str, samples: Sequence[Sample], normalization: str, say: Say, precision: str = "int8"
    ) -> None:
        self.model, self.samples, self.normalization, self.say = model, samples, normalization, say
        self.precision = precision
        charset = model.charset
        self.compared = plain if charset.is_standard else comparing(charset).compared
        labels = [None if sample.label is None else self.compared(sample.label) for sample in samples]
        self.labels = None if None in labels or not any(labels) else [label or "" for label in labels]
        self.words: list[str] = []  # the float32 network's
        self.probabilities: list[float] = []  # of a character of each of them
        self._read_right = 0.0  # percent of the labels of which something is compared
        self.attempts: list[Attempt] = []

    @property
    def resolution(self) -> float:
        """What one word is worth, in points."""
        return 100 / len(self.samples)

    def attempt(self, network: str, files: Iterable[Path], kept: int = 0) -> Attempt:
        """Read all crops with the stage files, and say how that went."""
        paths = list(files)
        words, probabilities, seconds = self._read(paths[0].parent, network)
        self.words, self.probabilities = self.words or words, self.probabilities or probabilities
        same = sum(a == b for a, b in zip(words, self.words))
        accuracy, agreement = self._accuracy(words), 100 * same / len(words)
        drop = 100 - agreement
        if accuracy is not None and self.trusts_labels:
            drop = (self.attempts[0].accuracy or 0.0) - accuracy if self.attempts else 0.0
        size = sum(path.stat().st_size for path in paths) / 1e6
        result = Attempt(network, kept, accuracy, agreement, drop, size, 1000 * seconds / len(words))
        if not self.attempts:
            self.say(HEADER)
        self.say(result.row())
        self.attempts.append(result)
        if len(self.attempts) == 1:
            self._say_of_the_labels()
        return result

    def _say_of_the_labels(self) -> None:
        """What the float32 network's words tell of the network and of the labels."""
        stored = [sample.label for sample in self.samples]
        if note := untrained(self.model.charset, list(zip(self.words, self.probabilities)), stored):
            self.say(f"      {note}")
        if self.labels is None and None not in stored:
            self.say("      of no label anything is compared in this network's characters: judged by agreement")
        if self.labels is not None and (nothing := self.labels.count("")):
            self.say(f"      of {nothing} labels nothing is compared: there the words are to be float32's")
        if self.labels is not None and not self.trusts_labels:
            self.say("      the labels are not what this network reads: judged by agreement")

    @property
    def trusts_labels(self) -> bool:
        """Does the float32 network read at least half of the crops as labelled?"""
        return self._read_right >= TRUSTED

    def to_dict(self, most_lost: float) -> dict[str, Any]:
        """For the manifest."""
        return {
            "crops": len(self.samples),
            "judged_by": "accuracy" if self.trusts_labels else "agreement",
            "points_a_word": round(self.resolution, 4),
            "max_accuracy_drop": most_lost,
            "attempts": [attempt.to_dict() for attempt in self.attempts],
        }

    def _accuracy(self, words: Sequence[str]) -> float | None:
        if self.labels is None:
            return None
        right = [
            self.compared(word) == label if label else word == exact
            for word, label, exact in zip(words, self.labels, self.words)
        ]
        if not self.attempts:
            told = [r for r, label in zip(right, self.labels) if label]
            self._read_right = 100 * sum(told) / len(told)
        return 100 * sum(right) / len(words)

    def _read(self, folder: Path, network: str) -> tuple[list[str], list[float], float]:
        """All words, the mean probability of a character of each, and the seconds they took without image
        preparation."""
        model = self.model
        stages = OrtBackend(stage_bundle(model, folder, self.normalization, self.precision))
        driver = PredictAndRefine(model.charset, model.tokenizer, model.config.steps)
        words: list[str] = []
        probabilities: list[float] = []
        seconds = 0.0
        with Progress(len(self.samples), network, "crops") as bar:
            for batch in batches((sample.image for sample in self.samples), BATCH):
                pixels = prepare(batch, model.config.image_size, self.normalization)
                start = time.perf_counter()
                try:
                    reading = driver(stages, pixels)
                    words += [model.charset.decode(ids) for ids in reading.ids]
                    probabilities += character_probabilities(reading.ids, reading.probs)
                except NonFiniteError:  # of an attempt: lost, as wrong words are
                    if not self.words:
                        raise
                    words += [NO_WORD] * len(batch)
                    probabilities += [0.0] * len(batch)
                seconds += time.perf_counter() - start
                bar.update(len(batch))
        return words, probabilities, seconds


def pass_gate(
    gate: Gate,
    plan: Quantization,
    most_lost: float,
    write: Callable[[Quantization], list[Path]],
    by_sensitivity: Callable[[], list[str]],
) -> tuple[Quantization, list[Path]]:
    """The plan with as many units kept as it takes, and its files. Raises ParityError if none passes that still has a
    unit in 8 bits.

    write: the stage files of a plan. by_sensitivity: all units, the most sensitive first; asked once, if at all.
    """
    total, count, lost = len(units_of(gate.model.config)), 0, 0.0
    order: list[str] = []
    rest = "half precision" if plan.precision == "fp16" else "float32"
    while True:
        plan = plan.keeping(frozenset(order[:count]))
        files = write(plan)
        name = f"{plan.name}, {count} of {total} units {plan.precision}" if count else plan.name
        attempt = gate.attempt(name, files, count)
        if attempt.drop <= most_lost and count < total:
            return plan, files
        if attempt.drop <= most_lost:
            build = "--fp16" if plan.precision == "fp16" else "--fp32"
            raise ParityError(
                f"all {total} units had to go back to {rest}, so nothing would be quantised: {most_lost:g} points may "
                f"be lost, and with fewer of them {lost:.2f} were; build with {build}, or allow more with "
                "--max-accuracy-drop"
            )
        if count == total:
            raise ParityError(
                f"{attempt.drop:.2f} points lost on {len(gate.samples)} crops, {most_lost:g} allowed, even with every "
                f"layer back in {rest}; allow more with --max-accuracy-drop, or build with --fp32"
            )
        order, lost = order or by_sensitivity(), attempt.drop
        count = min(total, max(1, 2 * count))


def stage_bundle(model: Clip4Str, folder: Path, normalization: str, precision: str = "int8") -> Bundle:
    """Stage files in a folder that has no manifest yet, as a bundle to run."""
    charset = model.charset
    stages = {stage: f"{stage}.onnx" for stage in STAGES}
    config = model.config.to_dict()
    return Bundle(
        folder,
        Manifest(folder.name, config, charset.characters, charset.test, normalization, precision, BATCH, {}, stages),
    )


def plain(word: str) -> str:
    """What the standard protocol compares: small letters and digits."""
    return "".join(c for c in word.lower() if c.isascii() and c.isalnum())
