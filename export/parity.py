"""Are the bundle's answers the float32 network's, and an engine's those of its ONNX file? Stage by stage, then word
by word.

Every call that the reference's stages get while it reads the sample images is recorded and replayed on the stages in
question, with the same inputs: differences do not add up, so a bad stage shows by itself. Then these read the images on
their own and their words are compared. No torch here but where the reference is a torch network: boards have none.

On a CPU, ONNX Runtime has no half-precision kernels for most operators and computes half graphs in float32: what
is measured there is the rounding of weights and of a few values in between, not half-precision arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from clip4str.core.driver import PredictAndRefine
from clip4str.core.errors import NonFiniteError, ParityError
from clip4str.core.masks import Rule
from clip4str.core.reading import NO_WORD, Pass, Reading, Stages
from clip4str.export.untrained import character_probabilities
from clip4str.runtime.bundle import STAGES

if TYPE_CHECKING:
    from clip4str.model.clip4str import Clip4Str

BATCH = 8


@dataclass
class StageParity:
    """One stage against the reference, over `calls` calls with the same inputs.

    max_abs: largest absolute difference of its outputs (decoders: logits). scale: largest reference value.
    broken: calls that gave a value that is no finite number, on either side.
    """

    calls: int = 0
    broken: int = 0
    max_abs: float = 0.0
    scale: float = 0.0

    @property
    def relative(self) -> float:
        return self.max_abs / self.scale if self.scale else self.max_abs

    def add(self, expected: np.ndarray, got: np.ndarray) -> None:
        if expected.shape != got.shape:
            raise ParityError(f"a stage gave {got.shape} where the network gives {expected.shape}")
        self.broken += not (np.isfinite(expected).all() and np.isfinite(got).all())
        self.max_abs = max(self.max_abs, max_difference(expected, got))
        self.scale = max(self.scale, float(np.abs(expected).max(initial=0)))


@dataclass
class Parity:
    """What a build's gate measured. words: pairs (network's, bundle's) that differ."""

    images: int = 0
    agreeing: int = 0
    max_logits: float = 0.0  # where the words agree: a different word is a different question
    max_confidence: float = 0.0
    stages: dict[str, StageParity] = field(default_factory=lambda: {stage: StageParity() for stage in STAGES})
    words: list[tuple[str, str]] = field(default_factory=list)
    read: list[tuple[str, float]] = field(default_factory=list)  # the network's words, a character's mean probability
    frames: int = 0  # of the draft head, where there is one: they decide no word
    agreeing_frames: int = 0
    activations: dict[str, float] = field(default_factory=dict)  # export.activations.Watched.largest, where asked for

    @property
    def agreement(self) -> float:
        return self.agreeing / self.images

    @property
    def worst(self) -> str:
        return max(self.stages, key=lambda stage: self.stages[stage].relative)

    def to_dict(self) -> dict[str, Any]:
        stages = {k: {**asdict(s), "relative": s.relative} for k, s in self.stages.items()}
        values: dict[str, Any] = {"images": self.images, "agreement": self.agreement}
        values["max_confidence"] = self.max_confidence
        if self.frames:
            values["draft_agreement"] = self.agreeing_frames / self.frames
        if self.activations:
            values["activations"] = self.activations
        return _rounded({**values, "max_logits": self.max_logits, "stages": stages, "differing": self.words[:20]})

    def table(self) -> str:
        lines = ["stage    calls   max abs diff   of largest value"]
        for name, s in self.stages.items():
            lines.append(f"{name:7} {s.calls:6} {s.max_abs:14.2e} {s.relative:18.2e}")
        if self.frames:
            lines.append(f"{'draft':7} {self.agreeing_frames} of {self.frames} frames agree")
        lines.append(f"{'words':7} {self.images:6} {self.max_logits:14.2e}   (final logits, where words agree)")
        if self.activations:
            place = max(self.activations, key=lambda name: self.activations[name])
            lines.append(f"largest  {self.activations[place]:.4g} in {place}")
        lines.append(f"{self.agreeing} of {self.images} words agree ({100 * self.agreement:.1f}%)")
        lines += [f"  {expected!r} became {got!r}" for expected, got in self.words[:5]]
        return "\n".join(lines)

    def check(self, minimum: float) -> None:
        """Raises ParityError, naming the worst stage, if fewer words agree than the `minimum` share; and, whatever is
        the minimum, where a stage gives what is no number: words may agree in that."""
        broken = next((name for name, stage in self.stages.items() if stage.broken), None)
        if broken is not None:
            raise ParityError(
                f"stage {broken} gives values that are no finite numbers, in {self.stages[broken].broken} of "
                f"{self.stages[broken].calls} calls: the weights are broken, or too large for this precision"
            )
        if self.agreement >= minimum:
            return
        worst = self.stages[self.worst]
        raise ParityError(
            f"{self.agreeing} of {self.images} words agree with the float32 network ({100 * self.agreement:.1f}%, "
            f"wanted {100 * minimum:g}%); worst stage: {self.worst} (off by {worst.max_abs:.3g}, "
            f"{100 * worst.relative:.2g}% of its largest value)"
        )


def _call(stages: Stages, stage: str, inputs: tuple[Any, ...]) -> Any:
    calls: dict[str, Callable[..., Any]] = {
        "image": stages.image, "visual": stages.visual, "text": stages.text, "cross": stages.cross
    }  # fmt: skip
    return calls[stage](*inputs)


class Recorder(Stages):
    """Stages that pass calls on to others and keep them: (stage, inputs, outputs) as arrays."""

    def __init__(self, stages: Stages, flexible_steps: bool) -> None:
        self.stages, self.flexible_steps = stages, flexible_steps
        self.drafts: tuple[np.ndarray, ...] = ()  # what the last image stage gave beside keys and values
        self.calls: list[tuple[str, tuple[Any, ...], tuple[np.ndarray, ...]]] = []

    def image(self, pixels: Any) -> tuple[Any, ...]:
        result = self._keep("image", (pixels,))
        self.drafts = result[2:]
        return result

    def visual(self, tokens: np.ndarray, rule: Rule, visual_kv: Any) -> Pass:
        return self._keep("visual", (tokens, rule, visual_kv))

    def text(self, bpe: np.ndarray) -> Any:
        return self._keep("text", (bpe,))

    def cross(self, tokens: np.ndarray, rule: Rule, cross_kv: Any, text_kv: Any) -> Pass:
        return self._keep("cross", (tokens, rule, cross_kv, text_kv))

    def stack(self, rows: Sequence[Any]) -> Any:
        return self.stages.stack(rows)

    def _keep(self, stage: str, inputs: tuple[Any, ...]) -> Any:
        result = _call(self.stages, stage, inputs)
        kept = tuple(value if isinstance(value, Rule) else _array(value) for value in inputs)
        self.calls.append((stage, kept, compared(result)))
        return result


class _Seen:
    """Stages that have seen the images already: reading them again would be most of the work."""

    def __init__(self, stages: Stages, memory: tuple[Any, ...]) -> None:
        self.flexible_steps, self.memory = stages.flexible_steps, memory
        self.visual, self.text, self.cross, self.stack = stages.visual, stages.text, stages.cross, stages.stack

    def image(self, pixels: Any) -> tuple[Any, ...]:
        return self.memory


def compared(result: Any) -> tuple[np.ndarray, ...]:
    """What of a stage's result is compared: keys and values as they are, of a pass its logits. A draft's frames are
    ids, of which the next best one may be any number away: they are counted."""
    if isinstance(result, Pass):
        return (_array(result.logits),)
    return tuple(map(_array, result[:2] if isinstance(result, (tuple, list)) else (result,)))


def measure(
    model: Clip4Str,
    stages: Stages,
    pixels: np.ndarray,
    progress: Callable[[int], object] = lambda _: None,
    reference: Stages | None = None,
) -> Parity:
    """Compare a bundle's stages with the float32 network over normalised pixels (N, 3, H, W).

    progress: called with the number of images done since the last call. reference: what is called in the network's
    place, for instance Watched(model).
    """
    import torch

    driver = PredictAndRefine(model.charset, model.tokenizer, model.config.steps)
    with torch.inference_mode():
        return compare(driver, reference or model, stages, pixels, progress, torch.from_numpy)


def compare(
    driver: PredictAndRefine,
    reference: Stages,
    stages: Stages,
    pixels: np.ndarray,
    progress: Callable[[int], object] = lambda _: None,
    convert: Callable[[np.ndarray], Any] = lambda pixels: pixels,
    most: int = BATCH,
) -> Parity:
    """The same for any two stages of one network. driver: without a caption cache. convert: what `reference` reads.
    most: images that `stages` take at a time."""
    parity, size = Parity(), min(BATCH, most)
    for start in range(0, len(pixels), size):
        batch = pixels[start : start + size]
        recorder = Recorder(reference, stages.flexible_steps)
        expected = driver(recorder, convert(batch), full_logits=True)
        memory: Any = None
        for stage, inputs, outputs in recorder.calls:
            figures = parity.stages[stage]
            figures.calls += 1
            result = _call(stages, stage, inputs)
            memory = result if stage == "image" else memory
            for want, got in zip(outputs, compared(result)):
                figures.add(want, got)
        for want, got in zip(recorder.drafts, memory[2:]):
            parity.frames += want.size
            parity.agreeing_frames += int((want == got).sum())
        try:
            _compare_words(parity, driver, expected, driver(_Seen(stages, memory), batch, full_logits=True))
        except NonFiniteError:  # no words; the figures say in which stage
            parity.images += len(batch)
            parity.words += [(driver.charset.decode(ids), NO_WORD) for ids in expected.ids]
        progress(len(batch))
    return parity


def _compare_words(parity: Parity, driver: PredictAndRefine, expected: Reading, got: Reading) -> None:
    parity.images += len(expected.ids)
    probabilities = character_probabilities(expected.ids, expected.probs)
    parity.read += zip(map(driver.charset.decode, expected.ids), probabilities)
    for row, (a, b) in enumerate(zip(expected.ids, got.ids)):
        words = driver.charset.decode(a), driver.charset.decode(b)
        if words[0] != words[1]:
            parity.words.append(words)
            continue
        parity.agreeing += 1
        logits = max_difference(_array(expected.logits[row]), _array(got.logits[row]))
        confidence = max_difference(expected.confidence[row], got.confidence[row])
        parity.max_logits = max(parity.max_logits, logits)
        parity.max_confidence = max(parity.max_confidence, confidence)


def max_difference(a: np.ndarray, b: np.ndarray) -> float:
    """Largest absolute difference; infinite if either has a value that is no number."""
    difference = float(np.abs(np.asarray(a, np.float32) - b).max(initial=0))
    return difference if np.isfinite(difference) else float("inf")


def _array(value: Any) -> np.ndarray:
    return value.numpy() if hasattr(value, "numpy") else np.asarray(value)


def _rounded(value: Any) -> Any:
    """Six digits are enough for a manifest; JSON has no infinity."""
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    if isinstance(value, float):
        return float(f"{value:.6g}") if np.isfinite(value) else None
    return value
