"""The closed family of errors. Each is one line that says what is wrong and what to do; the command line exits 2."""

from __future__ import annotations


class Clip4StrError(Exception):
    """Base of every error that this package raises on purpose. Its message is one line: a file's name in it may hold
    line breaks or terminal escapes, which are shown escaped."""

    def __init__(self, message: object = "") -> None:
        super().__init__(one_line(message))


class CheckpointError(Clip4StrError):
    """A checkpoint cannot be read, or is not one of a CLIP4STR network."""


class UnsafeCheckpointError(CheckpointError):
    """A checkpoint asks to run code while being read. It was not run."""


class CharsetError(Clip4StrError):
    """Characters that the network was not trained for, or a vocabulary of the wrong size."""


class ImageError(Clip4StrError):
    """A file or array is not an image that can be read. index: its place among the images given, from 0, if known."""

    def __init__(self, message: object = "", index: int | None = None) -> None:
        super().__init__(message)
        self.index = index


class BundleError(Clip4StrError):
    """A bundle is missing, damaged, unsafe or newer than this package."""


class BackendError(Clip4StrError):
    """No backend of the wanted kind can run here. option: of the command line, if it is at fault."""

    def __init__(self, message: object = "", option: str = "") -> None:
        super().__init__(message)
        self.option = option


class NonFiniteError(BackendError):
    """The network's arithmetic gave NaN or infinity in the place of a word: damaged weights, or numbers too large for
    the precision. index: the image's place among those given, from 0, if known."""

    def __init__(self, message: object = "", index: int | None = None) -> None:
        super().__init__(message)
        self.index = index


class ParityError(Clip4StrError):
    """A build's answers differ from the float32 network's by more than the gate allows."""


class DataError(Clip4StrError):
    """A data set (an LMDB folder, a word list, fonts) is missing or damaged."""


class SourceError(Clip4StrError):
    """A video, camera, stream or folder of pictures cannot be opened, or not be read on."""


class UsageError(Clip4StrError):
    """An option or argument is out of range, or an output exists already."""


class KernelError(Clip4StrError):
    """A GPU operator cannot do what it was asked. One subclass for each kind of mistake."""


class ShapeError(KernelError):
    """A tensor's shape is not the one expected, or longer than supported."""


class DtypeError(KernelError):
    """A tensor's element type is not one that the operator takes."""


class LayoutError(KernelError):
    """A tensor's elements do not lie in memory as the operator needs them."""


class DeviceError(KernelError):
    """Tensors on different devices, no GPU, or a GPU that was not built for."""


def first_line(error: object, most: int = 300) -> str:
    """What a library's error (or its message) says, on one printable line of at most so many characters; the error's
    type where it says nothing."""
    lines = str(error).strip().splitlines()
    line = "".join(c if c.isprintable() else " " for c in lines[0]).strip() if lines else ""
    if not line and isinstance(error, BaseException):
        return type(error).__name__
    return line if len(line) <= most else f"{line[: most - 3]}..."


def one_line(text: object) -> str:
    """Control characters (line breaks, terminal escapes out of a stranger's file) escaped. The joiners that words of
    Indic scripts and Persian are spelled with are none."""
    kept = (c if c.isprintable() or c in "\u200c\u200d" else c.encode("unicode_escape").decode() for c in str(text))
    return "".join(kept)
