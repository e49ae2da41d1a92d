"""A Ray that our commands start for themselves: who has not its token cannot join it, whatever the user's settings."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("ray")

from ray_rig import SECONDS, environment

OWN = """
import ray
from clip4str.serving.ray_cluster import connect
connect(None, include_dashboard=False, num_cpus=1)
assert ray.get(ray.remote(lambda: 1).remote()) == 1
print(ray.get_runtime_context().gcs_address, flush=True)
input()
"""
OTHER = """
import sys, ray
ray.init(sys.argv[1], log_to_driver=False)
print("ran", ray.get(ray.remote(lambda: 1).remote()))
"""


@pytest.mark.parametrize("mode", ["token", "disabled"])
def test_who_has_no_token_does_not_get_in(tmp_path, mode):
    """Of the same user, with a token of his own in his home, or with Ray's tokens turned off for all that he starts."""
    variables = environment(HOME=str(tmp_path), RAY_AUTH_MODE=mode)
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("a" * 64)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    own = subprocess.Popen([sys.executable, "-c", OWN], env=variables, **pipes)
    try:
        address = own.stdout.readline().strip()
        assert address
        other = [sys.executable, "-c", OTHER, address]
        done = subprocess.run(other, env=variables, capture_output=True, text=True, timeout=SECONDS)
        assert done.returncode != 0 and "ran" not in done.stdout
        assert "authentication" in done.stderr.lower(), done.stderr
    finally:
        own.communicate("\n", timeout=SECONDS)
    assert own.returncode == 0
