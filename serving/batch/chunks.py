"""What a job is cut into: chunks of inputs that are read, and written, as a whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass

FILES, TAR, PARQUET, LMDB, VIDEO = "files", "tar", "parquet", "lmdb", "video"
TO_THE_END = -1


@dataclass(frozen=True)
class Chunk:
    """Inputs enough to be worth a file of results, little enough to be lost.

    number: from 0, in the order of the inputs. kind: of `place`, the file or folder that holds the pictures; of FILES
    there is none, but `names`. first, count: of TAR the byte where the first member's header begins and how many
    pictures follow; of PARQUET row groups; of LMDB samples, counted from 1. stamp: digest of sizes and times, by which
    other contents under an old name are noticed.
    """

    number: int
    kind: str
    place: str = ""
    first: int = 0
    count: int = TO_THE_END
    names: tuple[str, ...] = ()
    stamp: str = ""

    @property
    def key(self) -> str:
        """16 hexadecimal digits: equal for equal inputs in the same place of the job."""
        return digest([json.dumps(asdict(self))])

    @property
    def called(self) -> str:
        """For messages: its first input."""
        return self.names[0] if self.names else self.place

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> Chunk:
        values = json.loads(text)
        return Chunk(**{**values, "names": tuple(values["names"])})


def file_of(kind: str, place: str) -> str:
    """The one whose stamp a place has."""
    return f"{place.rstrip('/')}/data.mdb" if kind == LMDB else place


def digest(texts: Iterable[str]) -> str:
    found = hashlib.sha256()
    for text in texts:
        found.update(text.encode("utf-8", "surrogateescape") + b"\0")
    return found.hexdigest()[:16]
