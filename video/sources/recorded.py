"""What is read from its beginning to its end: files, folders of pictures, pipes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from itertools import chain

from clip4str.core.errors import SourceError

from ..frames import Frame
from .base import Decoder, Picture, Source
from .times import recorded

WHOLE = 0.9  # share of the frames promised; how many there are is an estimate in some containers


class Recorded(Source):
    """A decoder's pictures as frames. The first is decoded at once. Raises SourceError where there is none."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder
        self.name, self.rate, self.frames = decoder.name, decoder.rate, decoder.frames
        try:
            pictures = decoder.pictures()
            first = next(pictures, None)
            if first is None:
                raise SourceError(f"{self.name}: holds no frame that can be decoded")
        except SourceError:
            decoder.close()
            raise
        self.size = Frame(first.pixels, 0.0, layout=first.layout).size
        self._frames = recorded(self._counted(chain([first], pictures)), self.rate, self.frames)
        self._closed = False

    def __next__(self) -> Frame:
        if self._closed:
            raise StopIteration
        return next(self._frames)

    def _counted(self, pictures: Iterator[Picture]) -> Iterator[Picture]:
        """Warns of a file that ends long before it should: that looks like an ordinary end."""
        count = 0
        for picture in pictures:
            count += 1
            self.dropped = self.decoder.dropped
            yield picture
        self.dropped = self.decoder.dropped
        if self.frames and count + self.dropped < WHOLE * self.frames:
            warnings.warn(f"{self.name}: ends after {count} of {self.frames} frames: cut off, or damaged", stacklevel=2)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self.decoder.close()
