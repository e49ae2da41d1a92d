"""libclip4str_kernels.so from Python without torch: device pointers in, kernels launched on a stream.

The owner of the GPU memory (TensorRT, cupy, cuda.bindings) passes addresses as integers;
kernels/library/clip4str_kernels.h gives the shape and type of each. Needs only ctypes.
"""

from __future__ import annotations

import ctypes
import os
import platform
from pathlib import Path
from typing import Any, ClassVar

from clip4str.core.errors import BackendError, Clip4StrError, DeviceError, LayoutError, ShapeError, UsageError
from clip4str.core.masks import MODES
from clip4str.core.normalization import NORMALIZATION
from clip4str.core.planes import LAYOUTS, MATRICES
from clip4str.kernels.shared.elf import MACHINES, machine_of
from clip4str.kernels.shared.variants import ACTIVATIONS

NAME = "libclip4str_kernels.so"
VARIABLE = "CLIP4STR_KERNELS"  # path of another library
BUILT = "build/kernels"  # where kernels/build.py leaves it in a checkout, in a folder of the processor's name
ABI = 3
NORMALIZATIONS = tuple(NORMALIZATION)
_int, _long, _pointer = ctypes.c_int32, ctypes.c_int64, ctypes.c_uint64
_ERRORS: dict[int, type[Clip4StrError]] = {
    1: UsageError, 2: ShapeError, 3: LayoutError, 4: ShapeError, 5: DeviceError, 6: DeviceError, 7: DeviceError,
}  # fmt: skip


def _fields(kind: Any, names: str) -> list[tuple[str, Any]]:
    return [(name, kind) for name in names.split()]


class Memory(ctypes.Structure):
    """clip4str_memory: keys and values (n, 2, h, length, e) half; strides in elements, all 0 for dense."""

    _fields_: ClassVar = [
        ("data", _pointer),
        ("length", _int),
        *_fields(_long, "stride_sample stride_part stride_head stride_row"),
    ]


class Decoder(ctypes.Structure):
    """clip4str_decoder: sizes and device pointers of a decoder's packed weights."""

    _fields_: ClassVar = [
        *_fields(_int, "T K C d heads F"),
        *_fields(_pointer, "scores values base query_weight query_bias out_weight out_bias up_weight up_bias"),
        *_fields(_pointer, "down_weight down_bias head_weight head_bias"),
    ]


class _Linear(ctypes.Structure):
    _fields_: ClassVar = [
        *_fields(_int, "rows K F normalize activation"),
        *_fields(_pointer, "x weight bias residual out"),
        *_fields(_long, "stride_x stride_residual stride_out"),
    ]


class _CrossAttention(ctypes.Structure):
    _fields_: ClassVar = [
        *_fields(_int, "n T d heads"),
        ("x", _pointer),
        *_fields(Memory, "memory text"),
        *_fields(_pointer, "query_weight query_bias out_weight out_bias out workspace workspace_bytes"),
    ]


class _DecodePass(ctypes.Structure):
    _fields_: ClassVar = [
        ("decoder", ctypes.POINTER(Decoder)),
        *_fields(_int, "n mode"),
        *_fields(_pointer, "ids keep limit"),
        *_fields(Memory, "memory text"),
        *_fields(_pointer, "out_ids probs last unsettled logits workspace workspace_bytes"),
    ]


class _CropResize(ctypes.Structure):
    _fields_: ClassVar = [
        *_fields(_int, "n height width layout matrix full_range normalization out_float32 frame_height frame_width"),
        *_fields(_pointer, "frame chroma"),
        *_fields(_long, "stride chroma_stride"),
        *_fields(_pointer, "quads out"),
    ]


class _Resize(ctypes.Structure):
    _fields_: ClassVar = [
        *_fields(_int, "n height width normalization out_float32"),
        *_fields(_pointer, "pixels pictures out"),
    ]


class _Thumbnail(ctypes.Structure):
    _fields_: ClassVar = [
        *_fields(_int, "height width layout matrix full_range colour frame_height frame_width"),
        *_fields(_pointer, "frame chroma"),
        *_fields(_long, "stride chroma_stride"),
        ("out", _pointer),
    ]


class _Tokenize(ctypes.Structure):
    _fields_: ClassVar = [
        *_fields(_int, "n T characters_count pairs_bits start end"),
        *_fields(_pointer, "ids last characters pairs out"),
    ]


class _Collapse(ctypes.Structure):
    _fields_: ClassVar = [*_fields(_int, "n frames T C"), *_fields(_pointer, "ids out")]


class KernelLibrary:
    """A handle on the library for the CUDA context that is current when it is made.

    path: the library; None takes $CLIP4STR_KERNELS, else the one that came with the package, or that a checkout built.
    network: load only this network's kernels ("small", "base16", ...); None: all. libcuda: the driver's library.

    Launches return at once; what they use must live until the stream has run them. Sizes, pointers and options are
    named as in clip4str_kernels.h, options are given by name ("causal"). Raises BackendError if the library is
    missing or of another version, or the driver fails; DeviceError if there is no driver, no context, or a GPU that the
    library was not built for; launches raise UsageError, ShapeError or LayoutError for bad arguments.
    """

    def __init__(
        self, path: Path | str | None = None, *, network: str | None = None, libcuda: Path | str | None = None
    ) -> None:
        self._handle = ctypes.c_void_p()
        self.path = find_library(path)
        self._c = open_library(self.path)
        self._call(
            "clip4str_kernels_open",
            ctypes.byref(self._handle),
            None if network is None else network.encode(),
            None if libcuda is None else os.fsencode(libcuda),
        )

    @property
    def capability(self) -> tuple[int, int]:
        """The architecture whose kernels are used."""
        number = self._c.clip4str_kernels_capability(self._handle)
        return number // 10, number % 10

    @property
    def architectures(self) -> list[str]:
        """What the library was built for: ["80", "90a", ...]"""
        return self._c.clip4str_kernels_architectures().decode().split()

    def warm(self) -> None:
        """Finish loading every kernel, before the first capture of launches: clip4str_kernels_warm."""
        if not self._handle:
            raise BackendError("the kernel library was closed")
        self._call("clip4str_kernels_warm", self._handle)

    def close(self) -> None:
        """Unload; its context must be current. May be called twice."""
        if self._handle:
            self._c.clip4str_kernels_close(self._handle)
            self._handle = ctypes.c_void_p()

    def __enter__(self) -> KernelLibrary:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def linear(self, *, stream: int = 0, activation: str = "none", **arguments: int) -> None:
        """out = act(n(x) weight^T + bias) + residual: clip4str_linear."""
        activation_ = _number("activation", ACTIVATIONS, activation)
        self._launch("clip4str_linear", _Linear, stream, activation=activation_, **arguments)

    def cross_attention_workspace(self, n: int, T: int, d: int) -> int:
        """Bytes."""
        return self._c.clip4str_cross_attention_workspace(n, T, d)

    def cross_attention(self, *, stream: int = 0, memory: Memory, text: Memory | None = None, **arguments: int) -> None:
        """clip4str_cross_attention."""
        memories = {"memory": memory, "text": text or Memory()}
        self._launch("clip4str_cross_attention", _CrossAttention, stream, **memories, **arguments)

    def decode_pass_workspace(self, decoder: Decoder, n: int) -> int:
        """Bytes."""
        return self._c.clip4str_decode_pass_workspace(ctypes.byref(decoder), n)

    def decode_pass(
        self,
        decoder: Decoder,
        *,
        mode: str,
        memory: Memory,
        text: Memory | None = None,
        stream: int = 0,
        **arguments: int,
    ) -> None:
        """One pass of a decoder over n words: clip4str_decode_pass."""
        given: dict[str, Any] = {"memory": memory, "text": text or Memory(), "mode": _number("mode", MODES, mode)}
        self._launch("clip4str_decode_pass", _DecodePass, stream, decoder=ctypes.pointer(decoder), **given, **arguments)

    def crop_resize(
        self,
        *,
        stream: int = 0,
        layout: str = "rgb",
        matrix: str = "bt601",
        normalization: str = "half",
        **arguments: int,
    ) -> None:
        """Quadrilaterals of a frame to the network's input: clip4str_crop_resize. `stride` is in bytes."""
        options = {
            "layout": _number("layout", LAYOUTS, layout),
            "matrix": _number("matrix", MATRICES, matrix),
            "normalization": _number("normalization", NORMALIZATIONS, normalization),
        }
        self._launch("clip4str_crop_resize", _CropResize, stream, **options, **arguments)

    def resize(self, *, stream: int = 0, normalization: str = "half", **arguments: int) -> None:
        """Pictures of any sizes to the network's input: clip4str_resize."""
        options = {"normalization": _number("normalization", NORMALIZATIONS, normalization)}
        self._launch("clip4str_resize", _Resize, stream, **options, **arguments)

    def thumbnail(self, *, stream: int = 0, layout: str = "rgb", matrix: str = "bt601", **arguments: int) -> None:
        """A whole frame, shrunk: clip4str_thumbnail. `stride` is in bytes."""
        options = {"layout": _number("layout", LAYOUTS, layout), "matrix": _number("matrix", MATRICES, matrix)}
        self._launch("clip4str_thumbnail", _Thumbnail, stream, **options, **arguments)

    def tokenize(self, *, stream: int = 0, **arguments: int) -> None:
        """Characters' ids to byte-pair tokens: clip4str_tokenize."""
        self._launch("clip4str_tokenize", _Tokenize, stream, **arguments)

    def collapse(self, *, stream: int = 0, **arguments: int) -> None:
        """A draft head's frames to words: clip4str_collapse."""
        self._launch("clip4str_collapse", _Collapse, stream, **arguments)

    def _launch(self, function: str, kind: type[ctypes.Structure], stream: int, **values: Any) -> None:
        if not self._handle:
            raise BackendError("the kernel library was closed")
        kinds: dict[str, Any] = dict(kind._fields_)  # type: ignore[arg-type]
        if unknown := [name for name in values if name not in kinds]:
            raise UsageError(f"{function}: {', '.join(unknown)}: no such argument; it takes {', '.join(kinds)}")
        for name, value in values.items():
            if isinstance(value, int) and kinds[name](value).value != value:  # ctypes would truncate it silently
                raise ShapeError(f"{function}: {name} = {value} is out of range")
        self._call(function, self._handle, ctypes.byref(kind(**values)), ctypes.c_void_p(stream))

    def _call(self, function: str, *arguments: Any) -> None:
        message = ctypes.create_string_buffer(256)
        code = getattr(self._c, function)(*arguments, message)
        if code:
            text = message.value.decode(errors="replace") or self._c.clip4str_error_string(code).decode()
            raise _ERRORS.get(code, BackendError)(f"{function}: {text}")


_OF_WHEELS = (
    "the wheels for Linux on x86-64 and arm64 have it, which make wheels makes in a checkout, where "
    "python -m clip4str.kernels builds it alone"
)


def find_library(path: Path | str | None = None) -> Path:
    """Path of the library. Raises BackendError naming the places searched.

    A wheel has it beside this file. In a checkout there is what was built last, for this processor.
    """
    here = Path(__file__).resolve().parent
    given = path or os.environ.get(VARIABLE)
    places = [Path(given)] if given else [here / NAME]
    if checkout := (here.parent / "CMakeLists.txt").is_file() and not given:
        places.append(here.parent / BUILT / platform.machine() / NAME)
    for place in places:
        if place.is_file():
            return place
    for place in places:
        if place.is_symlink():
            raise BackendError(
                f"{place} is a link to {place.readlink()}, which is not there: copy the file that it meant, as with "
                "cp -L or rsync -L"
            )
    looked = " or ".join(map(str, places))
    how = "python -m clip4str.kernels builds it" if checkout else _OF_WHEELS
    raise BackendError(f"no kernel library at {looked}: {how} ({VARIABLE}=PATH names another)")


def open_library(path: Path) -> Any:
    """The library with its functions' types; needs no driver. Raises BackendError if it cannot be loaded or is of
    another ABI."""
    try:
        c = ctypes.CDLL(str(path.resolve()))
        abi = c.clip4str_kernels_abi()
    except (OSError, AttributeError) as e:
        here, machine = platform.machine(), machine_of(path)
        if here in MACHINES.values() and machine not in ("", here):
            raise BackendError(
                f"{path} is for {machine}, here is {here}: take the library for {here}, which its wheel has and "
                f"`python -m clip4str.kernels --machine {here}` builds"
            ) from None
        raise BackendError(f"{path} cannot be loaded as clip4str's kernel library: {e}") from None
    if abi != ABI:
        raise BackendError(
            f"{path} has interface {abi}, this package needs {ABI}: take the library of this version of clip4str, "
            "which its wheel has and `python -m clip4str.kernels` builds"
        )
    for name in ("kernels_version", "kernels_architectures", "error_string"):
        getattr(c, f"clip4str_{name}").restype = ctypes.c_char_p
    c.clip4str_kernels_network.restype = ctypes.c_char_p
    c.clip4str_kernels_close.restype = None
    c.clip4str_cross_attention_workspace.restype = c.clip4str_decode_pass_workspace.restype = ctypes.c_uint64
    return c


def _number(name: str, choices: tuple[str, ...], choice: str) -> int:
    if choice not in choices:
        raise UsageError(f"{name} is one of {', '.join(choices)}, not {choice!r}")
    return choices.index(choice)
