"""Limits of crop_resize and the tiles it works in. Plain Python: importable without triton."""

from __future__ import annotations

from dataclasses import dataclass

from ..shared.variants import MATRICES

LEAST_SIDE, MOST_SIDE = 2, 8192  # pixels of a rectified crop; 2 * MOST_SIDE to the cube must stay far below 2^63
MOST_OUTPUT = 2048  # pixels of the output's height and width: MOST_SIDE * MOST_OUTPUT * 4 must stay below 2^31
MOST_FRAME = 32768  # pixels of the frame's height and width: float32 still resolves 1/256 pixel there
CONVERSIONS = tuple(
    (matrix, full) for full in (False, True) for matrix in MATRICES
)  # the kernel's `conversion` indexes it


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
    no spills there.
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


def yuv_matrix(matrix: str, full_range: bool) -> tuple[int, int, int, int, int, int]:
    """YUV to RGB in units of 2^-20: black, luma, red of V, green of U, green of V, blue of U.

    R = (luma (Y - black) + red (V - 128)) / 2^20, rounded half up, clamped to 0..255; G and B alike. From ITU-R BT.601
    and BT.709: limited range has Y in 16..235 and U, V in 16..240, full range 0..255. Against
    exact weights one colour in 5,000 is a level off, always within 0.0002 of a tie.
    """
    kr, kb = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}[matrix]
    kg = 1 - kr - kb
    y, c = (1.0, 2.0) if full_range else (255 / 219, 2 * 255 / 224)
    weights = (y, c * (1 - kr), -c * (1 - kb) * kb / kg, -c * (1 - kr) * kr / kg, c * (1 - kb))
    return (0 if full_range else 16, *(round(2**20 * w) for w in weights))  # type: ignore[return-value]
