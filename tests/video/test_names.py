"""Passwords in addresses stay with us."""

import importlib.util
import traceback

import pytest

from clip4str.core.errors import SourceError, UsageError
from clip4str.video.sources import open_source
from clip4str.video.sources.names import public_name

PASSWORD = "s3cr3t"


@pytest.mark.parametrize(
    "uri, name",
    [
        ("rtsp://admin:s3cr3t@10.0.0.5:554/stream1?token=abc#x", "rtsp://10.0.0.5:554/stream1"),
        ("rtsp://admin:p@ss:w@rd@cam.local/h264", "rtsp://cam.local/h264"),
        ("http://host/live.mjpg?user=a&pwd=b", "http://host/live.mjpg"),
        ("rtsp://[fe80::1]:8554/x", "rtsp://[fe80::1]:8554/x"),
        (
            "rtsp://10.0.0.5/user=admin&password=s3cr3t&channel=1/x",
            "rtsp://10.0.0.5/user=admin&password=...&channel=1/x",
        ),
        ("rtsp://10.0.0.5/user=admin_password=s3cr3t_channel=1", "rtsp://10.0.0.5/user=admin_password=..."),
        ("rtsp://admin:s3/cr3t@cam/1", "rtsp://cam/1"),
        ("rtsp://admin:s3cr3t#4x@cam/1", "rtsp://cam/1"),
        ("rtsp://admin:s3cr3t?2@cam/1", "rtsp://cam/1"),
        ("rtsp://admin:s3@cr/3t@cam/1", "rtsp://cam/1"),
        ("/videos/what?.mp4", "/videos/what?.mp4"),
        ("a:b@c.mp4", "a:b@c.mp4"),
        ("line\nbreak.mp4", "line\\nbreak.mp4"),
    ],
)
def test_names_without_user_password_and_query(uri, name):
    assert public_name(uri) == name


def test_an_address_that_is_none():
    for uri in ("rtsp://me:secret@[::1", "http://me:secret@host:port/"):
        with pytest.raises(UsageError) as caught:
            open_source(uri)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize("backend", ["opencv", "av"])
@pytest.mark.parametrize(
    "uri", [f"{scheme}://me:{PASSWORD}@127.0.0.1:9/x?token={PASSWORD}" for scheme in ("rtsp", "http", "ftp")]
)
def test_no_error_tells_a_password(backend, uri, capfd):
    if not importlib.util.find_spec("cv2" if backend == "opencv" else "av"):
        pytest.skip(f"{backend} is not installed")
    with pytest.raises(SourceError) as caught:
        open_source(uri, backend=backend, timeout=1)
    everything = "".join((*traceback.format_exception(caught.value), *capfd.readouterr()))
    assert (PASSWORD not in everything and "127.0.0.1:9/x: cannot be" in everything) or "ftp" in everything
