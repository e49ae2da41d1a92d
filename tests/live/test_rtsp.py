"""An RTSP server that ends, dies, stalls, and comes back as another one, read by PyAV and by OpenCV."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time

import pytest
from watching import LONG, Watched

from clip4str.benchmarks.live.camera import Camera
from clip4str.runtime import Recognizer
from clip4str.video import Gap, VideoReader, WordEnded, WordFound
from clip4str.video.sources import open_source
from clip4str.video.sources import streams as streams_module

pytestmark = pytest.mark.debian(
    "python3-gi", "gir1.2-gst-rtsp-server-1.0", "gstreamer1.0-plugins-base", "gstreamer1.0-plugins-good",
    "gstreamer1.0-plugins-ugly", "fonts-dejavu-core",
)  # fmt: skip
BACKENDS = ["opencv", "av"] if importlib.util.find_spec("av") else ["opencv"]
each_backend = pytest.mark.parametrize("backend", BACKENDS)
only_av = pytest.mark.skipif("av" not in BACKENDS, reason="needs PyAV: pip install 'clip4str[av]'")


@pytest.fixture
def camera():
    with Camera(rate=25) as camera:
        camera.start()
        yield camera


def reasons(watched: Watched) -> list[str]:
    return [gap.reason for gap in watched.all(Gap)]


@each_backend
def test_a_server_that_ends_its_stream_is_connected_to_again(camera, backend):
    with Watched(camera.address, backend=backend) as watched:
        watched.until_word()
        camera.tell("eos")
        watched.until_word(2)
    assert reasons(watched) == ["reconnected"]
    watched.check()


@each_backend
def test_words_end_while_a_killed_server_is_still_down_and_are_found_again_when_it_is_back(camera, backend):
    with Watched(camera.address, backend=backend) as watched:
        watched.until_word()
        watched.more_frames()
        killed = time.monotonic()
        camera.kill()
        watched.until_ended()  # told with nobody there: not when it is back
        (word,) = watched.all(WordEnded)
        last = watched.frames[-1][2].time
        assert last <= word.end <= last + 0.2 and not watched.all(Gap)
        back = camera.start()
        watched.until_word(2)
    assert reasons(watched) == ["reconnected"]
    (gap,) = watched.all(Gap)
    assert gap.end - gap.start > back - killed - 0.2  # all of the time for which it was down
    watched.check()


@each_backend
@pytest.mark.parametrize(
    "changed, size",
    [
        ({"width": 480, "height": 320}, (320, 480)),
        ({"codec": "mjpeg"}, (240, 320)),
        ({"flip": "90r"}, (320, 240)),  # a camera that was turned upright
        ({"flip": "180"}, (240, 320)),
    ],
    ids=["size", "codec", "turned", "upside down"],
)
def test_a_server_that_comes_back_with_another_picture(camera, backend, changed, size):
    with Watched(camera.address, backend=backend) as watched:
        watched.until_word()
        camera.start(**changed)
        watched.until_word(2)
    first, last = watched.all(WordFound)[0], watched.all(WordFound)[-1]
    assert watched.frames[0][2].size == (240, 320) and watched.frames[-1][2].size == size
    wide, high = (last.quad.max(0) - last.quad.min(0)).tolist()
    assert (high > wide) == (changed.get("flip") == "90r")  # as it is sent: nobody turns it back
    assert first.track != last.track and reasons(watched) == ["reconnected"]
    watched.check()


@only_av
def test_a_size_that_changes_while_connected(camera):
    with Watched(camera.address, backend="av") as watched:
        watched.until_word()
        camera.tell("size 240x320")
        watched.until_word(2)
    assert watched.frames[-1][2].size == (320, 240) and reasons(watched) == ["size changed"]
    watched.check()


@each_backend
def test_a_server_that_sends_nothing_is_left_and_connected_to_again(camera, backend):
    with Watched(camera.address, backend=backend, timeout=2.5) as watched:
        watched.until_word()
        camera.stall()
        watched.until_ended()
        time.sleep(3)  # over the timeout: the connection is given up
        camera.resume()
        watched.until_word(2)
    assert reasons(watched) == ["reconnected"]
    watched.check()


@each_backend
def test_a_stall_that_passes_is_a_gap_of_the_same_connection(camera, backend):
    with Watched(camera.address, backend=backend, timeout=30) as watched:
        watched.until_word()
        camera.stall()
        watched.until_ended()
        time.sleep(2.5)
        camera.resume()
        watched.until_word(2)
    assert reasons(watched)[0] == "stalled" and "reconnected" not in reasons(watched)
    watched.check()


@each_backend
def test_a_clock_that_steps_back_goes_on_forward_for_us(camera, backend):
    with Watched(camera.address, backend=backend) as watched:
        watched.until_word()
        watched.more_frames(50)
        camera.tell("back 1.5")
        watched.until_gap()
        watched.more_frames(30)
        watched.until_word(2)
    assert reasons(watched) == ["time stepped back"]
    watched.check()


@each_backend
def test_a_dead_camera_holds_up_no_other(camera, backend):
    with Camera(rate=25) as other:
        other.start()
        with Watched(camera.address, other.address, backend=backend) as watched:
            watched.until_word(1, 0)
            watched.until_word(1, 1)
            camera.kill()
            watched.until_ended(1, 0)
            watched.more_frames(25, 1)
            camera.start()
            watched.until_word(2, 0)
    assert reasons(watched) == ["reconnected"] and not watched.all(Gap, 1)
    watched.check()


@each_backend
def test_what_stays_away_is_given_up_where_that_is_wanted_and_its_words_end(camera, backend):
    with Watched(camera.address, backend=backend, give_up=3) as watched:
        watched.until_word()
        camera.kill()
        watched._thread.join(LONG)
    assert str(watched.error) == f"{camera.address}: broke off, and gave no frame for 3 s"
    watched.check()


@each_backend
def test_a_password_is_used_again_and_one_that_no_longer_fits_is_shown_to_nobody(backend, capfd, monkeypatch):
    tries = []
    opened = streams_module.Stream._until_worth_a_try
    monkeypatch.setattr(
        streams_module.Stream, "_until_worth_a_try", lambda self: (opened(self), tries.append(time.monotonic()))
    )
    with Camera(rate=25, password="s3cr3t") as camera:
        camera.start()
        address = camera.address.replace("rtsp://", "rtsp://me:s3cr3t@")
        with Watched(address, backend=backend, give_up=8) as watched:
            watched.until_word()
            camera.start()
            watched.until_word(2)
            camera.start(password="another")
            watched._thread.join(LONG)
    assert reasons(watched) == ["reconnected"] and "gave no frame for 8 s" in str(watched.error)
    assert len(tries) < 8  # the waits grow: nobody's account is locked
    watched.check()
    said = "".join(capfd.readouterr())
    assert "s3cr3t" not in said + str(watched.error) and watched.sources[0].name == camera.address


def command_line(address: str) -> subprocess.CompletedProcess[str]:
    code = "import sys; from clip4str.core.cli import main; sys.exit(main(['video', sys.argv[1], '--jsonl', '-']))"
    return subprocess.run([sys.executable, "-c", code, address], capture_output=True, text=True, timeout=2 * LONG)


@pytest.mark.parametrize("given", ["me:wr0ng@", "wr0ng:s3cr3t@", ""])
def test_a_wrong_password_at_the_start_is_one_line_without_it(given):
    with Camera(password="s3cr3t") as camera:
        camera.start()
        done = command_line(camera.address.replace("rtsp://", f"rtsp://{given}"))
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and f"{camera.address}: cannot be opened" in done.stderr
    assert "wr0ng" not in done.stderr and "s3cr3t" not in done.stderr


@each_backend
def test_a_wrong_password_is_refused_at_once_by_both(backend):
    from clip4str.core.errors import SourceError

    with Camera(password="s3cr3t") as camera:
        camera.start()
        with pytest.raises(SourceError, match="cannot be opened") as caught:
            open_source(camera.address.replace("rtsp://", "rtsp://me:wr0ng@"), backend=backend)
    assert "wr0ng" not in str(caught.value)


def test_a_server_that_is_not_there_at_the_start_is_one_line():
    with Camera() as camera:
        camera.start()
        address = camera.address
    done = command_line(address)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
    assert f"{address}: cannot be opened" in done.stderr


def test_the_packaged_network_reads_on_after_a_restart():
    recognizer = Recognizer.load(threads=1)
    with Camera(width=640, height=360, rate=5) as camera:
        camera.start(text="STATION")
        with Watched(camera.address, reader=VideoReader(recognizer)) as watched:
            watched.until_word()
            camera.start(text="MARKET")
            watched.until_word(2)
    assert [word.text for word in watched.all(WordEnded)] == ["STATION", "MARKET"]
    watched.check()
