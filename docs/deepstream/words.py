"""Words of cameras or files in DeepStream: python words.py rtsp://gate/1 rtsp://yard/1 > words.jsonl

With --plates, of plate_detector.txt's objects; else of text. Runs where DeepStream 7.1 or newer and its Python bindings
are; see docs/deepstream.md.
"""

from __future__ import annotations

import argparse
import platform
import sys
from contextlib import suppress
from pathlib import Path

try:
    import gi

    gi.require_version("Gst", "1.0")
except (ModuleNotFoundError, ValueError) as error:
    print(
        f"words.py: error: GStreamer's Python is not to be seen here ({error}): apt-get install python3-gi "
        "gir1.2-gstreamer-1.0, and an environment made with python3 -m venv --system-site-packages",
        file=sys.stderr,
    )
    sys.exit(2)
from gi.repository import GLib, Gst

from clip4str import Recognizer
from clip4str.video.deepstream import TextProbe, WordProbe
from clip4str.video.outputs import Jsonl
from clip4str.video.sources.names import public_name

HERE = Path(__file__).parent
JETSON = platform.machine() == "aarch64"
MEMORY = "" if JETSON else "nvbuf-memory-type=3"  # CUDA's unified memory: else reading a surface crashes the process


def description(sources: list[str], plates: bool, display: bool, size: tuple[int, int] = (1920, 1080)) -> str:
    """The pipeline, as gst-launch-1.0 has it."""
    width, height = size
    config = HERE / ("plate_detector.txt" if plates else "text_detector.txt")
    live = int(any("://" in source and not source.startswith("file:") for source in sources))
    screen = "nv3dsink" if JETSON else "nveglglessink"
    shown = f"{screen if display else 'fakesink'} sync=false"
    inputs = " ".join(f"nvurisrcbin name=source{number} ! mux.sink_{number}" for number in range(len(sources)))
    return f"""
        nvstreammux name=mux batch-size={len(sources)} width={width} height={height} live-source={live}
            batched-push-timeout=40000 {MEMORY}
        ! nvvideoconvert {MEMORY} ! video/x-raw(memory:NVMM),format=RGBA
        ! nvinfer name=detector config-file-path={config}
        ! nvtracker name=tracker tracker-width=640 tracker-height=384
            ll-lib-file=/opt/nvidia/deepstream/deepstream/lib/libnvds_nvmultiobjecttracker.so
            ll-config-file=/opt/nvidia/deepstream/deepstream/samples/configs/deepstream-app/config_tracker_NvDCF_perf.yml
        ! nvmultistreamtiler width=1280 height=720 {MEMORY} ! nvdsosd ! {shown}
        {inputs}"""


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("sources", nargs="+", metavar="URI", help="rtsp://..., or file:///...")
    parser.add_argument("--plates", action="store_true")
    parser.add_argument("--display", action="store_true")
    args = parser.parse_args()
    Gst.init(None)
    pipeline = Gst.parse_launch(description(args.sources, args.plates, args.display))
    for number, uri in enumerate(args.sources):
        pipeline.get_by_name(f"source{number}").set_property("uri", uri)
    loop, failed = GLib.MainLoop(), []
    names = [public_name(uri) for uri in args.sources]  # without passwords

    def message(_: Gst.Bus, what: Gst.Message) -> None:
        if what.type == Gst.MessageType.ERROR:
            line = what.parse_error()[0].message
            for uri, name in zip(args.sources, names):
                line = line.replace(uri, name)
            failed.append(line)
        if what.type in (Gst.MessageType.ERROR, Gst.MessageType.EOS):
            loop.quit()

    pipeline.get_bus().add_signal_watch()
    pipeline.get_bus().connect("message", message)
    events = Jsonl("-", names)
    with WordProbe(Recognizer.load(), on_event=events.write) as words:
        if not args.plates:
            pipeline.get_by_name("detector").get_static_pad("src").add_probe(Gst.PadProbeType.BUFFER, TextProbe())
        pipeline.get_by_name("tracker").get_static_pad("src").add_probe(Gst.PadProbeType.BUFFER, words)
        pipeline.set_state(Gst.State.PLAYING)
        with suppress(KeyboardInterrupt):
            loop.run()
        pipeline.set_state(Gst.State.NULL)
    if failed:
        print(failed[0], file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
