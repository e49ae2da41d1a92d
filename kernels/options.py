"""Switches of what has not been measured on a GPU yet, so that one run there decides: kernels/NOTES.md predicts each.

    CLIP4STR_GPU_OPTIONS=dependent_launch,-library_residual      one on, one off, the rest as they are

They are read when a kernel is launched or a CUDA graph captured, by the C library when it is opened: set them before.
Plain Python: importable without torch and triton.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

from clip4str.core.errors import UsageError

VARIABLE = "CLIP4STR_GPU_OPTIONS"


@dataclass(frozen=True)
class Options:
    """What may be switched.

    dependent_launch: on compute capability 9.0 and newer kernels start while the one before is still running, fetch
        their weights into the L2 cache, then wait for it (programmatic dependent launch). The C library reads the same
        variable. Off until a device has shown that answers stay equal.
    library_residual: many rows of a tower's residual products are cuBLAS's, in place. On.
    split_k: where few rows have a long K, a tower's `down`, several programs share it and add up in the same launch.
    three_stages: many rows' tiles keep three loads in flight instead of four: two programs fit a multiprocessor.
    wide_tiles: many rows' tiles are 128 x 256 where there is one for every multiprocessor.
    descriptors: on compute capability 9.0 and newer the tensor memory accelerator loads and stores many rows' tiles, by
        programs that each compute several of them. Goes before the two above where all rows begin at 16 bytes.
    short_attention: towers' attention over at most 64 tokens of few words in half precision, the projection after it
        and the residual are one launch.
    fork: in a CUDA graph the visual refinement and its caption's tokens run beside the text tower.
    verify_beside: as fork, and the last pass of each branch, which shows whether the word before it was final, runs
        beside what follows that word. Where it was not, the row is read further, as always.
    """

    dependent_launch: bool = False
    library_residual: bool = True
    split_k: bool = False
    three_stages: bool = False
    wide_tiles: bool = False
    descriptors: bool = False
    short_attention: bool = False
    fork: bool = False
    verify_beside: bool = False


NAMES = tuple(field.name for field in fields(Options))
_used: Options | None = None


def options() -> Options:
    """What holds now: what `using` has set, else the environment's. Raises UsageError for names that there are not."""
    return _used or parse(os.environ.get(VARIABLE, ""))


def parse(text: str, defaults: Options = Options()) -> Options:
    """ "dependent_launch,-library_residual" -> Options. Raises UsageError."""
    changes = {}
    for name in filter(None, (part.strip() for part in text.split(","))):
        bare = name.removeprefix("-")
        if bare not in NAMES:
            raise UsageError(f"{VARIABLE}: {name!r} is none of {', '.join(NAMES)} (with - before it: off)")
        changes[bare] = bare == name
    return replace(defaults, **changes)


@contextlib.contextmanager
def using(chosen: Options) -> Iterator[None]:
    """These in this process, whatever the environment says. Not for several threads at once."""
    global _used
    before, _used = _used, chosen
    try:
        yield
    finally:
        _used = before
