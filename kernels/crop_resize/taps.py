"""Pillow's bicubic weights (integers in units of 2^-22), exact to the bit without float64."""

from __future__ import annotations

import triton
import triton.language as tl

from .fetch import reciprocal


@triton.jit
def first_pixel(place, length, count):
    """First pixel that output `place` reads: the first whose centre is less than two scales before its own."""
    return tl.maximum((2 * place + 1) * length - 4 * tl.maximum(length, count) + count, 0) // (2 * count)


@triton.jit
def end_pixel(place, length, count):
    """One past the last pixel that output `place` reads."""
    return tl.minimum(((2 * place + 1) * length + 4 * tl.maximum(length, count) + count) // (2 * count), length)


@triton.jit
def enlarge(length, count):
    """Both scaled by the power of two that brings the larger to 4096..8192, so that _cubic has 40 to 43 bits."""
    log = (tl.maximum(length, count).to(tl.float32).to(tl.int32, bitcast=True) >> 23) - 127
    shift = tl.maximum(12 - log, 0)
    return length << shift, count << shift


@triton.jit
def _cubic(pixel, place, length, count, end):
    """|bicubic weight| of crop pixels for output places, times 2 q^3, q = 2 max(length, count); and is it positive?

    An integer below 2^44 (int64). The distance is t = n / q scales, n = |(2 pixel + 1) count - (2 place + 1) length|,
    so both branches, 1.5 t^3 - 2.5 t^2 + 1 and -0.5 (t - 1) (t - 2)^2, are integers over 2 q^3. n is clamped to 2 q,
    where they are 0. length and count may both be enlarged; end is the true length.
    """
    q = 2 * tl.maximum(length, count)
    n = tl.minimum(tl.abs((2 * pixel + 1) * count - (2 * place + 1) * length), 2 * q)
    inner = n < q
    rest = 2 * q - n
    square = tl.where(inner, n * n, rest * rest)
    factor = tl.where(inner, 3 * n - 5 * q, n - q)
    whole = tl.where(inner, 2 * q.to(tl.int64) * q * q, 0)
    return tl.where(pixel < end, square.to(tl.int64) * factor.to(tl.int64) + whole, 0), inner


@triton.jit
def share_unit(place, length, count):
    """2^43 over the sum of a place's weights (_cubic), as the sum of two float32 numbers."""
    first = first_pixel(place, length, count)
    taps = (4 * tl.maximum(length, count) + count - 1) // count
    length_enlarged, count_enlarged = enlarge(length, count)
    total = first.to(tl.int64) * 0
    for i in range(taps):
        size, positive = _cubic(first + i, place, length_enlarged, count_enlarged, length)
        total += tl.where(positive, size, -size)
    most = total.to(tl.float32)
    rest = (total - most.to(tl.int64)).to(tl.float32)
    high = reciprocal(most)
    low = (tl.fma(-high, most, 1.0) - high * rest) * high
    return high * 8796093022208.0, low * 8796093022208.0


@triton.jit
def split_weight(pixel, place, unit_high, unit_low, length, count, end):
    """Pillow's integer weight, round(2^22 weight / sum), as two float16 numbers: 4096 high + low.

    The quotient is computed to 2^-20, in pairs of float32 numbers (an error of that size would round to a wrong weight
    once in half a million). Both parts of the result are exact in float16: |high| < 2048, |low| <= 2048.
    """
    size, positive = _cubic(pixel, place, length, count, end)
    upper = (size >> 21).to(tl.int32).to(tl.float32)
    lower = (size.to(tl.int32) & 2097151).to(tl.float32)
    main = upper * unit_high
    error = tl.fma(upper, unit_high, -main) + upper * unit_low + lower * (unit_high * 4.76837158203125e-07)
    whole = tl.floor(main + 0.5)
    whole += tl.floor((main - whole) + error + 0.5)
    weight = tl.where(positive, whole, -whole).to(tl.int32)
    high = (weight + 2048) >> 12
    return high.to(tl.float16), (weight - (high << 12)).to(tl.float16)


@triton.jit
def join(high, low):
    """The products of both parts, integers in float32 -> their sum, int32."""
    return (high.to(tl.int32) << 12) + low.to(tl.int32)


@triton.jit
def rounded(total):
    """Units of 2^-22 -> 0..255, as Pillow's clip8."""
    return tl.minimum(tl.maximum((total + 2097152) >> 22, 0), 255)
