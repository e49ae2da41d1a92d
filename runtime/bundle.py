"""Bundles: a folder with manifest.json and the stage files it lists. The one place that knows the format.

A manifest is data from strangers: every name must stay inside the folder, every size is bounded, every file's
sha256 is checked before anything parses it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from clip4str.core.atomic_files import replaced
from clip4str.core.calibration import HIGHEST, LOWEST, is_temperature
from clip4str.core.drafts import MOST_FRAMES
from clip4str.core.errors import BundleError

from .images import NORMALIZATION
from .onnx_files import external_files

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
STAGES = ("image", "visual", "text", "cross")
WEIGHTS = "weights"  # further stages that bundles may have: the network's tensors, for the torch backend
KERNELS = "kernels"  # and the decoders packed for the compiled kernels, for the TensorRT backend
PRECISIONS = ("fp32", "fp16", "int8")
_MAX_MANIFEST_BYTES = 1_000_000
_MAX_CHARSET = 10_000
# What a manifest may make us allocate: generous for any network of this kind, small for a machine.
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
    quantization: how an int8 bundle is quantised, and what its accuracy gate measured. engines: TensorRT's, where
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


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: its folder and its checked manifest."""

    folder: Path
    manifest: Manifest

    @staticmethod
    def open(folder: str | os.PathLike[str], verify: bool = True) -> Bundle:
        """Read and check a bundle. verify: also compare every file's sha256 (about a second per GB).

        Raises BundleError: missing, damaged, unsafe, or written by a newer clip4str.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise BundleError(
                f"{folder}: no such bundle folder or checkpoint file; build a bundle with: clip4str build CHECKPOINT"
            )
        manifest = _read_manifest(folder)
        bundle = Bundle(folder, manifest)
        for name, entry in manifest.files.items():
            _check_file(bundle, name, entry, verify)
        for stage in manifest.stages.keys() - {WEIGHTS, KERNELS}:
            for name in sorted(external_files(bundle.path(stage)) - manifest.files.keys()):
                raise BundleError(f"{bundle.path(stage)}: reads {name!r}, which is not in the manifest")
        return bundle

    def path(self, stage: str) -> Path:
        """The file of a stage. Raises BundleError if the bundle has none."""
        try:
            return self.folder / self.manifest.stages[stage]
        except KeyError:
            raise BundleError(f"{self.folder}: the bundle has no {stage} stage") from None

    def engine(self, stage: str) -> Path:
        """The TensorRT engine of a stage. Raises BundleError if the bundle has none."""
        files = self.manifest.engines.get("files", {})
        if stage not in files:
            raise BundleError(f"{self.folder}: the bundle has no {stage} engine; clip4str build {self.folder} makes it")
        return self.folder / files[stage]


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


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write manifest.json, through a temporary name."""
    with replaced(folder / MANIFEST, durable=False) as temporary:
        temporary.write_text(manifest.to_json(), encoding="utf-8")


def describe_file(path: Path) -> dict[str, Any]:
    """The manifest's entry for a file: {"sha256", "bytes"}."""
    return {"sha256": file_sha256(path), "bytes": path.stat().st_size}


def file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _read_manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST
    try:
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise BundleError(f"{path}: is not a plain file")
        with path.open("rb") as file:
            text = file.read(_MAX_MANIFEST_BYTES + 1)
        if len(text) > _MAX_MANIFEST_BYTES:
            raise BundleError(f"{path}: larger than any manifest")
        values = json.loads(text.decode("utf-8"))
    except FileNotFoundError:
        raise BundleError(f"{folder}: not a bundle, it has no {MANIFEST}") from None
    except OSError as error:
        raise BundleError(f"{path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path}: damaged ({str(error).splitlines()[0]})") from None
    if not isinstance(values, dict):
        raise BundleError(f"{path}: damaged (not an object)")
    version = values.get("format_version")
    if not isinstance(version, int) or version < 1:
        raise BundleError(f"{path}: damaged (format_version is {version!r})")
    if version > FORMAT_VERSION:
        raise BundleError(
            f"{path}: format {version}, this clip4str reads up to {FORMAT_VERSION}; update clip4str or rebuild"
        )
    known = {f.name for f in fields(Manifest)}
    try:
        manifest = Manifest(**{k: v for k, v in values.items() if k in known})
        _check_manifest(manifest)
    except BundleError as error:
        raise BundleError(f"{path}: {error}") from None
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise BundleError(f"{path}: damaged ({str(error).splitlines()[0]})") from None
    return manifest


def _check_manifest(m: Manifest) -> None:
    for name in ("name", "charset", "charset_test", "normalization", "precision", "key"):
        if not isinstance(getattr(m, name), str):
            raise BundleError(f"damaged ({name} is not a text)")
    for name in ("config", "files", "stages", "parity", "built_by", "checkpoint", "quantization", "engines"):
        if not isinstance(getattr(m, name), Mapping):
            raise BundleError(f"damaged ({name} is not an object)")
    for name in ("charset", "charset_test"):
        if len(getattr(m, name)) > _MAX_CHARSET:
            raise BundleError(f"{name} has {len(getattr(m, name))} characters, expected at most {_MAX_CHARSET}")
    if m.normalization not in NORMALIZATION:
        raise BundleError(f"unknown normalization {m.normalization!r}")
    if m.precision not in PRECISIONS:
        raise BundleError(f"unknown precision {m.precision!r}")
    height, width = m.config["image_size"]
    sizes = {"image_height": height, "image_width": width, "max_batch": m.max_batch}
    sizes["patch_height"], sizes["patch_width"] = m.config["patch_size"]
    sizes.update({k: m.config[k] for k in ("steps", "context", "vocabulary", "d", "decoder_heads")})
    for name, value in sizes.items():
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _BOUNDS[name]:
            raise BundleError(f"{name} is {value!r}, expected 1 to {_BOUNDS[name]}")
    if not is_temperature(m.temperature):
        raise BundleError(f"temperature is {m.temperature!r}, expected {LOWEST:g} to {HIGHEST:g}")
    frames = m.config.get("draft_frames", 0)  # older manifests do not know of it
    if not isinstance(frames, int) or isinstance(frames, bool) or not 0 <= frames <= MOST_FRAMES:
        raise BundleError(f"draft_frames is {frames!r}, expected 0 to {MOST_FRAMES}")
    if m.draft_positions > MOST_FRAMES:
        raise BundleError(f"a draft head of {m.draft_positions} frames, expected at most {MOST_FRAMES}")
    for name in [*m.files, *m.stages.values()]:
        if not isinstance(name, str) or not name or name != os.path.basename(name) or name in (".", ".."):
            raise BundleError(f"unsafe file name {name!r}: it leaves the bundle")
    for stage in ("image", "visual"):
        if stage not in m.stages:
            raise BundleError(f"lists no {stage} stage")
    for stage, name in m.stages.items():
        if name not in m.files:
            raise BundleError(f"stage {stage} is {name!r}, which is not among its files")
    if m.engines:
        _check_engines(m)


def _check_engines(m: Manifest) -> None:
    """What a backend relies on: files that the manifest lists, and a profile within the bundle's bounds."""
    files, profile = m.engines["files"], m.engines["profile"]
    for stage, name in files.items():
        if stage not in STAGES or name not in m.files:
            raise BundleError(f"engine {stage!r} is {name!r}, which is not among its files")
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


def _check_file(bundle: Bundle, name: str, entry: Any, verify: bool) -> None:
    path = bundle.folder / name
    if path.is_symlink():
        raise BundleError(f"{path}: is a link; a bundle's files must lie in its folder")
    if not path.is_file():
        raise BundleError(f"{path}: missing; rebuild the bundle or copy it again")
    if not isinstance(entry, Mapping) or not isinstance(entry.get("sha256"), str):
        raise BundleError(f"{bundle.folder / MANIFEST}: damaged (no sha256 for {name})")
    size = path.stat().st_size
    if size != entry.get("bytes"):
        raise BundleError(f"{path}: {size} bytes, the manifest says {entry.get('bytes')}; copy it again")
    if verify and file_sha256(path) != entry["sha256"]:
        raise BundleError(f"{path}: its sha256 is not the manifest's; it was changed or damaged, copy it again")
