"""Limits of crop_resize and the tiles it works in. Plain Python: importable without triton."""

from __future__ import annotations

from dataclasses import dataclass

from clip4str.core.planes import MATRICES

MOST_OUTPUT = 2048  # pixels of the output's height and width: MOST_SIDE * MOST_OUTPUT * 4 must stay below 2^31
CONVERSIONS = tuple((matrix, full) for full in (False, True) for matrix in MATRICES)  # the kernel's `conversion` counts


@dataclass(frozen=True)
class CropConfig:
    """One program makes block_y x block_x output pixels from chunks of rows x columns crop pixels.

    All four are powers of two and at least 16 (tensor cores); rows and columns at most 32, or sums would not be exact.
    registers: most per thread, None leaves it to the compiler.
    """

    block_y: int
    block_x: int
    rows: int
    columns: int
    warps: int
    registers: int | None = None


def configuration(height: int, width: int, capability: tuple[int, int] = (9, 0)) -> CropConfig:
    """For outputs of this size. The number and size of the crops are not considered: only the GPU may know them.

    Taller tiles compute fewer weights per pixel. From compute capability 10.0 on they compile to other matrix
    instructions and spill. On 9.0 two programs share a multiprocessor if each uses at most 128 registers, which causes
    no spills there with triton 3.9, and with 3.6 eight to eleven instructions that spill, of some thousands: less than
    a second program is worth.
    """
    if height <= 32 or capability >= (10, 0):
        return CropConfig(32, 32, 16, 16, 4)
    return CropConfig(64, 32, 16, 16, 8, 128 if capability >= (9, 0) else None)


def candidates(height: int, width: int, capability: tuple[int, int] = (9, 0)) -> list[CropConfig]:
    """What a sweep should try, the chosen first."""
    tiles = ((16, 32, 16, 32, 4), (32, 32, 16, 16, 4), (32, 32, 16, 32, 8))
    large = ((64, 32, 16, 16, 4), (64, 32, 16, 16, 8), (64, 64, 16, 16, 8)) if height > 32 else ()
    chosen = configuration(height, width, capability)
    return list(dict.fromkeys((chosen, *(CropConfig(*tile) for tile in (*tiles, *large)))))
