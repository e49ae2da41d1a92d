"""Work beside other work in a CUDA graph: a branch that forks off and is joined again."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

from clip4str.kernels.options import options

T = TypeVar("T")

BRANCHES = 3  # of a graph at most: two last passes and a refinement
# torch has 32 streams a device and hands them out in turn to all who ask: one for every branch of every graph would
# soon be somebody else's, too, whose work would go into a capture. Captures take turns, so all may use the same ones.
_streams: dict[torch.device, Iterator[torch.cuda.Stream]] = {}


def beside(work: Callable[[], T], device: torch.device) -> Callable[[], T]:
    """`work` beside what its caller launches between this call and that of what is returned, which gives its result.

    Work may use only what has been launched before, and what is launched meanwhile must not use its result. What is
    returned holds `work`, and so its inputs; keep it until it is called. Outside a capture, on a CPU, or unless
    options() say so, it runs when it is joined.
    """
    asked = options().fork or options().verify_beside
    if device.type != "cuda" or not asked or not torch.cuda.is_current_stream_capturing():
        return work
    if device not in _streams:
        _streams[device] = itertools.cycle([torch.cuda.Stream(device) for _ in range(BRANCHES)])
    branch = next(_streams[device])
    branch.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(branch):
        result = work()

    def join(inputs: object = work) -> T:
        torch.cuda.current_stream(device).wait_stream(branch)
        return result

    return join
