"""A batch of pictures on its way to a backend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from clip4str.core.errors import ImageError

from .images import ImageLike, load_fitted, normalized

Found = list[tuple[int, int] | ImageError]


def without_frames(error: ImageError) -> ImageError:
    """To be handed on and not raised: does not hold what was there where it came from."""
    error.__context__ = None
    return error.with_traceback(None)


class Loading(Protocol):
    """Raises BackendError in `result` alone."""

    def wait(self) -> None:
        """Until what was given is not needed any more: arrays may be changed, files closed."""

    def result(self) -> tuple[Any, Found]:
        """Pixels of those that could be read, as Backend.read takes them, in order; and of every picture the (width,
        height) it had, or why it could not be read. Waits."""

    def close(self) -> None:
        """The pixels are not needed any more. Twice is allowed."""


class HostLoading:
    """On the host, when it is waited for. accept: Backend.accept. size: (height, width)."""

    def __init__(
        self, images: Sequence[ImageLike], size: tuple[int, int], normalization: str, accept: Callable[[Any], Any]
    ) -> None:
        self._images, self._size, self._normalization, self._accept = images, size, normalization, accept
        self._loaded: tuple[Any, Found] | None = None

    def wait(self) -> None:
        if self._loaded is not None:
            return
        found: Found = []
        pictures = []
        for image in self._images:
            try:
                picture, shape = load_fitted(image, self._size)  # at once: full-size images are not kept
            except ImageError as error:
                found.append(without_frames(error))
            else:
                pictures.append(picture)
                found.append(shape)
        self._images = ()
        self._loaded = self._accept(normalized(pictures, self._size, self._normalization)), found

    def result(self) -> tuple[Any, Found]:
        self.wait()
        assert self._loaded is not None
        return self._loaded

    def close(self) -> None:
        self._loaded, self._images = None, ()
