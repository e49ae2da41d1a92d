"""Peak memory of reading a word with B/16, in a process of its own."""

import subprocess
import sys

import pytest

READ_ONE = """
import sys, numpy
from clip4str.runtime import Recognizer
Recognizer.load(sys.argv[1], threads=2).read([numpy.zeros((32, 100, 3), numpy.uint8)])
assert "torch" not in sys.modules
print([int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM")][0])
"""


@pytest.mark.slow
def test_peak_memory_of_base16_stays_below_one_and_a_half_times_its_weights(golden_checkpoint, tmp_path):
    from clip4str.export.bundles import build_bundle

    checkpoint = golden_checkpoint("base16")
    bundle = build_bundle(checkpoint, tmp_path / "base16", min_agreement=0)
    peak = int(subprocess.run([sys.executable, "-c", READ_ONE, bundle], check=True, capture_output=True).stdout)
    assert peak < 1.5 * checkpoint.stat().st_size
