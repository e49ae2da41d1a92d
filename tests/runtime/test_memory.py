"""Memory: what reading takes at most, what closing gives back."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from clip4str.core.errors import BackendError
from clip4str.runtime import Recognizer

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


def test_a_closed_recogniser_gives_its_memory_back_and_says_so_when_asked_to_read(tiny_bundle):
    soak_state = pytest.importorskip("clip4str.benchmarks.soak_state")
    picture = np.zeros((32, 100, 3), np.uint8)
    recognizer = Recognizer.load(tiny_bundle, threads=1)
    recognizer.read([picture])
    before = soak_state.allocated_mb()
    if before is None:
        pytest.skip("the C library does not tell what it has given out")
    recognizer.close()
    recognizer.close()
    weights = sum(path.stat().st_size for path in Path(tiny_bundle).glob("*.onnx")) / 1e6
    assert weights > 0.1 and before - soak_state.allocated_mb() > 0.8 * weights
    with pytest.raises(BackendError, match="this recogniser was closed"):
        recognizer.read([picture])
