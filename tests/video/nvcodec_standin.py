"""A PyNvVideoCodec over PyAV and a FakeGpu: has what nvcodec_api.json, recorded from the real one, says, and no more.

Like the real one it decodes into the same surface again and again, and a frame is there only once the decoder's stream
was waited for; what its views say of a stream is the recorded nonsense.
"""

from __future__ import annotations

import enum
import json
import re
import types
from pathlib import Path

import numpy as np

API = json.loads(Path(__file__).with_name("nvcodec_api.json").read_text())


def recorded(name):
    """A class of the stand-in: every public name in it is one that the real class has."""

    def check(kind):
        extra = {n for n in vars(kind) if not n.startswith("_")} - set(API["classes"][name])
        assert not extra, f"{name} has no {extra}"
        return kind

    return check


def arguments(function):
    """Names that the real function takes."""
    return set(re.findall(r"[(,] ?(\w+):", " ".join(API["functions"][function])))


def module(cuda, gpu, pitch=256, depth=8, form="NV12", fails_at=None):
    """The module, over a FakeCuda. pitch: the surface's rows are a multiple of it."""
    import av

    nvc = types.ModuleType("PyNvVideoCodec")
    for name, members in API["enums"].items():
        setattr(nvc, name, enum.Enum(name, members))
    for name in API["exceptions"]:
        setattr(nvc, name, type(name, (Exception,), {}))
    nvc.surfaces = []

    @recorded("PyNvDemuxer")
    class Demuxer:
        def __init__(self, path):
            try:
                self._container = av.open(path)
            except av.FFmpegError:
                told = "CreateFormatContext : \nError code : -1\nError Type : avformat_open_input: invalid data"
                raise nvc.PyNvVCException(f"{told}\nat /project/Demuxer.h:984\n") from None
            self._stream = self._container.streams.video[0]

        def Width(self):
            return self._stream.codec_context.width

        def Height(self):
            return self._stream.codec_context.height

        def BitDepth(self):
            return depth

        def FrameRate(self):
            return float(self._stream.average_rate)

        def GetNvCodecId(self):
            return self._stream

        def GetTimebaseNum(self):
            return self._stream.time_base.numerator

        def GetTimebaseDen(self):
            return self._stream.time_base.denominator

        def ColorSpace(self):
            return nvc.ColorSpace.UNSPEC

        def ColorRange(self):
            return nvc.ColorRange.UDEF

        def __iter__(self):
            return self._container.demux(self._stream)  # the last packet is empty, as the real one's

    @recorded("CAIMemoryView")
    class View:
        def __init__(self, shape, strides, address):
            told = API["interface of a view on stream 77"]
            changes = {"shape": shape, "strides": strides, "data": (address, False)}
            self.__cuda_array_interface__ = {**told, **changes}

    @recorded("DecodedFrame")
    class DecodedFrame:
        def __init__(self, decoder, pts):
            self._decoder, self._pts = decoder, pts

        @property
        def format(self):
            return nvc.Pixel_Format[form]

        def getPTS(self):
            return self._pts

        def cuda(self):
            d = self._decoder
            luma = View([d._height, d._width, 1], [d._pitch, 1, 1], d._surface)
            half = [d._height // 2, d._width // 2, 2]
            return [luma, View(half, [d._pitch, 2, 1], d._surface + d._pitch * d._height)]

    @recorded("PyNvDecoder")
    class Decoder:
        def __init__(self, stream):
            self._stream, self._count = stream, 0
            context = stream.codec_context
            self._height, self._width = context.height, context.width
            self._pitch = -(-self._width // pitch) * pitch
            with cuda.current():
                self._surface = cuda.allocate(self._pitch * self._height * 3 // 2)
            nvc.surfaces.append(self._surface)
            self._waiting = None

        def Decode(self, packet):
            self._count += 1
            if self._count == fails_at:
                raise nvc.PyNvVCException("Decode : \nError code : 719\nat /project/NvDecoder.cpp:9\n")
            gpu.view(self._surface, self._pitch * self._height * 3 // 2)[:] = 0xCB  # what was there is gone
            frames = packet.decode()
            assert len(frames) <= 1
            self._waiting = frames[0] if frames else None
            return [DecodedFrame(self, frame.pts) for frame in frames]

        def SyncOnCUStream(self):
            nv12 = self._waiting.reformat(format="nv12").to_ndarray()
            rows = gpu.view(self._surface, self._pitch * len(nv12)).reshape(len(nv12), self._pitch)
            rows[:, : self._width] = nv12

    def create_demuxer(**given):
        assert set(given) <= arguments("CreateDemuxer")
        return Demuxer(given["filename"])

    def create_decoder(**given):
        assert set(given) <= arguments("CreateDecoder") and given["usedevicememory"]
        return Decoder(given["codec"])

    nvc.CreateDemuxer, nvc.CreateDecoder = create_demuxer, create_decoder
    return nvc


def nv12_frames(path):
    """The same frames on the host, by PyAV: their times and pixels."""
    import av

    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            yield float(frame.pts * frame.time_base), np.ascontiguousarray(frame.reformat(format="nv12").to_ndarray())
