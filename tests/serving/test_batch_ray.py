"""clip4str batch --engine ray on several machines, one of which dies."""

from __future__ import annotations

import subprocess
import time

import pytest

pytest.importorskip("pyarrow")
pytest.importorskip("ray")

from batch_inputs import batch, command, crops_in, rows
from ray_rig import SECONDS, cluster, environment


def test_a_machine_dies_and_every_input_is_there_once(tmp_path):
    crops = crops_in(tmp_path / "crops", copies=6)
    local, spread = tmp_path / "local.parquet", tmp_path / "ray.parquet"
    assert batch(crops, "--output", local, "--chunk", 4).returncode == 0
    with cluster(1, 1) as made:
        args = command(crops, "--output", spread, "--chunk", 4, "--engine", "ray", "--address", made.address)
        process = subprocess.Popen(args, env=environment(), stderr=subprocess.PIPE, text=True)
        until = time.monotonic() + SECONDS
        while len(list(tmp_path.glob("ray.parquet.job/part-*"))) < 8 and time.monotonic() < until:
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.05)
        made.remove_node(made.nodes[0], allow_graceful=False)
        parts = len(list(tmp_path.glob("ray.parquet.job/part-*")))
        assert 8 <= parts < 48
        said = process.communicate(timeout=2 * SECONDS)[1]
    assert process.returncode == 0, said
    assert rows(spread) == rows(local) and len(rows(local)) == 192


def test_what_is_wrong_is_one_line_and_what_was_done_is_kept(tmp_path):
    crops, output = crops_in(tmp_path / "crops"), tmp_path / "words.parquet"
    with cluster(2) as made:
        ray = ["--engine", "ray", "--address", made.address, "--chunk", 8]
        done = batch(crops, "--output", output, *ray, "--backend", "none")
        assert done.returncode == 2 and "Traceback" not in done.stderr and not output.exists()
        assert batch(crops, "--output", output, *ray).returncode == 0
    assert len(rows(output)) == 32
    done = batch(crops, "--output", tmp_path / "b.parquet", "--engine", "ray", "--address", "127.0.0.1:1")
    assert done.returncode == 2 and "clip4str batch: error: Ray:" in done.stderr and "Traceback" not in done.stderr
