"""From a draft head's logits to words, on the device."""

from __future__ import annotations

import torch
from torch import Tensor

from clip4str.core.drafts import MOST_FRAMES

from ..shared.checks import (
    FLOATS,
    check_contiguous,
    check_dtype,
    check_range,
    check_same_device,
    check_shape,
)
from ..shared.launch import use_kernel
from .config import CollapseConfig
from .reference import collapse_frames_reference, collapse_reference

MOST_CLASSES, MOST_STEPS = 65536, 1024


def collapse(
    logits: Tensor, steps: int, *, config: CollapseConfig | None = None, implementation: str = "auto"
) -> Tensor:
    """The best path of connectionist temporal classification (Graves et al., ICML 2006), as the first guess of a word.

        id of a frame = argmax of its logits            the first of equals; 0: no character
        word = ids with repeats merged, then without 0  cut to steps - 1, zeros behind

    logits: (N, F, C) contiguous, float16, bfloat16 or float32, F at most 1024. config: None for `configuration`; a
    word does not depend on it. NaN logits give an arbitrary word of the C - 1 characters.

    Returns (N, steps) int32, as core.drafts.collapse does. Raises ShapeError, DtypeError, LayoutError, DeviceError,
    UsageError.
    """
    check_shape("logits", logits, ("N", "F", "C"), {})
    check_range("logits: F", logits.shape[1], 1, MOST_FRAMES)
    check_range("logits: C", logits.shape[2], 1, MOST_CLASSES)
    check_range("steps", steps, 1, MOST_STEPS)
    check_dtype("logits", logits, FLOATS)
    check_contiguous("logits", logits)
    if not use_kernel(check_same_device({"logits": logits}), implementation) or len(logits) == 0:
        return collapse_reference(logits, steps)
    from .kernel import collapse_triton

    return collapse_triton(logits, steps, config)


def collapse_frames(ids: Tensor, steps: int, classes: int, *, implementation: str = "auto") -> Tensor:
    """The same of frames whose argmax is done, as engines give them: what is no id of a character, 1 to classes - 1,
    shows none.

    ids: (N, F) int32 contiguous, F at most 1024. Returns (N, steps) int32. Raises ShapeError, DtypeError, LayoutError,
    DeviceError, UsageError.
    """
    check_shape("ids", ids, ("N", "F"), {})
    check_range("ids: F", ids.shape[1], 1, MOST_FRAMES)
    check_range("classes", classes, 1, MOST_CLASSES)
    check_range("steps", steps, 1, MOST_STEPS)
    check_dtype("ids", ids, torch.int32)
    check_contiguous("ids", ids)
    if not use_kernel(check_same_device({"ids": ids}), implementation) or len(ids) == 0:
        return collapse_frames_reference(ids, steps, classes)
    from .kernel import collapse_frames_triton

    return collapse_frames_triton(ids, steps, classes)
