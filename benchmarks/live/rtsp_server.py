"""An RTSP server that shows words on a moving picture. Runs under Debian's own Python, which has gi: see camera.py.

Says "ready PORT" once its port accepts. Commands, a line each on standard input: eos; size WxH; text WORDS; back
SECONDS (the stream's clock, by less than it runs). Ends with its standard input: it outlives nobody who started it.
"""

from __future__ import annotations

import argparse
import sys
import threading
from typing import Any

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

ENCODERS = {
    # a picture that starts anew every second, as cameras' do
    "h264": "x264enc tune=zerolatency speed-preset=ultrafast key-int-max={rate} bitrate=1500 threads=1 ! "
    "rtph264pay name=pay0 pt=96 config-interval=-1",
    "mjpeg": "jpegenc quality=90 ! rtpjpegpay name=pay0 pt=26",
}
PIPELINE = (
    "( videotestsrc is-live=true pattern=ball background-color=0xff303030 foreground-color=0xff505050 ! "
    "capsfilter name=size caps=video/x-raw,format=I420,width={width},height={height},framerate={rate}/1 ! "
    "textoverlay name=words valignment=center halignment=center font-desc=\"DejaVu Sans Bold 32\" "
    "draw-shadow=false draw-outline=false text=\"{text}\" ! "
    "videoflip video-direction={flip} ! videoconvert ! identity name=clock ! {encoder} )"
)  # fmt: skip


class Camera:
    """For each who watches a pipeline of its own: shared ones abort in GStreamer 1.22 when two connect at once."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.width, self.height, self.rate, self.text = args.width, args.height, args.rate, args.text
        self.back: dict[Any, int] = {}  # ns, by media
        server = GstRtspServer.RTSPServer.new()
        server.set_address("127.0.0.1")
        server.set_service(str(args.port))
        factory = GstRtspServer.RTSPMediaFactory.new()
        factory.set_launch(PIPELINE.format(
            width=self.width, height=self.height, rate=self.rate, text=self.text, flip=args.flip,
            encoder=ENCODERS[args.codec].format(rate=self.rate),
        ))  # fmt: skip
        factory.set_shared(False)
        factory.connect("media-configure", self._configured)
        if args.password:
            self._guard(server, factory, args.password)
        server.get_mount_points().add_factory("/camera", factory)
        if not server.attach(None):
            raise SystemExit(f"port {args.port} cannot be had")
        self.server = server
        print(f"ready {server.get_bound_port()}", flush=True)

    def _guard(self, server: Any, factory: Any, password: str) -> None:
        auth = GstRtspServer.RTSPAuth.new()
        token = GstRtspServer.RTSPToken()
        token.set_string(GstRtspServer.RTSP_TOKEN_MEDIA_FACTORY_ROLE, "watcher")
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic("me", password), token)
        server.set_auth(auth)
        factory.add_role_from_structure(
            Gst.Structure.new_from_string(
                "watcher, media.factory.access=(boolean)true, media.factory.construct=(boolean)true"
            )
        )

    def _configured(self, _: Any, media: Any) -> None:
        element = media.get_element()
        element.get_by_name("words").set_property("text", self.text)
        element.get_by_name("clock").get_static_pad("src").add_probe(Gst.PadProbeType.BUFFER, self._set, media)
        self.back[media] = 0
        media.connect("unprepared", self.back.pop)

    def _set(self, _: Any, info: Any, media: Any) -> Any:
        buffer = info.get_buffer()
        buffer.pts = buffer.dts = max(0, buffer.pts - self.back.get(media, 0))
        return Gst.PadProbeReturn.OK

    def command(self, line: str) -> bool:
        """False, for GLib: once."""
        what, _, value = line.partition(" ")
        if what == "text":
            self.text = value
        for media in list(self.back):
            element = media.get_element()
            if what == "back":
                self.back[media] += int(float(value) * 1e9)
            elif what == "eos":
                element.send_event(Gst.Event.new_eos())
            elif what == "text":
                element.get_by_name("words").set_property("text", value)
            elif what == "size":
                width, height = value.split("x")
                caps = f"video/x-raw,format=I420,width={width},height={height},framerate={self.rate}/1"
                element.get_by_name("size").set_property("caps", Gst.Caps.from_string(caps))
        return False


def listen(camera: Camera, loop: Any) -> None:
    for line in sys.stdin:
        GLib.idle_add(camera.command, line.strip())
    loop.quit()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--codec", choices=sorted(ENCODERS), default="h264")
    parser.add_argument("--width", type=int, default=320)
    parser.add_argument("--height", type=int, default=240)
    parser.add_argument("--rate", type=int, default=10)
    parser.add_argument("--text", default="STATION")
    parser.add_argument("--flip", default="identity", help="90r, 180, 90l")
    parser.add_argument("--password", default="", help="of the user 'me'")
    Gst.init(None)
    loop = GLib.MainLoop()
    camera = Camera(parser.parse_args())
    threading.Thread(target=listen, args=(camera, loop), daemon=True).start()
    loop.run()


if __name__ == "__main__":
    main()
