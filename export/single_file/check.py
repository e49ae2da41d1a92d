"""A single file against the bundle that it was made of: the same words, on ONNX Runtime."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from clip4str.core.errors import ParityError
from clip4str.runtime import Recognizer
from clip4str.runtime.images import load_fitted, load_image, normalized

from .reader import SingleFile
from .write import Options

_BATCH = 8


@dataclass(frozen=True)
class Check:
    """words: read by both. settled: of them, those that the file is sure of. differing: pairs (bundle's, file's) of
    those. probability: largest difference of a character's, where settled words are equal."""

    words: int
    settled: int
    differing: list[tuple[str, str]]
    probability: float

    def table(self) -> str:
        agreeing, open_ = self.settled - len(self.differing), self.words - self.settled
        lines = [
            f"{agreeing} of {self.settled} settled words are the bundle's, probabilities to {self.probability:.1e}; "
            f"{open_} of {self.words} are not settled"
        ]
        return "\n".join([*lines, *(f"  {expected!r} became {got!r}" for expected, got in self.differing[:5])])

    def check(self, minimum: float) -> None:
        """Raises ParityError where a smaller share of the settled words agrees."""
        agreeing = self.settled - len(self.differing)
        if agreeing < minimum * self.settled:
            raise ParityError(
                f"{agreeing} of {self.settled} settled words agree with the bundle's, wanted {minimum:.0%}"
            )


def check_file(recognizer: Recognizer, path: Path, images: list[Image.Image], options: Options) -> Check:
    """Both read the same pictures; `recognizer` decodes as the file does."""
    file, manifest = SingleFile(path, recognizer.backend.threads or 1), recognizer.manifest
    settled, count, probability = 0, 0, 0.0
    differing: list[tuple[str, str]] = []
    size = 1 if options.resize else min(_BATCH, recognizer.batch_size)
    for start in range(0, len(images), size):
        part = images[start : start + size]
        fitted = [load_fitted(image, manifest.image_size)[0] for image in part]
        pixels = normalized(fitted, manifest.image_size, manifest.normalization)
        given = pixels
        if options.resize:
            given = np.asarray(load_image(part[0]))[None]
        elif options.uint8:
            given = np.stack(fitted)
        expected, got = recognizer.reading(pixels), file.read(given)
        decode = recognizer.driver.charset.decode
        for row, sure in enumerate(got["settled"]):
            count, settled = count + 1, settled + bool(sure)
            words = decode(expected.ids[row]), decode(got["ids"][row])
            if sure and words[0] != words[1]:
                differing.append(words)
            elif sure:
                probability = max(probability, float(np.abs(expected.probs[row] - got["probs"][row]).max()))
    return Check(count, settled, differing, probability)
