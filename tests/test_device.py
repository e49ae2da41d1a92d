"""That tests which say that they ran on a GPU did."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import device
import torch
from torch import Tensor

HERE = Path(__file__).parent


class Pair(NamedTuple):
    first: Tensor
    second: Tensor


def test_where_a_gpu_is_required_its_absence_fails(tmp_path):
    (tmp_path / "conftest.py").write_text((HERE / "conftest.py").read_text())
    (tmp_path / "test_some.py").write_text(
        "import pytest\nfrom device import needs_gpu\n"
        "@pytest.mark.gpu\ndef test_anywhere(): pass\n"
        "@needs_gpu\n@pytest.mark.gpu\ndef test_there(): pass\n"
        "@pytest.mark.skip\ndef test_other(): pass\n"
    )
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = gpu\n")
    environment = {
        **os.environ,
        "CLIP4STR_TEST_DEVICE": "cpu",
        "PYTHONPATH": os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        f"--rootdir={tmp_path}",
        str(tmp_path),
    ]
    for required, counts in (("0", "1 passed, 2 skipped"), ("1", "1 skipped, 2 errors")):
        given = {**environment, "CLIP4STR_REQUIRE_GPU": required}
        out = subprocess.run(command, capture_output=True, text=True, env=given, cwd=tmp_path).stdout
        assert counts in out and ("torch sees no GPU" in out and "was not run" in out) == (required == "1"), out


def test_tf32_is_off_whatever_the_image_exports():
    code = (
        "import os, device, torch\n"
        "print(torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32,\n"
        "      os.environ['NVIDIA_TF32_OVERRIDE'], 'TORCH_ALLOW_TF32_CUBLAS_OVERRIDE' in os.environ)\n"
    )
    exported = {**os.environ, "NVIDIA_TF32_OVERRIDE": "1", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=exported, cwd=HERE)
    assert done.stdout.split() == ["False", "False", "0", "False"], done.stdout + done.stderr


def test_tensors_go_as_they_lie_and_come_back_as_they_went(monkeypatch):
    monkeypatch.setattr(device, "ON_GPU", True)
    wide = torch.arange(24.0).view(4, 6)
    x, beside, out = wide[:, 1:4], wide[::2], Pair(torch.zeros(2), torch.zeros(2))
    seen = []

    def launch(x: Tensor, beside: Tensor, out: Pair) -> tuple[Pair, Tensor]:
        seen.extend((x, beside))
        x += 100
        out.second[:] = 7
        return out, beside + 0

    returned, copied = device.there(launch)(x, beside, out=out)
    assert [s.stride() for s in seen] == [x.stride(), beside.stride()] and seen[0].data_ptr() != x.data_ptr()
    assert seen[0].untyped_storage().data_ptr() == seen[1].untyped_storage().data_ptr(), "what was shared still is"
    assert returned is out and out.second.tolist() == [7, 7] and not out.first.any()
    assert wide[0].tolist() == [0, 101, 102, 103, 4, 5] and torch.equal(copied, beside)


def test_only_what_is_asked_of_the_kernel_goes(monkeypatch):
    monkeypatch.setattr(device, "ON_GPU", True)
    x = torch.zeros(2)

    def operator(x: Tensor, implementation: str = "auto") -> bool:
        return x.data_ptr() == given

    given = x.data_ptr()
    run = device.there(operator)
    assert run(x) and run(x, implementation="reference") and not run(x, implementation="triton")
