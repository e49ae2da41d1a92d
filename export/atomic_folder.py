"""A folder that is either all there or not there at all."""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from clip4str.core.errors import UsageError
from clip4str.runtime.bundle import MANIFEST


def check_target(target: Path, force: bool) -> None:
    """Raises UsageError if `target` may not be written: it is no bundle, or one that is there without `force`."""
    if not os.path.lexists(target):
        return
    if target.is_symlink() or not target.is_dir():
        raise UsageError(f"{target}: exists and is not a folder; choose another --output")
    if not any(target.iterdir()):
        return
    if not (target / MANIFEST).is_file():
        raise UsageError(f"{target}: exists and is not a bundle; choose another --output")
    if not force:
        raise UsageError(f"{target}: exists; --force replaces it, --output writes elsewhere")


@contextmanager
def atomic_folder(target: Path, force: bool) -> Iterator[Path]:
    """A sibling folder to write into; it becomes `target` when the block ends well, and vanishes if it does not.

    What stood at `target` before stays until then. Raises UsageError as check_target does.
    """
    check_target(target, force)
    made = [p for p in target.parents if not p.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(target)
    staging = target.with_name(f".{target.name}.building-{os.getpid()}")
    staging.mkdir()
    try:
        yield staging
        _sync(staging)
        check_target(target, force)
        _replace(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        for parent in made:  # the nearest first; those that hold something stay
            with suppress(OSError):
                parent.rmdir()


def _remove_abandoned(target: Path) -> None:
    """Left by builds of this target that were killed outright. What was moved aside goes only once it is replaced."""
    name = glob.escape(target.name)
    leavings = [*target.parent.glob(f".{name}.building-*")]
    if os.path.lexists(target):
        leavings += target.parent.glob(f".{name}.old-*")
    for path in leavings:
        process = path.name.rpartition("-")[2]
        if process.isdecimal() and not _runs(int(process)):
            shutil.rmtree(path, ignore_errors=True)


def _runs(process: int) -> bool:
    if process == os.getpid():
        return False  # this one has only begun
    if os.name != "posix":
        return True  # who knows
    try:
        os.kill(process, 0)  # asks, sends nothing
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def _replace(staging: Path, target: Path) -> None:
    old = target.with_name(f".{target.name}.old-{os.getpid()}")
    shutil.rmtree(old, ignore_errors=True)
    moved = os.path.lexists(target)
    if moved:
        target.rename(old)
    try:
        staging.rename(target)
    except BaseException:
        if moved and not os.path.lexists(target):
            old.rename(target)
        raise
    _sync_path(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def _sync(folder: Path) -> None:
    """On disk before the rename is: a power cut must not leave a whole folder of empty files."""
    for path in folder.iterdir():
        _sync_path(path)
    _sync_path(folder)


def _sync_path(path: Path) -> None:
    if os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
