"""The list of pictures to leave out, which near_duplicates.py --write-exclusions writes."""

from __future__ import annotations

import os
import re
from pathlib import Path

from clip4str.core.errors import DataError


def read_left_out(path: str | os.PathLike[str]) -> frozenset[str]:
    """SHA-256 of the pictures that data/near_duplicates.py --write-exclusions lists. Raises DataError."""
    try:
        rows = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a list of pictures ({error})") from None
    digests = [row.split("\t")[-1].strip() for row in rows[1:]]
    if rows[:1] != ["set\trow\tsha256"] or not all(re.fullmatch("[0-9a-f]{64}", digest) for digest in digests):
        raise DataError(f"{path}: no list of near_duplicates.py --write-exclusions (set, row, sha256, tab-separated)")
    return frozenset(digests)
