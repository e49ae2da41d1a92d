"""What `make test-live` sets up: GStreamer for Python beside our own numpy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

gi = pytest.importorskip("gi", reason="needs GStreamer for Python: make test-live")
pytestmark = pytest.mark.debian("python3-gi", "gir1.2-gst-plugins-base-1.0")


def test_gstreamer_is_debians_and_numpy_is_ours():
    code = "import gi, numpy; gi.require_version('Gst', '1.0'); from gi.repository import Gst; Gst.init(None)\n"
    code += "print(numpy.__file__); print(Gst.version_string())"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    assert Path(out[0]).is_relative_to(Path(sys.prefix).resolve()) or Path(out[0]).is_relative_to(sys.prefix)
    assert out[1].startswith("GStreamer 1.")
