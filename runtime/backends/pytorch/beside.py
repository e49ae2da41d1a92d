"""Work beside other work in a CUDA graph: a branch that forks off and is joined again."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from clip4str.kernels.options import options

T = TypeVar("T")


def beside(work: Callable[[], T], device: torch.device) -> Callable[[], T]:
    """`work` beside what its caller launches between this call and that of what is returned, which gives its result.

    Work may use only what has been launched before, and what is launched meanwhile must not use its result; its inputs
    must be kept until it is joined. Outside a capture, on a CPU, or if options() say so, it runs when it is joined.
    """
    asked = options().fork or options().verify_beside
    if device.type != "cuda" or not asked or not torch.cuda.is_current_stream_capturing():
        return work
    branch = torch.cuda.Stream(device)
    branch.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(branch):
        result = work()

    def join() -> T:
        torch.cuda.current_stream(device).wait_stream(branch)
        return result

    return join
