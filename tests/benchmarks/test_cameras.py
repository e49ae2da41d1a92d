"""Needs of many cameras are sums of committed figures."""

from __future__ import annotations

import json
import math

import pytest

from clip4str.benchmarks import cameras
from clip4str.core.console import run_script
from clip4str.core.errors import UsageError

ROW = {"limits": {"decoder": 50}, "shrink_us": 500.0, "search_us": 1500.0, "read_us": 4000.0, "host_ms": 400.0}


def test_needs_by_hand():
    found = cameras.needs(1000, ROW, {"rate": 30.0, "reads_per_frame": 2.0, "busy": 0.8}, 5000)
    assert found["crops"] == 60_000 and found["decoding"] == 20
    assert found["finding"] == math.ceil(2.0 / 0.8) and found["reading"] == 5  # seconds of a device a second
    assert found["hours"] == pytest.approx(4000 / 60 / 0.8 / 3600)  # 4 ms for the 60 words of a second
    assert found["cores"] == 500 and found["files"] == 60_000 * 5000 * 8
    assert found["raw"] == 60_000 * 8 * 3 * 40 * 120


def test_it_prints_a_row_for_every_server(capsys):
    assert run_script("cameras.py", lambda _: cameras.main(["--cameras", "7"])) == 0
    out = capsys.readouterr().out
    report = json.loads((cameras.RESULTS / "streams.json").read_text())
    servers = {device["name"] for device in report["devices"].values() if device["bus"] is not None}
    boards = {device["name"] for device in report["devices"].values()} - servers
    assert servers and boards and all(name in out for name in servers) and not any(name in out for name in boards)
    crops = 7 * report["assumed"]["rate"] * report["assumed"]["reads_per_frame"]
    assert "predicted" in out.lower() and f"7 cameras: {crops:.0f} crops a second" in out
    with pytest.raises(UsageError, match="--cameras is 1 to"):
        cameras.main(["--cameras", "0"])
