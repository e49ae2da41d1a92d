"""The RTSP camera as a process that is started, told, stopped in its tracks, killed and started again."""

from __future__ import annotations

import signal
import subprocess
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

from clip4str.core.errors import UsageError

PYTHON = "/usr/bin/python3"  # Debian's own, which alone has gi
SERVER = Path(__file__).with_name("rtsp_server.py")
NEEDED = (
    "needs Debian's gir1.2-gst-rtsp-server-1.0, python3-gi, gstreamer1.0-plugins-good and gstreamer1.0-plugins-ugly"
)
_PROBE = """
import gi
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gst, GstRtspServer
Gst.init(None)
assert all(Gst.ElementFactory.find(name) for name in ("x264enc", "textoverlay", "rtpjpegpay"))
"""


@cache
def missing() -> str:
    """What has to be installed for a camera to run; empty if nothing has."""
    try:
        subprocess.run([PYTHON, "-c", _PROBE], check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return NEEDED
    return ""


class Camera:
    """rtsp://127.0.0.1:PORT/camera, the same port for all its lives. Options are rtsp_server.py's.

    >>> with Camera(text="STATION") as camera:
    ...     camera.start()
    ...     camera.kill()
    ...     camera.start(codec="mjpeg")

    Raises UsageError where it does not start.
    """

    def __init__(self, **options: object) -> None:
        self.options, self.port = options, 0
        self._process: subprocess.Popen[str] | None = None

    @property
    def address(self) -> str:
        return f"rtsp://127.0.0.1:{self.port}/camera"

    @property
    def crashed(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    def start(self, **options: object) -> float:
        """Returns once the port accepts: when that was, by time.monotonic()."""
        self.kill()
        words = [word for key, value in {**self.options, **options}.items() for word in (f"--{key}", str(value))]
        command = [PYTHON, str(SERVER), "--port", str(self.port), *words]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._process = process
        assert process.stdout is not None
        said = process.stdout.readline()
        if not said.startswith("ready "):
            self.kill()
            raise UsageError(f"the RTSP server did not start: {said.strip() or NEEDED}")
        self.port = int(said.split()[1])
        return time.monotonic()

    def tell(self, command: str) -> None:
        """A command of rtsp_server.py's: "eos", "text MARKET", "size 240x320", "back 3".
        Does nothing where it has crashed."""
        assert self._process is not None and self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(f"{command}\n")
            self._process.stdin.flush()

    def stall(self) -> None:
        """It sends nothing any more, and its connections stay."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> float:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)
        return time.monotonic()

    def kill(self) -> None:
        """At once: its connections break, and its port refuses others."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    with suppress(BrokenPipeError):
                        pipe.close()
            self._process = None

    def __enter__(self) -> Camera:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
