"""The run's state in pieces small enough for any place that files are kept in, and back, on another machine."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clip4str.core.errors import DataError, UsageError
from clip4str.core.output_files import write_json
from clip4str.core.safetensors_metadata import write_metadata

from . import checkout, processes
from .places import Places
from .states import AVERAGED, LAST, START, WORDS_SEEN, averaged_words, read_start, read_state, set_aside

PIECE = 2**24
MANIFEST = "network-state.json"
CARRIED = (LAST, AVERAGED, START, "log.csv")
_LARGEST = 2**33  # bytes of one file


def export_weights(places: Places, output: Path, branch: Path | None = None) -> int:
    """The averaged weights as they are now, or those of a branch of the run. Returns the words they have seen, which
    the file says, too."""
    folder = branch or places.run
    averaged = folder / AVERAGED
    if not averaged.exists():
        raise UsageError(f"{folder}: no averaged weights yet; the first are written some minutes after the start")
    _free(output)
    words = averaged_words(folder, read_start(places.run).words)
    write_metadata(averaged, output, {WORDS_SEEN: str(words)})
    return words


def export_pieces(places: Places, folder: Path) -> int:
    """The whole state, while it runs or not, as files of at most 16 MiB. Returns how many."""
    if not (places.run / LAST).exists():
        raise UsageError(f"{places.run}: no state yet; the first is written some minutes after the start")
    _free(folder)
    partial = folder.with_name(f".{folder.name}.tmp-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        present = [name for name in CARRIED if (places.run / name).exists()]
        files = {name: _cut(places.run / name, partial) for name in present}
        commit = checkout.current(places)
        write_json(partial / MANIFEST, {"format": 1, "commit": commit.sha if commit else "", "files": files})
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return sum(len(file["pieces"]) for file in files.values())


def import_pieces(places: Places, folder: Path) -> str:
    """Put the state of another machine in the place of this one's, which is set aside. Returns what it is, in words.

    Only while the run is stopped, and only a whole state that can be gone on from. Raises DataError, UsageError.
    """
    manifest = _manifest(folder)
    places.home.mkdir(parents=True, exist_ok=True)
    lock = processes.take_lock(places.lock)
    if lock is None:
        raise UsageError("the run is going: make network-stop first")
    partial = places.run.with_name(".run.import")
    try:
        places.process.unlink(missing_ok=True)  # of a keeper that has ended: the lock is held, but not by it
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        for name, entry in manifest["files"].items():
            _join(folder, name, entry, partial)
        state = read_state(partial / LAST)
        aside = f"; what was here: {set_aside(places.run).name}" if places.run.exists() else ""
        partial.rename(places.run)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        os.close(lock)
    total = read_start(places.run).words + state.words
    return f"step {state.step:,}, {state.words:,} words ({total:,} in all), commit {manifest['commit'][:10]}{aside}"


def _free(output: Path) -> None:
    if output.exists():
        raise UsageError(f"{output} exists already; choose another --output")
    if not output.absolute().parent.is_dir():
        raise UsageError(f"{output}: its folder does not exist")


def _cut(source: Path, folder: Path) -> dict[str, Any]:
    pieces: list[dict[str, Any]] = []
    whole = hashlib.sha256()
    with source.open("rb") as file:  # once: it may be replaced meanwhile
        while content := file.read(PIECE):
            whole.update(content)
            (folder / _piece(source.name, len(pieces))).write_bytes(content)
            pieces.append({"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()})
    return {"sha256": whole.hexdigest(), "pieces": pieces}


def _piece(name: str, number: int) -> str:
    return f"{name}.{number:03d}"


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        if path.stat().st_size > 2**20:
            raise ValueError("too large")
        manifest = json.loads(path.read_text(encoding="utf-8"))
        files = manifest["files"]
        if manifest["format"] != 1 or not isinstance(manifest["commit"], str):
            raise ValueError("another format")
        if LAST not in files or not set(files) <= set(CARRIED):
            raise ValueError(f"it holds {', '.join(map(repr, files))}")
        for entry in files.values():
            digests = [entry["sha256"], *(piece["sha256"] for piece in entry["pieces"])]
            if not all(isinstance(digest, str) for digest in digests):
                raise ValueError("pieces without a digest")
            sizes = [piece["bytes"] for piece in entry["pieces"]]
            if not all(isinstance(size, int) and 0 < size <= PIECE for size in sizes) or sum(sizes) > _LARGEST:
                raise ValueError("pieces of impossible sizes")
        return manifest
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); name the folder that export --pieces wrote"
        ) from None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{path}: not what export --pieces writes ({error})") from None


def _join(folder: Path, name: str, entry: dict[str, Any], target: Path) -> None:
    whole = hashlib.sha256()
    with (target / name).open("wb") as file:
        for content in _contents(folder, name, entry["pieces"]):
            whole.update(content)
            file.write(content)
        file.flush()
        os.fsync(file.fileno())
    if whole.hexdigest() != entry["sha256"]:
        raise DataError(f"{folder}: the pieces of {name} do not belong together")


def _contents(folder: Path, name: str, pieces: list[dict[str, Any]]) -> Iterator[bytes]:
    for number, piece in enumerate(pieces):
        path = folder / _piece(name, number)
        try:
            with path.open("rb") as file:
                content = file.read(piece["bytes"] + 1)
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from None
        if hashlib.sha256(content).hexdigest() != piece["sha256"]:
            raise DataError(f"{path}: damaged; export again")
        yield content
