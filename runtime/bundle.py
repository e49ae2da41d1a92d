"""Bundles: a folder with manifest.json and the files it lists. With manifest.py and onnx_files.py, the one place that
knows the format.

A bundle is data from strangers: no name leaves the folder, no file is larger than it is said to be, and what is
handed to a parser are the very bytes whose sha256 was compared.
"""

from __future__ import annotations

import glob
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from clip4str.core.atomic_files import replaced
from clip4str.core.errors import BundleError

from .manifest import (
    EIGHT_BITS,
    FORMAT_VERSION,
    KERNELS,
    LEAST_CAPABILITY,
    MANIFEST,
    MOST_MANIFEST_BYTES,
    OUTPUTS,
    PRECISIONS,
    STAGES,
    WEIGHTS,
    Manifest,
    parse_manifest,
    stage_shapes,
    why_too_old,
)
from .onnx_files import MOST_BYTES, External, external_tensors
from .sealed import sealed
from .what_is import describe_folder

__all__ = [
    "EIGHT_BITS", "FORMAT_VERSION", "KERNELS", "LEAST_CAPABILITY", "MANIFEST", "OUTPUTS", "PRECISIONS", "STAGES",
    "WEIGHTS", "Bundle", "Manifest", "describe_file", "file_sha256", "stage_shapes", "why_too_old", "write_manifest",
]  # fmt: skip


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: its folder and its checked manifest. verify: are contents compared with their sha256?"""

    folder: Path
    manifest: Manifest
    verify: bool = False
    _seen: set[str] = field(default_factory=set, repr=False, compare=False)  # files that were read or compared

    @staticmethod
    def open(folder: str | os.PathLike[str], verify: bool = True, later: bool = False) -> Bundle:
        """Read and check a bundle. verify: also compare every file's sha256 (about a second per GB).

        later: leave contents to `content` and `graph`, so that what a backend loads is read once, and the rest of
        them to `check_rest`.

        Raises BundleError: missing, damaged, unsafe, or written by a newer clip4str.
        """
        folder = Path(folder)
        try:
            folder = moved_aside(folder) or folder
            if not folder.is_dir():
                raise BundleError(
                    f"{folder}: no such bundle folder or checkpoint file; build one with: clip4str build CHECKPOINT"
                )
            bundle = Bundle(folder, _read_manifest(folder), verify)
            for name in bundle.manifest.files:
                with bundle._opened(name):
                    pass
        except OSError as error:
            raise BundleError(f"{error.filename or folder}: {error.strerror or error}") from None
        if not later:
            bundle.check_rest()
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

    def content(self, name: str) -> bytes:
        """A file, read once: the bytes that were compared are the bytes returned. Raises BundleError."""
        with self._opened(name) as file:
            size = os.fstat(file.fileno()).st_size
            content = file.read(size)
        if len(content) != size:
            raise BundleError(f"{self.folder / name}: it changed while it was read; try again")
        if self.verify:
            self._compare(name, hashlib.sha256(content))
        self._seen.add(name)
        return content

    @contextmanager
    def graph(self, stage: str) -> Iterator[tuple[str | bytes, list[External]]]:
        """A stage's ONNX file to be loaded inside: a copy that nobody can change any more, by its path where the system
        has such, and its tensors that lie in other files of the bundle. Raises BundleError."""
        path = self.path(stage)
        with self._opened(path.name) as file:
            if os.fstat(file.fileno()).st_size > MOST_BYTES:
                raise BundleError(f"{path}: larger than any ONNX file, {MOST_BYTES} bytes")
            digest = hashlib.sha256()
            with sealed(file, digest) as (content, source):
                if self.verify:
                    self._compare(path.name, digest)
                tensors = external_tensors(content, path)
                for tensor in tensors:
                    if tensor.location not in self.manifest.files:
                        raise BundleError(f"{path}: reads {tensor.location!r}, which is not in the manifest")
                self._seen.add(path.name)
                yield source, tensors

    def check(self, name: str, again: bool = False) -> None:
        """Compare a file that is too large to be held, or is another library's to read. Raises BundleError."""
        if self.verify and (again or name not in self._seen):
            with self._opened(name) as file:
                self._compare(name, _sha256(file))
            self._seen.add(name)

    def check_rest(self) -> None:
        """What has not been read or compared yet. Raises BundleError."""
        for stage in sorted(self.manifest.stages.keys() - {WEIGHTS, KERNELS}):
            if self.path(stage).name not in self._seen:
                with self.graph(stage):
                    pass
        for name in self.manifest.files:
            self.check(name)

    @contextmanager
    def _opened(self, name: str) -> Iterator[BinaryIO]:
        """A listed file, if it is one, lies in the folder, and has the size that the manifest says."""
        path = self.folder / name
        try:
            descriptor = _open_plain(path)
        except FileNotFoundError:
            raise BundleError(f"{path}: missing; rebuild the bundle or copy it again") from None
        except OSError as error:
            raise BundleError(f"{path}: {error.strerror or error}") from None
        with os.fdopen(descriptor, "rb") as file:
            size, entry = os.fstat(descriptor).st_size, self.manifest.files.get(name)
            if entry is not None and size != entry["bytes"]:
                raise BundleError(f"{path}: {size} bytes, the manifest says {entry['bytes']}; copy it again")
            yield file

    def _compare(self, name: str, digest: Any) -> None:
        if digest.hexdigest() != self.manifest.files[name]["sha256"]:
            raise BundleError(
                f"{self.folder / name}: its sha256 is not the manifest's; it was changed or damaged, copy it again"
            )


def moved_aside(folder: Path, mark: str = MANIFEST) -> Path | None:
    """Where a bundle lies that a build was about to replace when it was killed, if it lies nowhere else; see
    export/atomic_folder.py. mark: a file in it, of folders that are no bundles another one."""
    if not folder.name or os.path.lexists(folder):
        return None
    found = [path.parent for path in folder.parent.glob(f".{glob.escape(folder.name)}.old-*/{mark}")]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write manifest.json, through a temporary name."""
    with replaced(folder / MANIFEST, durable=False) as temporary:
        temporary.write_text(manifest.to_json(), encoding="utf-8")


def describe_file(path: Path) -> dict[str, Any]:
    """The manifest's entry for a file: {"sha256", "bytes"}."""
    return {"sha256": file_sha256(path), "bytes": path.stat().st_size}


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return _sha256(file).hexdigest()


def _sha256(file: BinaryIO) -> Any:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest


def _read_manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST
    try:
        with os.fdopen(_open_plain(path), "rb") as file:
            text = file.read(MOST_MANIFEST_BYTES + 1)
    except FileNotFoundError:
        raise BundleError(f"{folder}: {describe_folder(folder)}") from None
    except OSError as error:
        raise BundleError(f"{path}: {error.strerror or error}") from None
    if len(text) > MOST_MANIFEST_BYTES:
        raise BundleError(f"{path}: larger than any manifest")
    try:
        return parse_manifest(text)
    except BundleError as error:
        raise BundleError(f"{path}: {error}") from None


def _open_plain(path: Path) -> int:
    """A descriptor of a plain file: no link is followed, and a pipe makes nobody wait. Raises BundleError, OSError."""
    if path.is_symlink():  # where the system cannot refuse one while it opens, and for the reason
        raise BundleError(f"{path}: is a link; a bundle's files must lie in its folder")
    flags = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))
    descriptor = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise BundleError(f"{path}: is not a plain file")
    return descriptor
