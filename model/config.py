"""Every dimension of a CLIP4STR network, read off the shapes of its state_dict."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from clip4str.core.calibration import HIGHEST, LOWEST, is_temperature
from clip4str.core.drafts import MOST_FRAMES
from clip4str.core.errors import CheckpointError
from clip4str.core.text import CHARSET_36, CHARSET_94

Shapes = Mapping[str, Sequence[int]]

ANCHOR = "clip_model.visual.conv1.weight"  # in every network
MOST_LAYERS = 256  # of a tower; the largest published one has 32


@dataclass(frozen=True)
class Config:
    """Dimensions of a network, and what else its weights do not say. Sizes in pixels, tokens or features; heads are
    width / 64 in both towers.

    image_size, patch_size: (height, width). memory: d, the width shared by both decoders and both towers' outputs.
    vocabulary: rows of the text tower's embedding. steps: T, longest word + 1. draft_frames: frames that the draft head
    has for each column of patches, 0 where there is none (as in published checkpoints), see draft.py.
    temperature: what calibrates words' confidence, see core.calibration; 1 changes nothing.
    """

    image_size: tuple[int, int] = (224, 224)
    patch_size: tuple[int, int] = (16, 16)
    image_width: int = 768
    image_layers: int = 12
    text_width: int = 512
    text_layers: int = 12
    text_positions: int = 77
    vocabulary: int = 49408
    context: int = 16
    d: int = 512
    decoder_heads: int = 8
    decoder_mlp: int = 2048
    steps: int = 26
    draft_frames: int = 0
    charset: str = CHARSET_94
    charset_test: str = CHARSET_36
    temperature: float = 1.0

    @property
    def grid(self) -> tuple[int, int]:
        return self.image_size[0] // self.patch_size[0], self.image_size[1] // self.patch_size[1]

    @property
    def draft_positions(self) -> int:
        """All frames of the draft head, 0 where there is none."""
        return self.grid[1] * self.draft_frames

    @property
    def memory_tokens(self) -> int:
        return 1 + self.grid[0] * self.grid[1]

    @property
    def image_heads(self) -> int:
        return max(1, self.image_width // 64)

    @property
    def text_heads(self) -> int:
        return max(1, self.text_width // 64)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def config_from_shapes(
    shapes: Shapes, hints: Mapping[str, Any] | None = None, image_size: tuple[int, int] | None = None
) -> Config:
    """Read the dimensions off the tensors; `hints` (hyper-parameters or metadata) fill what no tensor shows.

    No tensor shows the input's aspect ratio, the decoders' head count, the order of the charset, or how much
    of the text context is used. Without hints: 8 heads, context 16, CLIP4STR's 94 characters, and a square
    image for square patches whose count is a square number, else the height:width of 1:4 that scene text
    recognition uses (4 x 8 patches, 128 of them: 32 x 128).

    Raises CheckpointError naming the tensor whose shape does not fit.
    """
    hints = hints or {}
    _check_kind(shapes)
    patch = _shape(shapes, ANCHOR, 4)
    positions = _shape(shapes, "clip_model.visual.positional_embedding", 2)
    text = _shape(shapes, "clip_model.token_embedding.weight", 2)
    head = _shape(shapes, "visual_decoder.head.weight", 2)
    size = image_size or _pair(hints.get("image_size", hints.get("img_size")))
    charset = hints.get("charset_train", hints.get("charset", CHARSET_94))
    if min(patch) < 1:
        raise CheckpointError(f"not a CLIP4STR checkpoint: {ANCHOR} has shape {patch}")
    if len(charset) + 1 != head[0]:
        if "charset_train" in hints or "charset" in hints or len(CHARSET_94) + 1 < head[0]:
            raise CheckpointError(
                f"visual_decoder.head.weight predicts {head[0]} classes but the charset has {len(charset)} "
                f"characters and an end token; give the one it was trained with (--charset)"
            )
        charset = CHARSET_94[: head[0] - 1]
    drafting = _shape(shapes, "draft_head.weight", 2)[0] if "draft_head.weight" in shapes else 0
    config = Config(
        image_size=_image_size(positions[0] - 1, (patch[2], patch[3]), size),
        patch_size=(patch[2], patch[3]),
        image_width=patch[0],
        image_layers=_layers(shapes, "clip_model.visual.transformer.resblocks"),
        text_width=text[1],
        text_layers=_layers(shapes, "clip_model.transformer.resblocks"),
        text_positions=_shape(shapes, "clip_model.positional_embedding", 2)[0],
        vocabulary=text[0],
        context=int(hints.get("context_length", hints.get("context", 16))),
        d=head[1],
        decoder_heads=int(hints.get("dec_num_heads", hints.get("decoder_heads", 8))),
        decoder_mlp=_shape(shapes, "visual_decoder.layers.0.linear1.weight", 2)[0],
        steps=_shape(shapes, "visual_decoder.pos_queries", 3)[1],
        draft_frames=drafting // max(1, head[0]),
        charset=charset,
        charset_test=hints.get("charset_test", _default_test(charset)),
        temperature=hints.get("temperature", 1.0),
    )
    check_config(config)
    return config


def _check_kind(shapes: Shapes) -> None:
    """Raises CheckpointError for relatives of CLIP4STR that are not supported, saying what they are."""
    if ANCHOR not in shapes and any(name.endswith("visual.conv1.weight") for name in shapes):
        raise CheckpointError(
            "base CLIP weights, not a CLIP4STR checkpoint: training starts from them, clip4str train --init clip:FILE"
        )
    if ANCHOR in shapes and not any(name.startswith("cross_decoder.") for name in shapes):
        raise CheckpointError("it has no cross-modal decoder (trained with use_language_model=False?): not supported")
    widths = {}
    for decoder in ("visual_decoder", "cross_decoder"):
        layers = {name.split(".")[2] for name in shapes if name.startswith(f"{decoder}.layers.")}
        if len(layers) > 1:
            raise CheckpointError(
                f"its {decoder} has {len(layers)} layers; one is supported, as in all published networks"
            )
        widths[decoder] = shapes.get(f"{decoder}.head.weight", (0, 0))[-1]
    projected = shapes.get("clip_model.text_projection", (0, widths["visual_decoder"]))[-1]
    if len({*widths.values(), projected}) > 1:
        raise CheckpointError(
            f"its decoders are {widths['visual_decoder']} and {widths['cross_decoder']} wide and its towers' features "
            f"{projected} (trained with use_share_dim=False?); only one width for all is supported"
        )


def check_config(c: Config) -> None:
    """Raises CheckpointError for what no network can have."""
    if not is_temperature(c.temperature):
        raise CheckpointError(f"temperature is {c.temperature!r}, expected {LOWEST:g} to {HIGHEST:g}")
    sizes = {k: v for k, v in c.to_dict().items() if isinstance(v, int)}
    small = [name for name, value in sizes.items() if value < (name != "draft_frames")]
    if small or min(c.image_size) < 1:
        raise CheckpointError(f"{', '.join(small) or 'image_size'} must be at least 1")
    if c.draft_positions > MOST_FRAMES:
        raise CheckpointError(f"a draft head of {c.draft_positions} frames; {MOST_FRAMES} at most")
    if not 2 <= c.context <= c.text_positions:
        raise CheckpointError(f"a text context of {c.context} does not fit {c.text_positions} text positions")
    widths = {"decoder": (c.d, c.decoder_heads), "image": (c.image_width, c.image_heads)}
    for what, (width, heads) in {**widths, "text": (c.text_width, c.text_heads)}.items():
        if width % heads:
            raise CheckpointError(f"the {what} width {width} is not a multiple of its {heads} heads")


def _default_test(charset: str) -> str:
    known = set(charset.lower())
    return "".join(c for c in CHARSET_36 if c in known) or charset


def _shape(shapes: Shapes, name: str, rank: int) -> tuple[int, ...]:
    shape = tuple(shapes.get(name, ()))
    if len(shape) != rank:
        what = f"has shape {shape}, expected {rank} dimensions" if shape else "is missing"
        raise CheckpointError(f"not a CLIP4STR checkpoint: {name} {what}")
    return shape


def _layers(shapes: Shapes, prefix: str) -> int:
    numbers = {int(m.group(1)) for k in shapes if (m := re.match(re.escape(prefix) + r"\.(\d+)\.", k))}
    if numbers != set(range(len(numbers))) or not 0 < len(numbers) <= MOST_LAYERS:
        shown = sorted(numbers)[:MOST_LAYERS] if len(numbers) <= 64 else f"{len(numbers)}, {MOST_LAYERS} at most"
        raise CheckpointError(f"not a CLIP4STR checkpoint: layers of {prefix} are {shown}")
    return len(numbers)


def _pair(value: Any) -> tuple[int, int] | None:
    if value is None:
        return None
    height, width = (value, value) if isinstance(value, int) else value
    return int(height), int(width)


def _image_size(patches: int, patch: tuple[int, int], given: tuple[int, int] | None) -> tuple[int, int]:
    if given:
        if (given[0] // patch[0]) * (given[1] // patch[1]) != patches:
            raise CheckpointError(
                f"image size {given[0]}x{given[1]} has {given[0] // patch[0]}x{given[1] // patch[1]} patches of "
                f"{patch[0]}x{patch[1]}, but the positional embedding has {patches}"
            )
        return given
    square = math.isqrt(patches)
    if patch[0] == patch[1] and square * square == patches:
        return patch[0] * square, patch[1] * square
    rows = math.isqrt(patches * patch[1] // (4 * patch[0]))
    if rows and patches == rows * (4 * patch[0] * rows // patch[1]):
        return patch[0] * rows, patch[1] * (patches // rows)
    raise CheckpointError(
        f"cannot tell the input size from {patches} patches of {patch[0]}x{patch[1]}; give it (--image-size HxW)"
    )
