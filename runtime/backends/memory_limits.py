"""Reading with the memory there is: the sizes of batches, and smaller ones once memory has run out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

from clip4str.core.errors import BackendError
from clip4str.core.reading import Reading


def ladder(largest: int, least: int = 1) -> list[int]:
    """Numbers of rows that batches are padded to: powers of two and the largest, none below the least."""
    powers = [1 << i for i in range(largest.bit_length()) if 1 << i < largest]
    return sorted({max(least, size) for size in (*powers, largest)})


def padded(rows: int, sizes: Sequence[int]) -> int:
    """The smallest of the sizes, in rising order, that holds `rows`; the largest for more than it holds."""
    return next((size for size in sizes if size >= rows), sizes[-1])


def read_in_parts(
    pixels: Any,
    largest: Callable[[], int],
    attempt: Callable[[Any], Reading | None],
    shrink: Callable[[int], None],
) -> Reading:
    """Any number of images but none, at most largest() at a time. attempt: reads a part, None if memory ran out;
    shrink(rows): after that, makes largest() smaller or raises."""
    readings: list[Reading] = []
    while len(pixels):
        part = pixels[: largest()]
        reading = attempt(part)
        if reading is None:
            shrink(len(part))
        else:
            readings.append(reading)
            pixels = pixels[len(part) :]
    return Reading.joined(readings)


def shrink(device: str, rows: int, largest: int, rebuild: Callable[[int], object], stacklevel: int) -> None:
    """Memory did not suffice for `rows` images, of at most `largest` at a time: rebuild(fewer), and a RuntimeWarning.

    Raises BackendError, after rebuild(1), where a single image is too many.
    """
    # A single image may only lack what the buffers of larger batches took.
    fewer = max((1 << i for i in range(rows.bit_length()) if 1 << i < rows), default=1 if largest > 1 else 0)
    rebuild(max(1, fewer))
    if not fewer:
        raise BackendError(f"out of memory on {device} with a single image; free some and read again")
    warn_of_fewer(device, rows, fewer, stacklevel + 1)


def warn_of_fewer(device: str, rows: int, fewer: int, stacklevel: int) -> None:
    warnings.warn(
        f"out of memory on {device} with {rows} images: reading {fewer} at a time from now on",
        RuntimeWarning,
        stacklevel=stacklevel + 1,
    )
