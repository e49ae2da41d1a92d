"""manifest.json: what it may say, and what it may make a reader do.

It is data from strangers: every name must stay inside the folder, every size is bounded.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from clip4str.core.calibration import HIGHEST, LOWEST, is_temperature
from clip4str.core.drafts import MOST_FRAMES
from clip4str.core.errors import BundleError, first_line

from .images import NORMALIZATION

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
STAGES = ("image", "visual", "text", "cross")
WEIGHTS = "weights"  # further stages that bundles may have: the network's tensors, for the torch backend
KERNELS = "kernels"  # and the decoders packed for the compiled kernels, for the TensorRT backend
PRECISIONS = ("fp32", "fp16", "int8", "fp8")
EIGHT_BITS = ("int8", "fp8")
LEAST_CAPABILITY = {"fp8": (8, 9)}  # of GPUs that have it; the other precisions run on all that TensorRT knows
# What a manifest may make us read, hold and print: generous for any network of this kind, small for a machine.
MOST_MANIFEST_BYTES = 1_000_000
MOST_NESTED = 16
MOST_DIGITS = 24
MOST_FILES = 64
MOST_FILE_BYTES = 16 << 30
MOST_NAME_BYTES = 255
_MOST_CHARSET = 10_000
_BOUNDS = {
    "image_height": 4096, "image_width": 4096, "steps": 256, "context": 77, "vocabulary": 49408, "max_batch": 4096,
    "patch_height": 4096, "patch_width": 4096, "d": 65536, "decoder_heads": 1024,
}  # fmt: skip


@dataclass(frozen=True)
class Manifest:
    """What a bundle says of itself.

    config: the network's dimensions and temperature (model.Config as a dict). normalization: "half" (mean = std = 0.5)
    or "clip". files: name -> {"sha256": hex, "bytes": int}. stages: stage -> file name. parity: figures of the build's
    gate. built_by: versions of what wrote it. checkpoint: {"name", "sha256"} of the weights it came from.
    quantization: how an eight-bit bundle is quantised, and what its accuracy gate measured. engines: TensorRT's, where
    there are any: their files, and what they were built with and for. key: of all that the stage files depend on.
    """

    name: str
    config: dict[str, Any]
    charset: str
    charset_test: str
    normalization: str
    precision: str
    max_batch: int
    files: dict[str, dict[str, Any]]
    stages: dict[str, str]
    checkpoint: dict[str, Any] = field(default_factory=dict)
    built_by: dict[str, str] = field(default_factory=dict)
    parity: dict[str, Any] = field(default_factory=dict)
    quantization: dict[str, Any] = field(default_factory=dict)
    engines: dict[str, Any] = field(default_factory=dict)
    key: str = ""
    format_version: int = FORMAT_VERSION

    @property
    def image_size(self) -> tuple[int, int]:
        height, width = self.config["image_size"]
        return height, width

    @property
    def temperature(self) -> float:
        """What calibrates confidence, see core.calibration; 1 where the bundle says nothing of it."""
        return self.config.get("temperature", 1.0)

    @property
    def draft_positions(self) -> int:
        """Frames of the draft head, 0 where the network has none."""
        return int(self.config.get("draft_frames", 0)) * (self.image_size[1] // self.config["patch_size"][1])

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1, ensure_ascii=True) + "\n"


def why_too_old(precision: str, capability: Sequence[int]) -> str:
    """Why a GPU of this compute capability cannot run engines of a precision, "" if it can."""
    least = LEAST_CAPABILITY.get(precision, (0, 0))
    if tuple(capability) >= least:
        return ""
    here, wanted = (".".join(map(str, numbers)) for numbers in (capability, least))
    return (
        f"{precision} is for GPUs of compute capability {wanted} and newer (Ada, Hopper, Blackwell, Thor), not {here}; "
        "build the checkpoint with --int8 or --fp16"
    )


OUTPUTS = {
    "image": ("visual_kv", "cross_kv", "draft"),
    "visual": ("ids", "probs", "logits"),
    "text": ("text_kv",),
    "cross": ("ids", "probs", "logits"),
}


def stage_shapes(manifest: Manifest) -> dict[str, dict[str, tuple[int | str, ...]]]:
    """Every stage's inputs and OUTPUTS by name, with their shapes: N images, T positions, S content positions."""
    c, (height, width) = manifest.config, manifest.image_size
    memory = 1 + (height // c["patch_size"][0]) * (width // c["patch_size"][1])
    kv, text_kv = (
        ("N", 2, c["decoder_heads"], length, c["d"] // c["decoder_heads"]) for length in (memory, c["context"])
    )
    step: dict[str, tuple[int | str, ...]] = {
        "tokens": ("N", "S"),
        "attend": ("N", "T", "S"),
        "ids": ("N", "T"),
        "probs": ("N", "T"),
        "logits": ("N", "T", len(manifest.charset) + 1),
    }
    draft: dict[str, tuple[int | str, ...]] = {"draft": ("N", manifest.draft_positions)}
    return {
        "image": {
            "pixels": ("N", 3, height, width),
            "visual_kv": kv,
            "cross_kv": kv,
            **(draft if manifest.draft_positions else {}),
        },
        "visual": {**step, "visual_kv": kv},
        "text": {"bpe": ("N", c["context"]), "text_kv": text_kv},
        "cross": {**step, "cross_kv": kv, "text_kv": text_kv},
    }


def parse_manifest(text: bytes) -> Manifest:
    """Raises BundleError, without the file's name."""
    try:
        values = json.loads(text.decode("utf-8"), parse_int=_integer, parse_float=_number, parse_constant=_number)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"damaged ({first_line(error)})") from None
    if not isinstance(values, dict):
        raise BundleError("damaged (not an object)")
    version = values.get("format_version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise BundleError(f"damaged (format_version is {_said(version)})")
    if version > FORMAT_VERSION:
        raise BundleError(f"format {version}, this clip4str reads up to {FORMAT_VERSION}; update clip4str or rebuild")
    if _depth(values) > MOST_NESTED:
        raise BundleError(f"damaged (nested more than {MOST_NESTED} deep)")
    known = {f.name for f in fields(Manifest)}
    try:
        manifest = Manifest(**{k: v for k, v in values.items() if k in known})
        _check_manifest(manifest)
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise BundleError(f"damaged ({first_line(error)})") from None
    return manifest


def _integer(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _number(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits[:MOST_DIGITS]} is no number")
    return value


def _depth(value: Any) -> int:
    """How many objects and lists are in one another: 1 for {}."""
    level, depth = [value], 0
    while level := [v for v in level if isinstance(v, (dict, list))]:
        level, depth = [inner for v in level for inner in (v.values() if isinstance(v, dict) else v)], depth + 1
    return depth


def _said(value: Any) -> str:
    """Of a manifest, in a message."""
    return first_line(repr(value), 80)


def _check_manifest(m: Manifest) -> None:
    for name in ("name", "charset", "charset_test", "normalization", "precision", "key"):
        if not isinstance(getattr(m, name), str):
            raise BundleError(f"damaged ({name} is not a text)")
    for name in ("config", "files", "stages", "parity", "built_by", "checkpoint", "quantization", "engines"):
        if not isinstance(getattr(m, name), Mapping):
            raise BundleError(f"damaged ({name} is not an object)")
    for name in ("charset", "charset_test"):
        if len(getattr(m, name)) > _MOST_CHARSET:
            raise BundleError(f"{name} has {len(getattr(m, name))} characters, expected at most {_MOST_CHARSET}")
    if m.normalization not in NORMALIZATION:
        raise BundleError(f"unknown normalization {_said(m.normalization)}")
    if m.precision not in PRECISIONS:
        raise BundleError(f"unknown precision {_said(m.precision)}")
    height, width = m.config["image_size"]
    sizes = {"image_height": height, "image_width": width, "max_batch": m.max_batch}
    sizes["patch_height"], sizes["patch_width"] = m.config["patch_size"]
    sizes.update({k: m.config[k] for k in ("steps", "context", "vocabulary", "d", "decoder_heads")})
    for name, value in sizes.items():
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _BOUNDS[name]:
            raise BundleError(f"{name} is {_said(value)}, expected 1 to {_BOUNDS[name]}")
    if not is_temperature(m.temperature):
        raise BundleError(f"temperature is {_said(m.temperature)}, expected {LOWEST:g} to {HIGHEST:g}")
    frames = m.config.get("draft_frames", 0)  # older manifests do not know of it
    if not isinstance(frames, int) or isinstance(frames, bool) or not 0 <= frames <= MOST_FRAMES:
        raise BundleError(f"draft_frames is {_said(frames)}, expected 0 to {MOST_FRAMES}")
    if m.draft_positions > MOST_FRAMES:
        raise BundleError(f"a draft head of {m.draft_positions} frames, expected at most {MOST_FRAMES}")
    _check_files(m)
    if m.engines:
        _check_engines(m)


def _check_files(m: Manifest) -> None:
    if len(m.files) > MOST_FILES or len(m.stages) > MOST_FILES:
        raise BundleError(f"{max(len(m.files), len(m.stages))} files, expected at most {MOST_FILES}")
    for name in [*m.files, *m.stages.values()]:
        if not is_bare_name(name):
            raise BundleError(f"unsafe file name {_said(name)}: it leaves the bundle, or is no name")
    for name, entry in m.files.items():
        if not isinstance(entry, Mapping) or not isinstance(entry.get("sha256"), str):
            raise BundleError(f"damaged (no sha256 for {name})")
        size = entry.get("bytes")
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= MOST_FILE_BYTES:
            raise BundleError(f"{name} has {_said(size)} bytes, expected 0 to {MOST_FILE_BYTES}")
    for stage in ("image", "visual"):
        if stage not in m.stages:
            raise BundleError(f"lists no {stage} stage")
    for stage, name in m.stages.items():
        if name not in m.files:
            raise BundleError(f"stage {_said(stage)} is {name!r}, which is not among its files")


def is_bare_name(name: Any) -> bool:
    """Does it name a file in the folder and nothing else, on any system?"""
    return (
        isinstance(name, str)
        and name.isprintable()
        and 0 < len(name.encode("utf-8", "surrogatepass")) <= MOST_NAME_BYTES
        and name == os.path.basename(name)
        and not set(name) & set("/\\:")
        and name not in (".", "..", MANIFEST)
    )


def _check_engines(m: Manifest) -> None:
    """What a backend relies on: files that the manifest lists, and a profile within the bundle's bounds."""
    files, profile = m.engines["files"], m.engines["profile"]
    for stage, name in files.items():
        if stage not in STAGES or name not in m.files:
            raise BundleError(f"engine {_said(stage)} is {_said(name)}, which is not among its files")
    sizes = [profile[name] for name in ("min", "opt", "max")]
    if not all(isinstance(size, int) and not isinstance(size, bool) for size in sizes):
        raise BundleError("damaged (an engine profile that is no numbers)")
    if not 1 <= sizes[0] <= sizes[1] <= sizes[2] <= _BOUNDS["max_batch"]:
        raise BundleError(f"an engine profile of {sizes}, expected 1 <= min <= opt <= max <= {_BOUNDS['max_batch']}")
    texts = {name: m.engines[name] for name in ("target", "version", "gpu", "command")}
    texts["hardware_compatibility"] = m.engines.get("hardware_compatibility", "")
    capabilities = m.engines.get("compute_capabilities", [])
    if not isinstance(capabilities, list):
        raise BundleError("damaged (engines' compute_capabilities is not a list)")
    texts |= {f"compute_capabilities {i}": value for i, value in enumerate(capabilities)}
    for name, value in texts.items():
        if not isinstance(value, str):
            raise BundleError(f"damaged (engines' {name} is not a text)")
    if not isinstance(m.engines.get("parity", {}), Mapping):
        raise BundleError("damaged (engines' parity is not an object)")
