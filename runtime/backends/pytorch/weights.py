"""The network packed for the fused path: what can be multiplied out beforehand is, then all is rounded once.

    Linear(LayerNorm(x)) = W' n(x) + c'   with W' = W * g (by columns) and c' = c + W b
    keys, values = (LayerNorm(x) @ P) Wkv^T + ckv = W' n(x) + c'   with W' = (Wkv P^T) * g, one matrix for all decoders

where n normalises rows and g, b are the LayerNorm's. Arithmetic is in float64, a matrix at a time; a source lets go of
each tensor that has been packed, so a network in float32 is never held twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from clip4str.core.errors import BackendError, BundleError, CheckpointError, first_line
from clip4str.kernels.decode_pass import DecoderWeights, pack_decoder
from clip4str.model.clip4str import Clip4Str
from clip4str.model.config import Config, config_from_shapes
from clip4str.model.network import Decoder, Network

from ...bundle import WEIGHTS, Bundle
from .graphs import is_out_of_memory


@dataclass(frozen=True)
class Affine:
    """A linear layer's weight (F, K) and bias (F,) or None."""

    weight: Tensor
    bias: Tensor | None


@dataclass(frozen=True)
class Block:
    """One residual block of a tower; its LayerNorms are folded into `qkv` and `up`.

    carried: two (width,) float32, what a residual stream lacks before `qkv` and before `up` that gets no biases of
    `out` and `down`: their sum so far.
    """

    qkv: Affine
    out: Affine
    up: Affine
    down: Affine
    carried: tuple[Tensor, Tensor]


@dataclass(frozen=True)
class DraftWeights:
    """The draft head behind ln_post and proj, which are folded into it. head (frames per column x C, rows x width):
    the rows of patches that a column of the grid has side by side."""

    head: Affine
    grid: tuple[int, int]
    classes: int


@dataclass(frozen=True)
class ImageWeights:
    """patch (width, 3 x patch area). positions (M, width), the class token added to the first row. draft: None where
    the network has no draft head. carried: as Block's, after the last."""

    patch: Affine
    positions: Tensor
    norm: Affine  # ln_pre: its output is the residual stream, so it cannot be folded
    blocks: tuple[Block, ...]
    carried: Tensor
    key_value: Affine  # (2 d or 4 d, width): keys and values of the visual, then of the cross-modal decoder
    draft: DraftWeights | None
    heads: int


@dataclass(frozen=True)
class TextWeights:
    embedding: Tensor  # (vocabulary, width)
    positions: Tensor  # (context, width)
    blocks: tuple[Block, ...]
    carried: Tensor
    key_value: Affine  # (2 d, width): keys and values of the cross-modal decoder
    heads: int


@dataclass(frozen=True)
class Weights:
    """A packed network on one device. text and cross are None where only the visual branch was asked for."""

    config: Config
    image: ImageWeights
    visual: DecoderWeights
    text: TextWeights | None
    cross: DecoderWeights | None
    dtype: torch.dtype
    device: torch.device

    @property
    def decoders(self) -> int:
        return 1 if self.cross is None else 2


@dataclass(frozen=True)
class Source:
    """Where weights come from. take(name) gives a tensor of the published name; it is taken only once."""

    config: Config
    take: Callable[[str], Tensor]
    name: str


def source_of_model(model: Clip4Str, name: str) -> Source:
    """A loaded network's tensors. The caller must not keep the model if its memory matters."""
    return Source(model.config, dict(model.state_dict()).pop, name)


def source_of_bundle(bundle: Bundle) -> Source:
    """The tensors of a bundle's weights file, read one by one. Raises BundleError if they are not its network's."""
    from safetensors import SafetensorError, safe_open

    path, manifest = bundle.path(WEIGHTS), bundle.manifest
    bundle.check(path.name)
    try:
        file = safe_open(path, framework="pt")
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        hints = {key: manifest.config.get(key) for key in ("context", "decoder_heads")}
        config = config_from_shapes(shapes, {**hints, "charset": manifest.charset}, manifest.image_size)
    except (SafetensorError, CheckpointError, OSError, TypeError, ValueError) as error:
        raise BundleError(f"{path}: not the weights of this bundle ({first_line(error)})") from None
    _check_shapes(path, config, shapes)
    for key, value in config.to_dict().items():
        meant = {"draft_frames": 0, **manifest.config}.get(key)  # which older manifests do not name
        if key not in ("charset_test", "temperature") and _plain(meant) != _plain(value):
            raise BundleError(f"{path}: its {key} is {_plain(value)}, the manifest means {_plain(meant)}")
    return Source(config, file.get_tensor, str(path))


@torch.no_grad()
def pack(source: Source, dtype: torch.dtype, device: torch.device, visual_only: bool = False) -> Weights:
    """Weights in `dtype` on `device`.

    Raises BackendError if a weight does not fit the dtype or memory runs out, ShapeError for a decoder larger than
    the kernels take.
    """
    packer = _Packer(source, dtype, device)
    try:
        visual, visual_kv = packer.decoder("visual_decoder")
        cross, cross_kv = (None, None) if visual_only else packer.decoder("cross_decoder")
        image = packer.image([kv for kv in (visual_kv, cross_kv) if kv is not None])
        text = None if cross_kv is None else packer.text(cross_kv)
    except RuntimeError as error:
        what = f"do not fit the memory of {device}" if is_out_of_memory(error) else f"cannot be packed on {device}"
        raise BackendError(f"{source.name}: its weights {what} ({first_line(error)})") from None
    return Weights(source.config, image, visual, text, cross, dtype, device)


class _Packer:
    def __init__(self, source: Source, dtype: torch.dtype, device: torch.device) -> None:
        self.source, self.config, self.dtype, self.device = source, source.config, dtype, device

    def take(self, name: str) -> Tensor:
        return self.source.take(name).detach()

    def place(self, tensor: Tensor) -> Tensor:
        """Rounded, on the device. What overflows the dtype is an error here rather than scrambled words later."""
        rounded = tensor.to(self.dtype)
        if not torch.isfinite(rounded).all():
            name = str(self.dtype).removeprefix("torch.")
            raise BackendError(f"{self.source.name}: weights overflow {name}; load with dtype='bfloat16' or 'float32'")
        placed = rounded.to(self.device).contiguous()
        # One tensor that still is the source's would keep all of its memory, or its mapped file, alive.
        return placed.clone() if placed.data_ptr() == tensor.data_ptr() else placed

    def affine(self, weight: Tensor, bias: Tensor | None) -> Affine:
        return Affine(self.place(weight), None if bias is None else self.place(bias))

    def norm(self, name: str) -> tuple[Tensor, Tensor]:
        """A LayerNorm's gain and shift."""
        return self.take(f"{name}.weight").double(), self.take(f"{name}.bias").double()

    def folded(self, norm: tuple[Tensor, Tensor], weight: Tensor, bias: Tensor | None) -> Affine:
        """A LayerNorm and the linear layer behind it."""
        (gain, shift), exact = norm, weight.double()
        moved = exact @ shift
        return self.affine(exact * gain, moved if bias is None else bias.double() + moved)

    def blocks(self, name: str, count: int, width: int) -> tuple[tuple[Block, ...], Tensor]:
        """And the sum of all biases that were added to the residual stream."""
        found, carried = [], torch.zeros(width, device=self.device)
        for i in range(count):
            block = self.block(f"{name}.resblocks.{i}", carried)
            assert block.down.bias is not None
            found.append(block)
            carried = block.carried[1] + block.down.bias.float()
        return tuple(found), carried

    def block(self, name: str, carried: Tensor) -> Block:
        def pair(part: str, separator: str = ".") -> tuple[Tensor, Tensor]:
            return self.take(f"{name}.{part}{separator}weight"), self.take(f"{name}.{part}{separator}bias")

        qkv, out = (
            self.folded(self.norm(f"{name}.ln_1"), *pair("attn.in_proj", "_")),
            self.affine(*pair("attn.out_proj")),
        )
        assert out.bias is not None
        return Block(
            qkv=qkv,
            out=out,
            up=self.folded(self.norm(f"{name}.ln_2"), *pair("mlp.c_fc")),
            down=self.affine(*pair("mlp.c_proj")),
            carried=(carried, carried + out.bias.float()),
        )

    def decoder(self, name: str) -> tuple[DecoderWeights, Affine]:
        """A decoder without its K/V projection, and that projection in float32: weight (2 d, d), bias (2 d,)."""
        with torch.device("meta"):
            decoder = Decoder(self.config, 0.0)
        state = {key: self.take(f"{name}.{key}").float() for key in decoder.state_dict()}
        decoder.load_state_dict(state, assign=True)
        attention, d = decoder.layer.cross_attn, self.config.d
        key_value = Affine(attention.in_proj_weight[d:].clone(), attention.in_proj_bias[d:].clone())
        return pack_decoder(decoder.eval(), self.dtype, self.device), key_value

    def image(self, key_values: list[Affine]) -> ImageWeights:
        name, width = "clip_model.visual", self.config.image_width
        positions = self.take(f"{name}.positional_embedding").double()
        positions[0] += self.take(f"{name}.class_embedding").double()
        end = self.norm(f"{name}.ln_post"), self.take(f"{name}.proj").double()
        blocks, carried = self.blocks(f"{name}.transformer", self.config.image_layers, width)
        return ImageWeights(
            patch=self.affine(self.take(f"{name}.conv1.weight").reshape(width, -1), None),
            positions=self.place(positions),
            norm=self.affine(self.take(f"{name}.ln_pre.weight"), self.take(f"{name}.ln_pre.bias")),
            blocks=blocks,
            carried=carried,
            key_value=self.memory(*end, key_values),
            draft=self.draft(*end) if self.config.draft_frames else None,
            heads=self.config.image_heads,
        )

    def text(self, key_value: Affine) -> TextWeights:
        name = "clip_model"
        blocks, carried = self.blocks(f"{name}.transformer", self.config.text_layers, self.config.text_width)
        return TextWeights(
            embedding=self.place(self.take(f"{name}.token_embedding.weight")),
            positions=self.place(self.take(f"{name}.positional_embedding")[: self.config.context]),
            blocks=blocks,
            carried=carried,
            key_value=self.memory(
                self.norm(f"{name}.ln_final"), self.take(f"{name}.text_projection").double(), [key_value]
            ),
            heads=self.config.text_heads,
        )

    def memory(self, norm: tuple[Tensor, Tensor], projection: Tensor, key_values: list[Affine]) -> Affine:
        """A tower's last LayerNorm, its projection (width, d), and the decoders' K/V projections behind it."""
        weight = torch.cat([kv.weight for kv in key_values]).double() @ projection.T
        bias = torch.cat([kv.bias for kv in key_values if kv.bias is not None])
        return self.folded(norm, weight, bias)

    def draft(self, norm: tuple[Tensor, Tensor], projection: Tensor) -> DraftWeights:
        """The same with the draft head behind it: every row of patches has a part of its weight."""
        rows, classes = self.config.grid[0], len(self.config.charset) + 1
        weight = self.take("draft_head.weight").double().unflatten(1, (rows, -1)) @ projection.T  # [F C, rows, width]
        tiled = norm[0].repeat(rows), norm[1].repeat(rows)
        return DraftWeights(
            self.folded(tiled, weight.flatten(1), self.take("draft_head.bias")), self.config.grid, classes
        )


def _check_shapes(path: Path, config: Config, shapes: Mapping[str, tuple[int, ...]]) -> None:
    with torch.device("meta"):
        wanted = {name: tuple(tensor.shape) for name, tensor in Network(config).state_dict().items()}
    for name in sorted(wanted.keys() | shapes.keys()):
        if wanted.get(name) != shapes.get(name):
            found, meant = (s.get(name, "nothing") for s in (shapes, wanted))
            raise BundleError(f"{path}: {name} is {found}, expected {meant}; rebuild the bundle with --torch")


def _plain(value: object) -> object:
    return list(value) if isinstance(value, (list, tuple)) else value
