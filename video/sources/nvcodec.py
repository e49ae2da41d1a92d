"""Video files decoded on an NVIDIA GPU by PyNvVideoCodec: NV12 frames that never leave it. Opt-in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from clip4str.core.device_array import DeviceArray
from clip4str.core.errors import SourceError, first_line
from clip4str.core.planes import DEEP

from ..frames import Frame
from .base import Picture, Source, check_size
from .times import Clock

INSTALL = "pip install 'clip4str[nvcodec]'; it needs an NVIDIA GPU with a video decoder, and its driver"


class NvCodec(Source):
    """A file from its beginning to its end. Each frame holds until the next one is asked for: the decoder writes into
    the same memory again, so nothing is decoded ahead.

    gpu: its number. Raises SourceError for a file that cannot be opened or decoded, or has more than 8 bits a sample.
    """

    def __init__(self, path: Path, name: str, gpu: int = 0) -> None:
        super().__init__()
        self.name = name
        self._nvc = _library(name)
        try:
            self._demuxer = demuxer = self._nvc.CreateDemuxer(filename=str(path.absolute()))
            check_size(name, (demuxer.Height(), demuxer.Width()))
            if demuxer.BitDepth() > 8:
                raise SourceError(f"{name}: {demuxer.BitDepth()} bits a sample: {DEEP}")
            self._decoder = self._nvc.CreateDecoder(gpuid=gpu, codec=demuxer.GetNvCodecId(), usedevicememory=True)
        except SourceError:
            raise
        except Exception as error:  # its exceptions share no base class
            raise SourceError(f"{name}: PyNvVideoCodec cannot open it ({_said(error)})") from None
        self.size = demuxer.Height(), demuxer.Width()
        self.rate = demuxer.FrameRate() or None
        self._tick = demuxer.GetTimebaseNum() / (demuxer.GetTimebaseDen() or 1)
        self._matrix, self._full = self._colour(demuxer)
        self._clock, self._pictures = Clock(self.rate), self._decoded()

    def __next__(self) -> Frame:
        if self.stopping.is_set():
            raise StopIteration
        frame = self._clock.frame(next(self._pictures))
        return replace(frame, matrix=self._matrix, full_range=self._full)

    def _colour(self, demuxer: Any) -> tuple[str | None, bool]:
        """As the file has it: matrix, None where it does not say; full_range."""
        spaces, ranges = self._nvc.ColorSpace, self._nvc.ColorRange
        matrix = {spaces.BT_601: "bt601", spaces.BT_709: "bt709"}.get(demuxer.ColorSpace())
        return matrix, demuxer.ColorRange() == ranges.JPEG

    def _decoded(self) -> Iterator[Picture]:
        try:
            for packet in self._demuxer:
                decoded = self._decoder.Decode(packet)
                if decoded:
                    # What its frames say of their stream is not the stream that fills them (2.2.4: always 0 or 2).
                    self._decoder.SyncOnCUStream()
                for frame in decoded:
                    yield Picture(self._planes(frame), frame.getPTS() * self._tick, layout="nv12")
        except SourceError:
            raise
        except Exception as error:
            raise SourceError(f"{self.name}: PyNvVideoCodec cannot decode it on ({_said(error)})") from None

    def _planes(self, frame: Any) -> tuple[DeviceArray, ...]:
        if frame.format != self._nvc.Pixel_Format.NV12:
            raise SourceError(f"{self.name}: decodes to {frame.format.name}: NV12 is what is read, 8 bits and 4:2:0")
        planes = []
        for view in frame.cuda():
            told = view.__cuda_array_interface__
            planes.append(DeviceArray(told["data"][0], told["shape"], told["strides"], owner=(frame, self._decoder)))
        return tuple(planes)

    def close(self) -> None:
        self.stopping.set()
        self._pictures = iter(())


def _library(name: str) -> Any:
    try:
        import PyNvVideoCodec
    except ImportError:
        raise SourceError(f"{name}: backend='nvcodec' needs PyNvVideoCodec: {INSTALL}") from None
    except Exception as error:  # no driver: it says so in twenty lines
        raise SourceError(f"{name}: PyNvVideoCodec does not load here ({_said(error)}); {INSTALL}") from None
    return PyNvVideoCodec


def _said(error: Exception) -> str:
    """What it says, up to an empty line, without codes and the places in its own sources."""
    told = str(error).strip().partition("\n\n")[0].splitlines()
    lines = [line.strip() for line in told if not line.startswith(("at ", "Error code"))]
    return first_line(" ".join(lines), 200) or type(error).__name__
