"""How large a network's numbers grow, block by block: float16 ends at 65504, and what is larger becomes infinite."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from clip4str.core.errors import ParityError
from clip4str.core.masks import Rule
from clip4str.core.reading import Pass, Stages
from clip4str.model.clip4str import Clip4Str
from clip4str.model.network import QuickGELU, ResidualBlock

MOST = 65504.0
MARGIN = 4.0  # sample images are few: others may reach this much more


class Watched(Stages):
    """A network's stages in float32; largest: by "STAGE" or "STAGE.block N" the largest absolute value of any product,
    sum or other result in it, over all calls. What the attention computes inside is not seen."""

    flexible_steps = True

    def __init__(self, model: Clip4Str) -> None:
        self.model, self.largest, self._where = model, dict[str, float](), list[str]()

    def image(self, pixels: Any) -> tuple[Any, ...]:
        with self._watching("image", self.model.clip_model.visual):
            return self.model.image(pixels)

    def visual(self, tokens: np.ndarray, rule: Rule, visual_kv: Any) -> Pass:
        with self._watching("visual"):
            return self.model.visual(tokens, rule, visual_kv)

    def text(self, bpe: np.ndarray) -> Any:
        with self._watching("text", self.model.clip_model.transformer):
            return self.model.text(bpe)

    def cross(self, tokens: np.ndarray, rule: Rule, cross_kv: Any, text_kv: Any) -> Pass:
        with self._watching("cross"):
            return self.model.cross(tokens, rule, cross_kv, text_kv)

    def stack(self, rows: Sequence[Any]) -> Any:
        return self.model.stack(rows)

    def note(self, value: Tensor) -> None:
        place = self._where[-1]
        if place and value.is_floating_point() and value.numel():
            largest = float(value.abs().max())
            self.largest[place] = max(self.largest.get(place, 0.0), largest if largest == largest else float("inf"))

    def _left(self, *_: Any) -> None:
        self._where.pop()

    @contextmanager
    def _watching(self, stage: str, tower: nn.Module | None = None) -> Iterator[None]:
        modules = [] if tower is None else list(tower.modules())
        blocks = [m for m in modules if isinstance(m, ResidualBlock)]
        named: dict[nn.Module, str] = {block: f"{stage}.block {number}" for number, block in enumerate(blocks)}
        # Inside, 1.702 x may overflow: the sigmoid of infinity is right.
        named |= dict.fromkeys((m for m in modules if isinstance(m, QuickGELU)), "")
        hooks = []
        for module, name in named.items():
            hooks.append(module.register_forward_pre_hook(lambda *_, name=name: self._where.append(name)))
            hooks.append(module.register_forward_hook(self._left))
        self._where = [stage]
        try:
            with _Results(self.note):
                yield
        finally:
            for hook in hooks:
                hook.remove()


class _Results(TorchFunctionMode):
    """Shows what torch's functions return."""

    def __init__(self, see: Callable[[Tensor], None]) -> None:
        super().__init__()
        self._see = see

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self._see(result)
        return result


def check_half(largest: dict[str, float], half: bool, say: Callable[[str], object]) -> None:
    """Says where float16 is near its end. half: the bundle computes in it, else the torch backend may.

    Raises ParityError where a bundle of half precision would not hold these very images' numbers: on a CPU, where they
    are computed in float32, nothing else shows it.
    """
    place = max(largest, key=lambda name: largest[name])
    if largest[place] * MARGIN < MOST:
        return
    reached = f"{place} reaches {largest[place]:,.0f}, float16 ends at {MOST:,.0f}"
    if largest[place] > MOST and half:
        raise ParityError(f"{reached}: build for float32, without --fp16")
    says = "overflows" if largest[place] > MOST else "images unlike the samples may overflow"
    way = "build without --fp16, or read with " if half else "read with "
    say(f"warning: {reached}: {says}; {way}dtype='bfloat16' on torch")
