"""Inputs of batch jobs for tests, and what a Recognizer itself reads in them."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from clip4str.core.packaged import PACKAGED

ROOT = Path(__file__).resolve().parents[2]
CROPS = sorted((ROOT / "export" / "sample_crops").glob("*.jpg"))


def command(*args: object) -> list[str]:
    return [sys.executable, "-m", "clip4str", "batch", "--bundle", str(PACKAGED), *map(str, args)]


def batch(*args: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    return subprocess.run(command(*args), capture_output=True, text=True, cwd=cwd, env=environment, timeout=300)


def rows(output: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    return pq.read_table(output).to_pylist()


def crops_in(folder: Path, copies: int = 1) -> Path:
    folder.mkdir(parents=True)
    for copy in range(copies):
        for crop in CROPS:
            (folder / f"{copy:03d}-{crop.name}").write_bytes(crop.read_bytes())
    return folder


def tar(path: Path, members: Sequence[tuple[str, bytes]], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def read(
    recognizer: Any, inputs: Iterable[object], size: int = 10, column: str | None = None
) -> tuple[list[dict[str, Any]], int]:
    """Rows of all chunks; and how many chunks there were."""
    import pyarrow as pa

    from clip4str.serving.batch import listing
    from clip4str.serving.batch.results import ChunkReader
    from clip4str.serving.batch.videos import video_reader

    reader = ChunkReader(recognizer, column, video_reader)
    found = [reader.read(chunk) for chunk in listing.chunks(list(map(str, inputs)), size)]
    return (pa.concat_tables(found).to_pylist() if found else []), len(found)


def words_of(recognizer: Any, crops: Sequence[Path]) -> dict[str, tuple[str, float]]:
    """By a crop's name."""
    return {crop.name: (word.text, word.confidence) for crop, word in zip(crops, recognizer.read(crops))}
