"""What somebody names in a bundle's place: a folder, a checkpoint file, or something else that has a name."""

from __future__ import annotations

from pathlib import Path

from clip4str.core.errors import BundleError, CheckpointError

from .manifest import MANIFEST

CHECKPOINTS = (".ckpt", ".pt", ".pth", ".bin", ".safetensors")
_PICTURES = {
    b"\xff\xd8\xff": "a JPEG picture", b"\x89PNG": "a PNG picture", b"GIF8": "a GIF picture", b"BM": "a BMP picture",
    b"II*\0": "a TIFF picture", b"MM\0*": "a TIFF picture",
}  # fmt: skip


def is_checkpoint_file(path: Path) -> bool:
    """False for a folder, and for what is not there. Raises CheckpointError for a file that is known to be another
    thing than a checkpoint, BundleError for what cannot be read: before what reads checkpoints is looked for."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            start = file.read(64)
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    if path.name == MANIFEST:
        raise CheckpointError(f"{path}: is a bundle's manifest; name its folder, {path.parent}")
    if path.suffix in (".onnx", ".plan"):
        raise CheckpointError(f"{path}: is one file of a bundle; name its folder, {path.parent}")
    kind = _picture(start)
    if kind is not None:
        raise CheckpointError(f"{path}: is {kind}, neither a bundle nor a checkpoint; to read it: clip4str read {path}")
    if start and path.suffix not in CHECKPOINTS and not _looks_like_weights(start):
        raise CheckpointError(f"{path}: is neither a bundle (a folder) nor a checkpoint ({', '.join(CHECKPOINTS)})")
    return True


def describe_folder(folder: Path) -> str:
    """What a folder without a manifest holds, and what to do, for a message."""
    try:
        names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
    checkpoints = [name for name in names if name.endswith(CHECKPOINTS)]
    if checkpoints:
        return f"not a bundle, it has no {MANIFEST}; it holds a checkpoint: {folder / checkpoints[0]}"
    if "data.mdb" in names:
        return f"not a bundle, it has no {MANIFEST}; it is a data set (LMDB)"
    bundles = [name for name in names if (folder / name / MANIFEST).is_file()]
    if bundles:
        return f"not a bundle, it has no {MANIFEST}; it holds one: {folder / bundles[0]}"
    return f"not a bundle, it has no {MANIFEST}" + ("" if names else "; it is empty")


def _picture(start: bytes) -> str | None:
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "a WebP picture"
    return next((kind for magic, kind in _PICTURES.items() if start.startswith(magic)), None)


def _looks_like_weights(start: bytes) -> bool:
    """A zip (torch), a pickle, or safetensors' length and header."""
    return start.startswith((b"PK\x03\x04", b"\x80")) or start[8:9] == b"{"
