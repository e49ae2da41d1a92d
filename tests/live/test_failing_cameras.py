"""The benchmarks of failing cameras run, for seconds."""

from __future__ import annotations

import json

import pytest

from clip4str.benchmarks import live_soak, recovery

pytest.importorskip("av", reason="needs PyAV: pip install 'clip4str[av]'")
pytestmark = pytest.mark.debian(
    "python3-gi", "gir1.2-gst-rtsp-server-1.0", "gstreamer1.0-plugins-base", "gstreamer1.0-plugins-good",
    "gstreamer1.0-plugins-ugly", "fonts-dejavu-core",
)  # fmt: skip


def test_recovery_is_measured(tmp_path):
    recovery.main(["--lengths", "0.5", "--rates", "15", "--json", str(tmp_path / "r.json")])
    made = json.loads((tmp_path / "r.json").read_text())
    assert [(row["kind"], row["client"]) for row in made["outages"]] == [
        (kind, client) for kind in ("killed", "hangs") for client in ("av", "opencv")
    ]
    assert all(0 <= row["s"] < 60 and row["away"] >= 0.5 for row in made["outages"])


def test_a_failing_camera_is_soaked(tmp_path):
    live_soak.main(["--minutes", "0.8", "--every", "15", "--json", str(tmp_path / "s.json")])
    made = json.loads((tmp_path / "s.json").read_text())
    assert made["words"]["found"] == made["words"]["ended"] > 2 and made["words"]["lost"] == made["back_steps"] == 0
    assert {outage["failure"] for outage in made["outages"]} == {"ended", "killed"} and not made["error"]
    assert made["words"]["right_of_these"] > made["words"]["read_thrice"] / 2
