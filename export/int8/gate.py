"""The accuracy gate: an int8 bundle's words, read on ONNX Runtime, beside those of the float32 network.

What is lost is word accuracy where the crops are labelled, by the standard protocol (small letters and digits), and
else words that differ at all. A plan that loses too much returns units to higher precision, those first that disturb
their tower's outputs most when they alone are quantised: 1, 2, 4 ... until it passes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from clip4str.core.driver import PredictAndRefine
from clip4str.core.errors import NonFiniteError, ParityError
from clip4str.core.reading import NO_WORD
from clip4str.export.int8.plan import Quantization, units_of
from clip4str.export.int8.samples import Sample
from clip4str.model.clip4str import Clip4Str
from clip4str.runtime.backends.ort import OrtBackend
from clip4str.runtime.bundle import STAGES, Bundle, Manifest
from clip4str.runtime.images import prepare
from clip4str.runtime.recognizer import batches

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
    """Reads the same crops with one bundle after another. The first is the float32 network's."""

    def __init__(self, model: Clip4Str, samples: Sequence[Sample], normalization: str, say: Say) -> None:
        self.model, self.samples, self.normalization, self.say = model, samples, normalization, say
        labels = [sample.label for sample in samples]
        self.labels = None if None in labels else [plain(str(label)) for label in labels]
        self.words: list[str] = []  # the float32 network's
        self.attempts: list[Attempt] = []

    @property
    def resolution(self) -> float:
        """What one word is worth, in points."""
        return 100 / len(self.samples)

    def attempt(self, network: str, files: Iterable[Path], kept: int = 0) -> Attempt:
        """Read all crops with the stage files, and say how that went."""
        paths = list(files)
        words, seconds = self._read(paths[0].parent, network)
        self.words = self.words or words
        same = sum(a == b for a, b in zip(words, self.words))
        accuracy, agreement = self._accuracy(words), 100 * same / len(words)
        drop = 100 - agreement
        if accuracy is not None and self.trusts_labels:
            drop = (self.attempts[0].accuracy or 0.0) - accuracy
        size = sum(path.stat().st_size for path in paths) / 1e6
        result = Attempt(network, kept, accuracy, agreement, drop, size, 1000 * seconds / len(words))
        if not self.attempts:
            self.say(HEADER)
        self.say(result.row())
        self.attempts.append(result)
        if len(self.attempts) == 1 and self.labels is not None and not self.trusts_labels:
            self.say("      the labels are not what this network reads: judged by agreement")
        return result

    @property
    def trusts_labels(self) -> bool:
        """Does the float32 network read at least half of the crops as labelled?"""
        return bool(self.attempts) and (self.attempts[0].accuracy or 0.0) >= TRUSTED

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
        return 100 * sum(plain(word) == label for word, label in zip(words, self.labels)) / len(words)

    def _read(self, folder: Path, network: str) -> tuple[list[str], float]:
        """All words, and the seconds they took without image preparation."""
        model = self.model
        stages = OrtBackend(stage_bundle(model, folder, self.normalization))
        driver = PredictAndRefine(model.charset, model.tokenizer, model.config.steps)
        words: list[str] = []
        seconds = 0.0
        with tqdm(total=len(self.samples), desc=network, unit="crop", leave=False, disable=None) as bar:
            for batch in batches((sample.image for sample in self.samples), BATCH):
                pixels = prepare(batch, model.config.image_size, self.normalization)
                start = time.perf_counter()
                try:
                    words += [model.charset.decode(ids) for ids in driver(stages, pixels).ids]
                except NonFiniteError:  # of an attempt: lost, as wrong words are
                    if not self.words:
                        raise
                    words += [NO_WORD] * len(batch)
                seconds += time.perf_counter() - start
                bar.update(len(batch))
        return words, seconds


def pass_gate(
    gate: Gate,
    plan: Quantization,
    most_lost: float,
    write: Callable[[Quantization], list[Path]],
    by_sensitivity: Callable[[], list[str]],
) -> tuple[Quantization, list[Path]]:
    """The plan with as many units kept as it takes, and its files. Raises ParityError if none passes.

    write: the stage files of a plan. by_sensitivity: all units, the most sensitive first; asked once, if at all.
    """
    total, count = len(units_of(gate.model.config)), 0
    order: list[str] = []
    rest = "half precision" if plan.precision == "fp16" else "float32"
    while True:
        plan = plan.keeping(frozenset(order[:count]))
        files = write(plan)
        name = f"int8, {count} of {total} units {plan.precision}" if count else "int8"
        attempt = gate.attempt(name, files, count)
        if attempt.drop <= most_lost:
            return plan, files
        if count == total:
            raise ParityError(
                f"{attempt.drop:.2f} points lost on {len(gate.samples)} crops, {most_lost:g} allowed, even with every "
                f"layer back in {rest}; allow more with --max-accuracy-drop, or build with --fp32"
            )
        order = order or by_sensitivity()
        count = min(total, max(1, 2 * count))


def stage_bundle(model: Clip4Str, folder: Path, normalization: str) -> Bundle:
    """Stage files in a folder that has no manifest yet, as a bundle to run."""
    charset = model.charset
    stages = {stage: f"{stage}.onnx" for stage in STAGES}
    config = model.config.to_dict()
    return Bundle(
        folder,
        Manifest(folder.name, config, charset.characters, charset.test, normalization, "int8", BATCH, {}, stages),
    )


def plain(word: str) -> str:
    """What the standard protocol compares: small letters and digits."""
    return "".join(c for c in word.lower() if c.isascii() and c.isalnum())
