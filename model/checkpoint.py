"""Checkpoints: every published form in, safetensors out. Nothing in a checkpoint is ever executed, and its
numbers are read once their names and shapes are those of a network."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from clip4str.core.atomic_files import replaced
from clip4str.core.calibration import HIGHEST, LOWEST, is_temperature
from clip4str.core.errors import CheckpointError, first_line, one_line
from clip4str.core.packaged import PACKAGED
from clip4str.core.reading import Decoding
from clip4str.core.safetensors_metadata import read_metadata, write_metadata

from .clip4str import Clip4Str
from .config import ANCHOR, config_from_shapes
from .hyper_parameters import assumed, check_facts, read_hints
from .weight_files import METADATA, Weights, magic, open_weights, said_of

BUNDLED = PACKAGED / "weights.safetensors"
_WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")  # anywhere in a name


def load_checkpoint(
    path: str | os.PathLike[str],
    image_size: tuple[int, int] | None = None,
    charset: str | None = None,
    charset_test: str | None = None,
    decoding: Decoding | None = None,
    say: Callable[[str], object] | None = None,
) -> Clip4Str:
    """Read a checkpoint: Lightning `.ckpt`, `.pt` of a state_dict alone or under a usual name, or `.safetensors`.
    Float32, on the CPU, eval mode.

    Every dimension is read off the tensors. image_size (height, width) and charset are needed only where neither
    tensors nor the checkpoint's own hyper-parameters tell them, see config_from_shapes. say: takes lines on what had to
    be assumed or was left out; a RuntimeWarning each by default.

    Raises CheckpointError (unreadable, foreign, of options that are not supported; keys missing or left over: they are
    listed), UnsafeCheckpointError (it asks to run code), CharsetError (charset that does not fit).
    """
    path = Path(path)
    try:
        model, notes = _load(path, image_size, charset, charset_test, decoding)
    except CheckpointError as error:
        raise type(error)(f"{path}: {_shown(error)}") from None
    for note in notes:
        line = f"{path.name}: {_shown(note)}"
        if say is not None:
            say(line)
        else:
            warnings.warn(line, RuntimeWarning, stacklevel=2)
    return model


def _load(
    path: Path,
    image_size: tuple[int, int] | None,
    charset: str | None,
    charset_test: str | None,
    decoding: Decoding | None,
) -> tuple[Clip4Str, list[str]]:
    weights = open_weights(path)
    given = {"image_size": image_size, "charset": charset, "charset_test": charset_test}
    hints, notes = read_hints(weights.said, given)
    hints |= weights.ours
    if charset is not None:
        hints["charset_train"] = charset
    if charset_test is not None:
        hints["charset_test"] = charset_test
    names = _network_names(weights, notes)
    shapes = {ours: weights.shapes[name] for ours, name in names.items()}
    config = config_from_shapes(shapes, hints, image_size)
    check_facts(hints, config)
    with torch.device("meta"):
        model = Clip4Str(config, decoding, charset_test)
    _check_names(model, shapes)
    quantised = next((ours for ours, name in names.items() if name not in weights.floats), None)
    if quantised is not None:
        raise CheckpointError(f"{quantised} is {weights.dtypes[names[quantised]]}; expected plain float weights")
    state = {ours: _finite(ours, weights.read(name).float()) for ours, name in names.items()}
    model.load_state_dict(state, assign=True)
    guess = assumed(config, hints, image_size)
    return model.eval().requires_grad_(False), [*weights.notes, *notes, *([guess] if guess else [])]


def _shown(text: object) -> str:
    """On one line of bounded length: names out of a stranger's file are part of it."""
    line = one_line(text)
    return line if len(line) <= 1000 else f"{line[:997]}..."


def _finite(name: str, weight: Tensor) -> Tensor:
    if not torch.isfinite(weight).all():
        raise CheckpointError(f"{name} has numbers that are not finite: training broke, or the file is damaged")
    return weight


def save_checkpoint(model: Clip4Str, path: str | os.PathLike[str], dtype: torch.dtype = torch.float32) -> None:
    """Write safetensors with the configuration as metadata; whole or not at all."""
    from safetensors.torch import save_file

    tensors = {k: v.detach().to("cpu", dtype).contiguous() for k, v in model.state_dict().items()}
    with replaced(Path(path)) as temporary:
        save_file(tensors, temporary, metadata={METADATA: json.dumps(model.config.to_dict())})


def write_temperature(path: str | os.PathLike[str], temperature: float) -> None:
    """Note in a safetensors checkpoint what calibrates its words' confidence (Config.temperature); whole or not at all.
    Its tensors stay as they are, to the last bit, and so does what else its metadata say.

    Raises CheckpointError: another kind of file, a damaged one, one that cannot be written, or a temperature that
    cannot be.
    """
    path = Path(path)
    if not is_temperature(temperature):
        raise CheckpointError(f"temperature is {temperature!r}, expected {LOWEST:g} to {HIGHEST:g}")
    if not is_safetensors(path):
        raise CheckpointError(
            f"{path}: not a safetensors file, so it has no place for a temperature; save_checkpoint writes one"
        )
    try:
        said = said_of(read_metadata(path))
        write_metadata(path, path, {METADATA: json.dumps({**said, "temperature": temperature})})
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be written ({first_line(error, 200)})") from None


def is_safetensors(path: Path) -> bool:
    """Raises CheckpointError where there is no file."""
    try:
        return magic(path)[8:9] == b"{"
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None


def _network_names(weights: Weights, notes: list[str]) -> dict[str, str]:
    """The network's names of tensors -> the file's. Wrappers (DDP, torch.compile, averaging, another module) put
    theirs before it. Counters of other modules are left out, and what lies beside the network, which is noted."""
    names = dict[str, str]()
    for name in weights.shapes:
        clean = name
        for wrapper in _WRAPPERS:
            clean = clean.replace(wrapper, "")
        if clean in names:
            raise CheckpointError(f"{names[clean]} and {name} are one weight")
        names[clean] = name
    prefixes = [clean.removesuffix(ANCHOR) for clean in names if clean.endswith(ANCHOR)]
    prefixes = [prefix for prefix in prefixes if not prefix or prefix.endswith(".")]
    if len(prefixes) > 1:
        raise CheckpointError(f"holds several networks ({_some([p + ANCHOR for p in prefixes])}); save one alone")
    prefix = prefixes[0] if prefixes else ""
    beside = [n for clean, n in names.items() if not clean.startswith(prefix) and n in weights.floats]
    if beside:
        notes.append(f"left out, beside {prefix.rstrip('.')}: {_some(beside, 3)}")
    inside = {clean.removeprefix(prefix): name for clean, name in names.items() if clean.startswith(prefix)}
    return {ours: name for ours, name in inside.items() if name in weights.floats or _is_weight(ours)}


def _is_weight(name: str) -> bool:
    """May a tensor of integers be a quantised weight? Else it counts or numbers something."""
    return name.endswith(("weight", "bias", "proj", "embedding"))


def _check_names(model: Clip4Str, shapes: Mapping[str, tuple[int, ...]]) -> None:
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    missing, extra = sorted(expected.keys() - shapes.keys()), sorted(shapes.keys() - expected.keys())
    wrong = [
        f"{name} is {shapes[name]}, expected {shape}"
        for name, shape in expected.items()
        if name in shapes and shapes[name] != shape
    ]
    problems = [
        *([f"{len(missing)} keys missing: {_some(missing)}"] if missing else []),
        *([f"{len(extra)} keys not of this network: {_some(extra)}"] if extra else []),
        *([f"shapes differ: {_some(wrong)}"] if wrong else []),
    ]
    if problems:
        raise CheckpointError("; ".join(problems))


def _some(names: list[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
