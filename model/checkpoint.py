"""Checkpoints: every published form in, safetensors out. Nothing in a checkpoint is ever executed."""

from __future__ import annotations

import json
import os
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clip4str.core.atomic_files import replaced
from clip4str.core.calibration import HIGHEST, LOWEST, is_temperature
from clip4str.core.errors import CheckpointError, UnsafeCheckpointError, first_line
from clip4str.core.packaged import PACKAGED
from clip4str.core.reading import Decoding
from clip4str.core.safetensors_metadata import read_metadata, write_metadata

from .clip4str import Clip4Str
from .config import config_from_shapes

BUNDLED = PACKAGED / "weights.safetensors"
# Published checkpoints hold objects of these beside the weights (hyper-parameters, the schedule). They are read as
# inert stand-ins: whatever is not listed is refused.
_INERT = ("omegaconf.", "pytorch_lightning.", "lightning.", "hydra.", "strhub.", "torch.optim.")
_HARMLESS = {
    "typing.Any", "builtins.dict", "builtins.list", "builtins.int", "builtins.float", "builtins.str",
    "builtins.getattr", "collections.defaultdict", "argparse.Namespace", "numpy.dtype",
    "numpy._core.multiarray.scalar", "numpy.core.multiarray.scalar",
    "pathlib.PosixPath", "pathlib.Path", "pathlib.PurePosixPath",
}  # fmt: skip
_METADATA = "clip4str"  # the key of safetensors metadata that holds a Config as JSON
_PREFIXES = ("module.", "model.", "_orig_mod.")


def load_checkpoint(
    path: str | os.PathLike[str],
    image_size: tuple[int, int] | None = None,
    charset: str | None = None,
    charset_test: str | None = None,
    decoding: Decoding | None = None,
) -> Clip4Str:
    """Read a checkpoint: Lightning `.ckpt`, a bare state_dict `.pt`, or `.safetensors`. Float32, on the CPU, eval mode.

    Every dimension is read off the tensors. image_size (height, width) and charset are needed only where neither
    tensors nor the checkpoint's own hyper-parameters tell them, see config_from_shapes.

    Raises CheckpointError (unreadable, foreign, keys missing or left over: they are listed), UnsafeCheckpointError
    (it asks to run code), CharsetError (charset that does not fit).
    """
    path = Path(path)
    state, hints = _read(path)
    if charset is not None:
        hints = {**hints, "charset_train": charset}
    if charset_test is not None:
        hints = {**hints, "charset_test": charset_test}
    state = _strip_prefix(state)
    try:
        config = config_from_shapes({k: tuple(v.shape) for k, v in state.items()}, hints, image_size)
        with torch.device("meta"):
            model = Clip4Str(config, decoding)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    _check_keys(path, model, state)
    model.load_state_dict({k: v.float() for k, v in state.items()}, assign=True)
    return model.eval().requires_grad_(False)


def save_checkpoint(model: Clip4Str, path: str | os.PathLike[str], dtype: torch.dtype = torch.float32) -> None:
    """Write safetensors with the configuration as metadata; whole or not at all."""
    from safetensors.torch import save_file

    tensors = {k: v.detach().to("cpu", dtype).contiguous() for k, v in model.state_dict().items()}
    with replaced(Path(path)) as temporary:
        save_file(tensors, temporary, metadata={_METADATA: json.dumps(model.config.to_dict())})


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
        said = _said(read_metadata(path))
        write_metadata(path, path, {_METADATA: json.dumps({**said, "temperature": temperature})})
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be written ({_reason(error)})") from None


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    magic = _magic(path)
    if is_safetensors(path):
        tensors, said = _read_safetensors(path)
        temperature = said.get("temperature")  # of ours alone: others' hyper-parameters may mean another one by it
        given = {"temperature": temperature} if isinstance(temperature, (int, float)) else {}
        return tensors, {**_plain(said), **given}
    if magic[:4] == b"PK\x03\x04" or magic[:1] == b"\x80":
        return _read_torch(path)
    raise CheckpointError(
        f"{path}: neither a torch nor a safetensors file (starts with {magic[:4]!r}); is the download complete?"
    )


def _magic(path: Path) -> bytes:
    """The first ten bytes. Raises CheckpointError if there are none."""
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise CheckpointError(f"{path}: {what}; a checkpoint is a .ckpt, .pt or .safetensors file")
    with path.open("rb") as file:
        magic = file.read(10)
    if not magic:
        raise CheckpointError(f"{path}: the file is empty")
    return magic


def is_safetensors(path: Path) -> bool:
    return _magic(path)[8:9] == b"{"


def _said(metadata: Mapping[str, str]) -> dict[str, Any]:
    """What a file says of the network. Raises ValueError, RecursionError for what is no JSON."""
    said = json.loads(metadata.get(_METADATA, "{}"))
    return said if isinstance(said, dict) else {}


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors, and what the file says of the network."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, _said(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: truncated or damaged safetensors file ({_reason(error)})") from None


class _Inert:
    """Takes the place of a class whose code must not run: swallows whatever the pickle builds it from."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args = args

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        """Items of what would have been a dict."""

    def append(self, item: Any) -> None:
        """Items of what would have been a list."""

    def extend(self, items: Any) -> None:
        """Likewise."""


def _stand_ins(path: Path) -> list[Any]:
    """Inert classes for the harmless foreign names in the pickle; anything else is refused."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
    except Exception:
        names = []  # not the zip format; torch.load says what is wrong
    refused = sorted(n for n in names if not n.startswith(_INERT) and n not in _HARMLESS)
    if refused:
        raise UnsafeCheckpointError(
            f"{path}: refused, reading it would run {', '.join(refused[:5])}; convert it to .safetensors where it "
            f"was made, or get it from a source you trust"
        )
    return [(type(n.rpartition(".")[2], (_Inert,), {"__module__": n.rpartition(".")[0]}), n) for n in names]


def _read_torch(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        _check_archive(path)
        with torch.serialization.safe_globals(_stand_ins(path)), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's remarks on pickle protocols
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except pickle.UnpicklingError as error:
        reason = _reason(error)
        if "GLOBAL" in reason or "nsupported" in reason:
            raise UnsafeCheckpointError(f"{path}: refused, reading it would run code ({reason})") from None
        raise CheckpointError(f"{path}: truncated or damaged ({reason})") from None
    except Exception as error:  # torch raises many kinds for damaged archives
        raise CheckpointError(f"{path}: truncated or damaged ({_reason(error)})") from None
    hints: dict[str, Any] = {}
    if isinstance(loaded, Mapping):
        hints = _plain(loaded.get("hyper_parameters", {}))
        loaded = loaded.get("state_dict", loaded)
    if not isinstance(loaded, Mapping) or not loaded:
        raise CheckpointError(f"{path}: holds a {type(loaded).__name__}, not a state_dict")
    state = {k: v for k, v in loaded.items() if isinstance(k, str) and isinstance(v, Tensor)}
    if not state:
        raise CheckpointError(f"{path}: its state_dict holds no tensors")
    odd = next((k for k, v in state.items() if v.layout != torch.strided or not v.is_floating_point()), None)
    if odd is not None:
        raise CheckpointError(f"{path}: {odd} is {state[odd].dtype}, {state[odd].layout}; expected plain float weights")
    if sum(v.nbytes for v in state.values()) > 2 * path.stat().st_size:  # views that repeat a few numbers
        raise CheckpointError(f"{path}: claims more numbers than it holds")
    return state, hints


def _check_archive(path: Path) -> None:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any("/code/" in name for name in archive.namelist()):
                raise CheckpointError(f"{path}: a TorchScript archive (base CLIP weights?), not a CLIP4STR checkpoint")
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise CheckpointError(f"{path}: a compressed archive; torch writes none, so it was not read")


def _plain(hyper_parameters: Any) -> dict[str, Any]:
    """The hints that are plain values of the kind expected; stand-ins and surprises are left out."""
    kinds = {
        "charset_train": str, "charset_test": str, "context_length": int, "dec_num_heads": int,
        "charset": str, "context": int, "decoder_heads": int,
    }  # fmt: skip
    values = hyper_parameters if isinstance(hyper_parameters, Mapping) else {}
    plain: dict[str, Any] = {k: values[k] for k, kind in kinds.items() if type(values.get(k)) is kind}
    for name in ("img_size", "image_size"):
        size = values.get(name)
        if isinstance(size, (list, tuple)) and len(size) == 2 and all(type(s) is int for s in size):
            plain[name] = tuple(size)
    return plain


def _strip_prefix(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Wrappers (DDP, torch.compile, another LightningModule) put their name before every key."""
    while (prefix := next((p for p in _PREFIXES if all(k.startswith(p) for k in state)), None)) is not None:
        state = {k[len(prefix) :]: v for k, v in state.items()}
    return state


def _check_keys(path: Path, model: Clip4Str, state: Mapping[str, Tensor]) -> None:
    expected = {k: tuple(v.shape) for k, v in model.state_dict().items()}
    missing, extra = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    wrong = [
        f"{k} is {tuple(state[k].shape)}, expected {shape}"
        for k, shape in expected.items()
        if k in state and tuple(state[k].shape) != shape
    ]
    problems = [
        *([f"{len(missing)} keys missing: {_some(missing)}"] if missing else []),
        *([f"{len(extra)} keys not of this network: {_some(extra)}"] if extra else []),
        *([f"shapes differ: {_some(wrong)}"] if wrong else []),
    ]
    if problems:
        raise CheckpointError(f"{path}: " + "; ".join(problems))


def _some(names: list[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _reason(error: BaseException) -> str:
    """The line of a library's error that says what is wrong: torch wraps it in advice on unpickling."""
    text = str(error).replace("WeightsUnpickler error:", "\n")
    advice = ("Weights only load failed", "Please file an issue", "Check the documentation")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith(advice)]
    return first_line("\n".join(lines), 200) or type(error).__name__
