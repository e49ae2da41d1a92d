"""Files of weights, of torch and of safetensors: what is in them, and its numbers one tensor at a time."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clip4str.core.errors import CheckpointError, first_line

from .hyper_parameters import HOLDERS, mapping
from .pickles import Foreign
from .torch_files import Stored, TorchFile

METADATA = "clip4str"  # the key of safetensors metadata that holds a Config as JSON
_FLOATS = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.float64: "F64"}
_FIRST = "visual.conv1.weight"  # of CLIP's towers, and so of every network here
# What a state_dict lies under in files that hold more, the likeliest first.
_UNDER = ("state_dict", "model_state_dict", "model", "net", "network", "model_state", "module", "weights", "params",
          "state_dict_ema", "model_ema", "ema")  # fmt: skip
_NO_PLAIN_TENSOR = ("torch._utils.", "torch._tensor.", "torch.Tensor", "numpy.")


@dataclass
class Weights:
    """What a file holds: tensors by name, their shapes, types as the file calls them, which are plain floats, and how
    to read one. said: hyper-parameters, or metadata. ours: of the metadata, what only this package writes."""

    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, str]
    floats: set[str]
    read: Callable[[str], Tensor]
    said: Any = None
    ours: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def open_weights(path: Path) -> Weights:
    """The tensors of a file of any kind, none of them read yet. Raises CheckpointError, UnsafeCheckpointError."""
    begin = magic(path)
    if begin[8:9] == b"{":
        weights = _open_safetensors(path)
    elif begin[:4] == b"PK\x03\x04" or begin[:1] == b"\x80":
        weights = _open_torch(path)
    else:
        raise CheckpointError(
            f"neither a torch nor a safetensors file (starts with {begin[:4]!r}); is the download complete?"
        )
    empty = next((name for name, shape in weights.shapes.items() if name in weights.floats and 0 in shape), None)
    if empty is not None:
        raise CheckpointError(f"{empty} has shape {weights.shapes[empty]}: no numbers")
    return weights


def magic(path: Path) -> bytes:
    """The first ten bytes. Raises CheckpointError if there are none."""
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise CheckpointError(f"{what}; a checkpoint is a .ckpt, .pt or .safetensors file")
    with path.open("rb") as file:
        begin = file.read(10)
    if not begin:
        raise CheckpointError("the file is empty")
    return begin


def said_of(metadata: Mapping[str, str]) -> dict[str, Any]:
    """What a safetensors file says of the network. Raises ValueError, RecursionError for what is no JSON."""
    said = json.loads(metadata.get(METADATA, "{}"))
    return said if isinstance(said, dict) else {}


def _open_safetensors(path: Path) -> Weights:
    from safetensors import SafetensorError, safe_open

    try:
        file = safe_open(path, framework="pt")
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        said = said_of(file.metadata() or {})
    except (SafetensorError, ValueError, RecursionError) as error:
        raise CheckpointError(f"truncated or damaged safetensors file ({first_line(error, 200)})") from None
    except (OSError, MemoryError, RuntimeError) as error:  # torch's, where there is no room to map it
        raise CheckpointError(f"cannot be opened ({first_line(error, 200)})") from None
    dtypes = {name: piece.get_dtype() for name, piece in slices.items()}
    temperature = said.get("temperature")  # of ours alone: others' hyper-parameters may mean another one by it
    return Weights(
        shapes={name: tuple(piece.get_shape()) for name, piece in slices.items()},
        dtypes=dtypes,
        floats={name for name, dtype in dtypes.items() if dtype in _FLOATS.values()},
        read=file.get_tensor,
        said=said,
        ours={"temperature": temperature} if isinstance(temperature, (int, float)) else {},
    )


def _open_torch(path: Path) -> Weights:
    file = TorchFile(path)
    top = mapping(file.value)
    if not top or "_parameters" in top:
        what = file.value.name if isinstance(file.value, Foreign) else type(file.value).__name__
        raise CheckpointError(f"holds a {what}, not a state_dict; torch.save(model.state_dict(), FILE) writes one")
    notes: list[str] = []
    tensors = _state_dict(top, notes)
    if sum(math.prod(each.shape) * each.dtype.itemsize for each in tensors.values()) > 2 * path.stat().st_size:
        raise CheckpointError("claims more numbers than it holds")  # tensors that share them
    return Weights(
        shapes={name: stored.shape for name, stored in tensors.items()},
        dtypes={name: str(stored.dtype).removeprefix("torch.") for name, stored in tensors.items()},
        floats={name for name, stored in tensors.items() if stored.dtype in _FLOATS},
        read=lambda name: file.tensor(tensors[name]),
        said={name: top[name] for name in HOLDERS if name in top},
        notes=notes,
    )


def _state_dict(top: Mapping[Any, Any], notes: list[str]) -> dict[str, Stored]:
    """The one in a file: alone, or beside others under a usual name."""
    places = {"": top, **{name: found for name in _UNDER if (found := mapping(top.get(name))) is not None}}
    tensors = {
        place: {name: value for name, value in found.items() if isinstance(name, str) and isinstance(value, Stored)}
        for place, found in places.items()
    }
    holding = [place for place, found in tensors.items() if any(name.endswith(_FIRST) for name in found)]
    chosen = holding[0] if holding else max(tensors, key=lambda place: len(tensors[place]))
    if len(holding) > 1:
        names = ", ".join(place or "the top" for place in holding)
        notes.append(f"it holds {len(holding)} networks, under {names}: that under {chosen or 'the top'} is taken")
    whole = next((name for name in _UNDER if "_parameters" in places.get(name, ())), None)
    if not tensors[chosen] and whole is not None:
        raise CheckpointError(f"its {whole} is a whole {top[whole].name}, where its state_dict() should be")
    for place in (chosen,) if tensors[chosen] else places:
        for name, value in places[place].items():
            if isinstance(value, Foreign) and value.name.startswith(_NO_PLAIN_TENSOR):
                raise CheckpointError(f"{name} is a {value.name}; expected plain float weights")
    if not tensors[chosen]:
        raise CheckpointError("its state_dict holds no tensors")
    return tensors[chosen]
