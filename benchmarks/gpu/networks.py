"""The networks that the suite times, and the published way to run them. Weights are random: no checkpoint is needed."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from clip4str.benchmarks.forcing import ForcedWords, Forcing
from clip4str.benchmarks.gpu.device import operations
from clip4str.benchmarks.gpu.predict import CROSS_PASSES, VISUAL_PASSES, WORD
from clip4str.benchmarks.published import Published
from clip4str.benchmarks.random_weights import scaled
from clip4str.model import Clip4Str, Config
from clip4str.training.start import SIZES

FORCING = Forcing(WORD, VISUAL_PASSES, CROSS_PASSES, text_calls=1)
_TESTS = Path(__file__).resolve().parents[2] / "tests"


def sizes(dry_run: bool) -> dict[str, Config]:
    """The networks to time, by name. A dry run gives the names to a tiny one."""
    if not dry_run:
        return {name: SIZES[name] for name in ("b16", "small", "l14")}
    tiny = narrow_config(1, 1)
    return {"b16": tiny, "small": tiny, "l14": tiny}


def narrow_config(image_layers: int, text_layers: int) -> Config:
    return Config(
        image_size=(32, 64), patch_size=(16, 16), image_width=64, image_layers=image_layers, text_width=64,
        text_layers=text_layers, text_positions=16, vocabulary=2562, d=64, decoder_mlp=128,
    )  # fmt: skip


def narrow_network(image_layers: int, text_layers: int) -> Clip4Str:
    """As many layers as wanted, hardly any width: does the same operations as the real one, in no time."""
    return random_network(narrow_config(image_layers, text_layers), torch.device("cpu"))


def random_network(config: Config, device: torch.device, seed: int = 0) -> Clip4Str:
    """Float32, made on the device. Its parameters ask for gradients as a loaded checkpoint's do: autocast keeps the
    half-precision copies of no others."""
    with torch.device("meta"):
        model = Clip4Str(config)
    generator = torch.Generator(device).manual_seed(seed)
    state = {
        name: scaled(name, torch.randn(tensor.shape, generator=generator, device=device))
        for name, tensor in model.state_dict().items()
    }
    model.load_state_dict(state, assign=True)
    return model.eval()


def golden_network(size: str) -> tuple[Clip4Str, dict[str, np.ndarray]]:
    """The golden network called `size`, and the images and answers of the published code for it. Float32, CPU."""
    recipe = _golden_recipe()
    with np.load(_TESTS / "golden" / f"{size}.npz") as file:
        golden = {key: file[key] for key in file}
    shapes = {"tiny": narrow_golden(), "base16": Config()}[size]
    with torch.device("meta"):
        model = Clip4Str(shapes, charset_test=str(golden["charset_test"]))
    names = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    seed, bias = int(golden["seed"]), float(golden["eos_bias"])
    with ThreadPoolExecutor(8) as pool:  # numpy draws without holding the interpreter's lock
        arrays = pool.map(lambda item: recipe.golden_array(item[0], item[1], seed, bias), names.items())
    model.load_state_dict({n: torch.from_numpy(a) for n, a in zip(names, arrays)}, assign=True)
    return model.eval(), golden


def narrow_golden() -> Config:
    return Config(
        image_size=(64, 64), patch_size=(16, 16), image_width=128, image_layers=3, text_width=64, text_layers=2,
        d=64, decoder_mlp=256,
    )  # fmt: skip


def _golden_recipe() -> ModuleType:
    spec = importlib.util.spec_from_file_location("golden_weights", _TESTS / "golden_weights.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def random_pixels(config: Config, images: int, device: torch.device, seed: int = 0) -> Tensor:
    """(N, 3, H, W) float32 in -1..1: smooth shades and strokes, about as rough as a photographed word."""
    generator = torch.Generator(device).manual_seed(seed)
    height, width = config.image_size

    def noise(h: int, w: int) -> Tensor:
        field = torch.randn(images, 3, h, w, generator=generator, device=device)
        return F.interpolate(field, (height, width), mode="bilinear", align_corners=False)

    return (0.6 * noise(3, 5) + 0.8 * noise(9, 17).sign() + 0.1 * noise(height, width)).clamp(-1, 1)


class PublishedWay:
    """Step by step, eager; `half` under autocast. Words of `length` characters are forced: everything is computed,
    then the ids are replaced, as in benchmarks/forcing.py."""

    def __init__(self, model: Clip4Str, device: torch.device | str, half: bool, length: int = WORD) -> None:
        self.model, self.device, self.length = model, torch.device(device), length
        self._published, self._half = Published(model), half

    def __call__(self, pixels: Tensor) -> list[str]:
        """Normalised pixels on the device -> words."""
        self._published.pick = self._forced(len(pixels))
        with self._autocast():
            return self._published.words(self._published(pixels))

    def _autocast(self) -> Any:
        if not self._half:
            return contextlib.nullcontext()
        dtype = torch.float16 if self.device.type == "cuda" else torch.bfloat16
        return torch.autocast(self.device.type, dtype)

    def _forced(self, images: int) -> Callable[[Tensor, int], Tensor]:
        forced = ForcedWords(self.model.charset, self.model.config.steps, self.length, images)
        words = torch.from_numpy(forced.ids()).to(self.device)

        def pick(logits: Tensor, first: int) -> Tensor:
            return words[:, first : first + logits.argmax(-1).shape[1]]

        return pick

    def count_operations(self) -> int:
        """Kernels that one word launches."""
        pixels = random_pixels(self.model.config, 1, self.device)
        self(pixels)
        return operations(lambda: self(pixels))
