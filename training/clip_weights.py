"""CLIP's weights as a start: from open_clip, or files in OpenAI's, open_clip's or Hugging Face's layout.

Both towers compute as in the published code, in every size: heads of 64 features, and QuickGELU. Weights trained with
other heads (open_clip's ViT-H-14: 16 of 80) or with GELU (LAION's, DataComp's) are taken all the same, as they were
there: training adapts them.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clip4str.core.errors import CheckpointError, UsageError, first_line
from clip4str.model import Config
from clip4str.model.clip4str import Clip4Str
from clip4str.model.weight_files import Weights, open_weights

from .patches import resample_patches

OPEN_CLIP = {"base16": ("ViT-B-16", "datacomp_xl_s13b_b90k"), "base32": ("ViT-B-32", "datacomp_xl_s13b_b90k"),
             "large": ("ViT-L-14", "datacomp_xl_s13b_b90k"), "huge": ("ViT-H-14-quickgelu", "dfn5b")}  # fmt: skip
_KERNEL, _POSITIONS = "visual.conv1.weight", "visual.positional_embedding"
# Hugging Face's names of CLIPModel, and ours. Its matrices of projections are transposed.
_TOWERS = {"vision_model.": "visual.", "text_model.": ""}
_BLOCK = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
          "self_attn.out_proj": "attn.out_proj"}  # fmt: skip
_OTHERS = {
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.weight": _KERNEL,
    "vision_model.embeddings.position_embedding.weight": _POSITIONS,
    "vision_model.pre_layrnorm.weight": "visual.ln_pre.weight",
    "vision_model.pre_layrnorm.bias": "visual.ln_pre.bias",
    "vision_model.post_layernorm.weight": "visual.ln_post.weight",
    "vision_model.post_layernorm.bias": "visual.ln_post.bias",
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.weight": "ln_final.weight",
    "text_model.final_layer_norm.bias": "ln_final.bias",
    "logit_scale": "logit_scale",
}
_operators: list[Any] = []  # what declares them, which must live on


def clip_state(source: str, size: str) -> tuple[dict[str, Tensor], str]:
    """Both towers' tensors by our names (without "clip_model."), and where they are from.

    source: "clip" for open_clip's weights of a size that has some (OPEN_CLIP), "clip:NAME:TAG" for others of its, and
    "clip:FILE" or "clip:NAME:FILE" for a file. Raises UsageError, CheckpointError.
    """
    what = source.removeprefix("clip").removeprefix(":")
    name, _, tag = what.partition(":")
    file = next((path for path in (what, tag) if path and Path(path).is_file()), None)
    if file is not None:
        try:
            return file_state(open_weights(Path(file))), file
        except CheckpointError as error:
            raise type(error)(f"{file}: {error}") from None
    if not what:
        if size not in OPEN_CLIP:
            known = ", ".join(OPEN_CLIP)
            raise UsageError(f"there are no CLIP weights for size {size!r}, only for {known}; use --init random")
        name, tag = OPEN_CLIP[size]
    elif not tag:
        raise UsageError(f"--init {source}: {what} is no file; else it is clip:NAME:TAG, such as clip:ViT-B-16:openai")
    elif Path(tag).suffix in (".pt", ".bin", ".safetensors", ".pth"):
        raise UsageError(f"--init {source}: there is no file {tag}")
    return _open_clip_state(name, tag), f"{name} ({tag})"


def fill_towers(model: Clip4Str, state: dict[str, Tensor], source: str) -> None:
    """Raises UsageError where a tensor is missing, left over or of another shape. Patches may be of another shape: the
    kernel and the positions are resampled."""
    old = _patches(state, model.config)
    if old is not None:
        named = {f"clip_model.{name}": state[name] for name in (_KERNEL, _POSITIONS)}
        resample_patches(named, old, model.config)
        state = {**state, **{name.removeprefix("clip_model."): value for name, value in named.items()}}
    own = model.clip_model.state_dict()
    for name, value in own.items():
        if name not in state:
            raise UsageError(f"{source} does not fit: it has no {name}; choose --size to match")
        if state[name].shape != value.shape:
            shapes = f"{tuple(state[name].shape)}, not {tuple(value.shape)}"
            raise UsageError(f"{source} does not fit: its {name} is {shapes}; choose --size to match")
    extra = sorted(name for name in state.keys() - own.keys() if ".resblocks." in name)
    if extra:
        raise UsageError(f"{source} does not fit: it has more layers ({extra[0]}); choose --size to match")
    model.clip_model.load_state_dict({name: state[name].float() for name in own})


def file_state(weights: Weights) -> dict[str, Tensor]:
    """Of a file in any of the layouts. Raises CheckpointError."""
    names = {name.removeprefix("module."): name for name in weights.shapes if name in weights.floats}
    if any(name.startswith("vision_model.") for name in names):
        return _from_hugging_face({name: weights.read(theirs) for name, theirs in names.items()})
    # open_clip's models with a text tower of their own put "text." before its names
    names = {name.removeprefix("text."): theirs for name, theirs in names.items()}
    if _KERNEL not in names:
        hint = " (a whole CLIP4STR? then --init FILE)" if f"clip_model.{_KERNEL}" in names else ""
        raise CheckpointError(f"no CLIP of a vision transformer: it has no {_KERNEL}{hint}")
    return {name: weights.read(theirs) for name, theirs in names.items()}


def _from_hugging_face(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    state = {ours: theirs[name] for name, ours in _OTHERS.items() if name in theirs}
    for ours, name in {"visual.proj": "visual_projection.weight", "text_projection": "text_projection.weight"}.items():
        if name in theirs:
            state[ours] = theirs[name].mT
    for name, value in theirs.items():
        for tower, prefix in _TOWERS.items():
            if not name.startswith(f"{tower}encoder.layers."):
                continue
            layer, _, rest = name.removeprefix(f"{tower}encoder.layers.").partition(".")
            block = f"{prefix}transformer.resblocks.{layer}."
            part, _, kind = rest.rpartition(".")
            if part in _BLOCK:
                state[f"{block}{_BLOCK[part]}.{kind}"] = value
            elif part == "self_attn.q_proj":
                joined = [theirs.get(f"{tower}encoder.layers.{layer}.self_attn.{p}_proj.{kind}") for p in "qkv"]
                if any(each is None for each in joined):
                    raise CheckpointError(f"{name} is there without its keys or values")
                state[f"{block}attn.in_proj_{kind}"] = torch.cat(joined)  # type: ignore[arg-type]
    return state


def _patches(state: dict[str, Tensor], config: Config) -> Config | None:
    """The config of CLIP's square image and patches, None where they are the network's own."""
    if _KERNEL not in state or _POSITIONS not in state or state[_KERNEL].dim() != 4:
        return None
    rows = round((len(state[_POSITIONS]) - 1) ** 0.5)
    height, width = state[_KERNEL].shape[2:]
    old = replace(config, patch_size=(height, width), image_size=(rows * height, rows * width))
    same = old.grid == config.grid and old.patch_size == config.patch_size
    return None if same or rows < 1 or old.memory_tokens != len(state[_POSITIONS]) else old


def _open_clip_state(name: str, tag: str) -> dict[str, Tensor]:
    open_clip = import_open_clip()
    try:
        clip = open_clip.create_model(name, pretrained=tag).state_dict()
    except Exception as error:  # its own, a download's, a file's
        raise UsageError(f"open_clip could not provide {name} ({tag}): {first_line(error)}") from None
    shapes = {key: tuple(value.shape) for key, value in clip.items()}
    return file_state(Weights(shapes, {}, set(shapes), clip.__getitem__))


def import_open_clip() -> Any:
    """The package open_clip. Raises UsageError if it is missing or does not work."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        try:
            import open_clip
        except RuntimeError as error:
            if "torchvision::" not in str(error) or _operators:
                raise
            _declare_operators()
            import open_clip
    except Exception as error:  # a torchvision of another build may fail with anything
        raise UsageError(
            f"--init clip needs open_clip: pip install 'clip4str[clip]', or a file, clip:FILE ({first_line(error)})"
        ) from None
    return open_clip


def _declare_operators() -> None:
    """The index's torchvision is built for CUDA's torch and loads no operators beside a CPU's. It describes them still,
    and fails where there are none; open_clip calls none."""
    for module in [name for name in sys.modules if name.partition(".")[0] in ("torchvision", "open_clip", "timm")]:
        del sys.modules[module]
    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _operators.append(library)
