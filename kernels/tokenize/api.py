"""Characters to CLIP tokens, both on the device."""

from __future__ import annotations

import torch
from torch import Tensor

from ..shared.checks import check_contiguous, check_dtype, check_range, check_same_device, check_shape
from ..shared.launch import use_kernel
from .config import TokenizeConfig
from .reference import tokenize_reference
from .tables import SLOTS, TokenizerTables


def tokenize(
    tables: TokenizerTables,
    ids: Tensor,
    last: Tensor | None = None,
    *,
    config: TokenizeConfig | None = None,
    implementation: str = "auto",
) -> Tensor:
    """Tokens of every word's caption: BytePairTokenizer(Charset.caption(ids)), for captions of letters and digits.

        caption = fold(ids before the first 0)              characters outside the test charset dropped
        while a pair of neighbours is a merge:
            merge the pair of the lowest rank wherever it occurs, from left to right
        [start] + symbols + [end], cut to the context (16) with the end kept, zeros behind

    ids: (N, T) int32 on the tables' device, T at most 32, each row dense. Ids that are no characters (negative, start,
    pad, beyond) are dropped; after the first 0 anything may follow. last: (N,) int32, positions from it on are not
    read either. config: None for `configuration`; a word's tokens do not depend on it.

    Returns (N, context) int32. Raises ShapeError, DtypeError, LayoutError, DeviceError, UsageError.
    """
    sizes: dict[str, int] = {}
    check_shape("ids", ids, ("N", "T"), sizes)
    check_range("ids: T", ids.shape[1], 1, SLOTS)
    check_dtype("ids", ids, torch.int32)
    check_contiguous("ids", ids, 1)
    if last is not None:
        check_shape("last", last, ("N",), sizes)
        check_dtype("last", last, torch.int32)
        check_contiguous("last", last)
    device = check_same_device({"tables": tables.pairs, "ids": ids, "last": last})
    if not use_kernel(device, implementation) or len(ids) == 0:
        return tokenize_reference(tables, ids, last)
    from .kernel import tokenize_triton

    return tokenize_triton(tables, ids, last, config)
