"""gst-launch-1.0 and gst-inspect-1.0 with the element, in a shell set up as docs/gstreamer.md says."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from gst_pipelines import NEEDED, source, words

pytestmark = [NEEDED, pytest.mark.debian("gstreamer1.0-tools", "gstreamer1.0-python3-plugin-loader")]
ROOT = Path(__file__).resolve().parents[2]


def shell(command: str, folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """In another folder, with a registry of plugins of its own, and only what is exported there."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GST_") and name != "PYTHONPATH"}
    environment = {**kept, "GST_REGISTRY": str(folder / "registry.bin"), **more}
    line = f'eval "$({shlex.quote(sys.executable)} -m clip4str.video.gstreamer)"; {command}'
    return subprocess.run(["bash", "-c", line], cwd=folder, env={**environment, "PYTHONPATH": str(ROOT)},
                          capture_output=True, text=True, timeout=240)  # fmt: skip


def test_gst_launch_prints_the_words(tmp_path):
    pipeline = f"{source(20)} ! {words('HELLO')} ! clip4strreader threads=1 wait=true ! fakesink"
    done = shell(f"gst-launch-1.0 -m {pipeline}", tmp_path)
    assert done.returncode == 0, done.stderr
    ended = [line for line in done.stdout.splitlines() if "clip4str-word-ended" in line]
    assert len(ended) == 1 and "text=(string)HELLO" in ended[0] and "end=(guint64)800000000" in ended[0]


def test_gst_inspect_lists_the_properties(tmp_path):
    done = shell("gst-inspect-1.0 clip4strreader", tmp_path)
    assert done.returncode == 0, done.stderr
    for name in ("bundle", "backend", "long-side", "pattern", "max-latency", "region", "wait"):
        assert f"  {name} " in done.stdout


@pytest.mark.parametrize(
    "value, line",
    [
        ("pattern=[", "pattern '[' is no regular expression"),
        ("long-side=5", "long_side is 64 to 4096 pixels, not 5"),
        ("detect-every=500", "detect_every is 1 to 120 frames, not 500"),
        ("detect-every=-1", "detect_every is 1 to 120 frames, not -1"),
        ("region=5", "region is x,y,width,height in pixels"),
        ("threads=-3", "threads is 1 to 1024, or 0 for all, not -3"),
        ("max-latency=-4", "max-latency is a time in milliseconds, or 0, not -4"),
        ("bundle=/nowhere", "/nowhere: no such bundle folder"),
        ("lexicon=/nowhere", "/nowhere: cannot be read as a lexicon"),
        ("detector-model=/nowhere", "detector-model: there is no file /nowhere"),
        ("backend=what", "unknown backend 'what'"),
    ],
)
def test_a_bad_value_is_an_error_in_one_line(tmp_path, value, line):
    done = shell(
        f"gst-launch-1.0 -q videotestsrc num-buffers=3 ! clip4strreader {shlex.quote(value)} ! fakesink", tmp_path
    )
    errors = [each for each in done.stderr.splitlines() if each.startswith("ERROR: from element")]
    assert done.returncode != 0 and len(errors) == 1 and line in errors[0], done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("module", ["cv2", "numpy", "onnxruntime"])
def test_what_gstreamers_python_lacks_is_an_error_in_one_line(tmp_path, module):
    """As in an environment of another version's."""
    (tmp_path / f"{module}.py").write_text("raise ImportError('undefined symbol: PyThing', name=__name__)")
    pipeline = "gst-launch-1.0 -q videotestsrc num-buffers=3 ! clip4strreader ! fakesink"
    done = shell(f"PYTHONPATH={tmp_path}:$PYTHONPATH {pipeline}", tmp_path)
    errors = [each for each in done.stderr.splitlines() if each.startswith("ERROR: from element")]
    assert done.returncode != 0 and len(errors) == 1, done.stderr
    assert module in errors[0] and "Traceback" not in done.stderr


def test_who_has_other_plugins_keeps_them(tmp_path):
    said = shell(
        'echo "$GST_PLUGIN_PATH"; echo "$GST_PLUGIN_PATH_1_0"', tmp_path, GST_PLUGIN_PATH="/other place"
    ).stdout
    assert said.splitlines() == [f"{ROOT}/clip4str/video/gstreamer:/other place", ""]
    said = shell('echo "$GST_PLUGIN_PATH_1_0"', tmp_path, GST_PLUGIN_PATH_1_0="/other").stdout  # it alone would count
    assert said.splitlines() == [f"{ROOT}/clip4str/video/gstreamer:/other"]


def test_what_keeps_gstreamer_from_loading_it_is_said(tmp_path):
    done = shell("true", tmp_path, GST_PLUGIN_SYSTEM_PATH=str(tmp_path))
    assert done.stderr.splitlines() == [
        "clip4strreader: GStreamer's loader of Python plugins does not work: "
        "apt-get install gstreamer1.0-python3-plugin-loader libpython3-dev"
    ]
