"""The draft head: reads the image tower's tokens in one linear step, for a first guess at the word.

Connectionist temporal classification (Graves et al., "Connectionist Temporal Classification: Labelling Unsegmented
Sequence Data with Recurrent Neural Networks", ICML 2006) over the columns of patches. Not a part of the published
network: what it says never decides a word, it is where fixed-point decoding starts (core/driver.py), so that a word
which it reads rightly needs one pass of a decoder instead of several.
"""

from __future__ import annotations

from torch import Tensor, nn

from .config import Config

FRAMES = 32  # at least, so that any word of 25 characters fits between blanks


def frames_per_column(grid: tuple[int, int], steps: int = 26) -> int:
    """Frames that each column of a (rows, columns) grid of patches should have, for words of steps - 1 characters."""
    return -(-max(FRAMES, steps + 6) // grid[1])


class DraftHead(nn.Linear):
    """A frame says which character it shows, or 0: none, or the same one still.

    Rows of patches are laid side by side, so weight is (frames per column * classes, rows * d).
    """

    def __init__(self, c: Config) -> None:
        self.grid, self.classes = c.grid, len(c.charset) + 1
        super().__init__(c.grid[0] * c.d, c.draft_frames * self.classes)

    def forward(self, memory: Tensor) -> Tensor:
        """memory (N, M, d), the class token first -> logits (N, columns * frames per column, C)"""
        columns = memory[:, 1:].unflatten(1, self.grid).transpose(1, 2).flatten(2)
        return super().forward(columns).unflatten(2, (-1, self.classes)).flatten(1, 2)
