"""For choosing tiles: powers of two, and limits of GPUs. Plain Python: importable without triton."""

from __future__ import annotations

SHARED_LIMIT = {80: 163, 86: 99, 87: 163, 89: 99, 90: 227, 100: 227, 110: 227, 120: 99}  # KB per program
DEPENDENT_CAPABILITY = (9, 0)  # from here on kernels may start before the one ahead has ended, see dependent.py
MULTIPROCESSORS = {80: 108, 86: 84, 87: 16, 89: 142, 90: 132, 100: 148, 110: 20, 120: 170}  # of the largest GPU each

# Rows up to which `linear` is one fused kernel: a guess, see its `by_library`; benchmarks/gpu_suite.py measures it.
FUSED_ROWS = 2048


def most_multiprocessors(capability: tuple[int, int]) -> int:
    """Of the largest GPU of this compute capability: tiles are chosen by it, so that what is compiled ahead of time is
    what is launched on any of them."""
    return MULTIPROCESSORS.get(10 * capability[0] + capability[1], 132)


def shared_limit(capability: tuple[int, int]) -> int:
    """Bytes of shared memory that one program may use."""
    return 1024 * SHARED_LIMIT.get(10 * capability[0] + capability[1], 99)


def power_of_two(n: int, least: int = 1) -> int:
    """The smallest power of two that is at least n and `least`."""
    return max(least, 1 << (n - 1).bit_length())


def block_of(K: int, wanted: int) -> int:
    """Block size for K: a power of two up to `wanted`, a divisor of K if K has one of 32 or more."""
    divisor = K & -K
    return min(wanted, divisor if divisor >= 32 else power_of_two(K, 16))
