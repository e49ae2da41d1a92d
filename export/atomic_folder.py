"""A folder that is either all there or not there at all, whoever is killed and whoever else builds it."""

from __future__ import annotations

import glob
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from clip4str.core.atomic_files import exchange, flush, lock, locked, unique, unlock
from clip4str.core.errors import UsageError
from clip4str.runtime.bundle import MANIFEST, moved_aside

_MOST_NAME = 255 - len("..building-") - len(unique())
_ATTEMPTS = 3


def check_target(target: Path, force: bool, mark: str = MANIFEST, kind: str = "bundle") -> None:
    """Raises UsageError if `target` may not be written: it is there and no `kind` of folder, which has a file `mark`,
    or it is one without `force`, or nothing can be written where it should be."""
    if len(os.fsencode(target.name)) > _MOST_NAME:
        raise UsageError(f"--output: a name of {len(target.name)} characters; at most {_MOST_NAME} bytes")
    if not os.path.lexists(target):
        _check_writable(target)
        return
    if target.is_symlink() or not target.is_dir():
        raise UsageError(f"{target}: exists and is not a folder; choose another --output")
    if any(target.iterdir()):
        if not (target / mark).is_file():
            raise UsageError(f"{target}: exists and is not a {kind}; choose another --output")
        if not force:
            raise UsageError(f"{target}: exists; --force replaces it, --output writes elsewhere")
    _check_writable(target)


def _check_writable(target: Path) -> None:
    """Can folders be made where `target` will lie?"""
    above = next(parent for parent in target.parents if os.path.lexists(parent))
    try:
        Path(tempfile.mkdtemp(prefix=".clip4str-", dir=above)).rmdir()
    except NotADirectoryError:
        raise UsageError(f"{target}: {above} is a file; choose another --output") from None
    except OSError as error:
        raise UsageError(
            f"{target}: nothing can be written in {above} ({error.strerror or error}); choose another --output"
        ) from None


@contextmanager
def atomic_folder(target: Path, force: bool, mark: str = MANIFEST, kind: str = "bundle") -> Iterator[Path]:
    """A sibling folder to write into; it becomes `target` when the block ends well, and vanishes if it does not.

    What stood at `target` before stays until then, and is never away in between where the system can exchange two
    folders. Two builds of one target do not meet: the later one finds the earlier one's, as if it had always been
    there. mark: a file that the block writes, by which such a folder is known. Raises UsageError as check_target does.
    """
    check_target(target, force, mark, kind)
    made = [p for p in target.parents if not p.exists()]
    staging, held = _begin(target, mark)
    try:
        yield staging
        _sync(staging)
        with locked(target.parent):
            check_target(target, force, mark, kind)
            _publish(staging, target)
    except OSError as error:
        if error.filename is not None and Path(os.fsdecode(error.filename)).is_relative_to(staging):
            error.filename = str(target / Path(os.fsdecode(error.filename)).relative_to(staging))
        raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)  # what stood at target, if that went well
        unlock(held)
        for parent in made:  # the nearest first; those that hold something stay
            with suppress(OSError):
                parent.rmdir()


def _begin(target: Path, mark: str) -> tuple[Path, int | None]:
    """The folder to write into, and its lock, which says that somebody does."""
    staging = target.with_name(f".{target.name}.building-{unique()}")
    for attempt in range(_ATTEMPTS):
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with locked(target.parent):
                if (aside := moved_aside(target, mark)) is not None:
                    with suppress(OSError):
                        aside.rename(target)
                _remove_abandoned(target)
                staging.mkdir()
                return staging, lock(staging, wait=False)
        except FileNotFoundError:  # another build that failed has tidied up its parents
            if attempt == _ATTEMPTS - 1:
                raise
        except FileExistsError:
            raise UsageError(f"{target}: a file is where its folder should be; choose another --output") from None
    raise AssertionError


def _remove_abandoned(target: Path) -> None:
    """Left by builds of this target that were killed outright: those whose lock nobody holds. What was moved aside
    goes only once it is replaced."""
    kinds = "building|old" if os.path.lexists(target) else "building"
    for path in target.parent.glob(f".{glob.escape(target.name)}.*-*"):
        if not re.fullmatch(rf"\.(?:{kinds})-[0-9a-f]+", path.name[len(target.name) + 1 :]):
            continue
        with suppress(OSError):
            if (held := lock(path, wait=False)) is not None:
                shutil.rmtree(path, ignore_errors=True)
                unlock(held)


def _publish(staging: Path, target: Path) -> None:
    if not os.path.lexists(target):
        staging.rename(target)
    elif not exchange(staging, target):
        old = target.with_name(f".{target.name}.old-{unique()}")
        target.rename(old)  # from here to the next line readers find it there: Bundle.open
        try:
            staging.rename(target)
        except BaseException:
            if not os.path.lexists(target):
                old.rename(target)
            raise
        shutil.rmtree(old, ignore_errors=True)
    flush(target.parent)


def _sync(folder: Path) -> None:
    """On disk before the rename is: a power cut must not leave a whole folder of empty files."""
    for path in folder.rglob("*"):
        flush(path)
    flush(folder)
