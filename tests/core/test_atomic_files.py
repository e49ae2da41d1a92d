"""Files that appear whole: their permissions are those of any new file, whichever library writes them."""

import os
import subprocess
import sys

import pytest

from clip4str.core.atomic_files import replaced
from clip4str.core.output_files import write_whole

PROGRAM = """
import os, sys
os.umask(int(sys.argv[1], 8))
import torch
from clip4str.model import save_checkpoint, Config, Clip4Str
from clip4str.model.checkpoint import write_temperature
c = Config((8, 8), (8, 8), 8, 1, 8, 1, vocabulary=600, d=8, decoder_mlp=8)
save_checkpoint(Clip4Str(c), sys.argv[2])
print(oct(os.stat(sys.argv[2]).st_mode & 0o777))
write_temperature(sys.argv[2], 2.0)
print(oct(os.stat(sys.argv[2]).st_mode & 0o777))
"""


@pytest.mark.parametrize(("umask", "mode"), [("022", "0o644"), ("027", "0o640"), ("077", "0o600")])
def test_weights_can_be_read_by_those_whom_the_umask_lets(tmp_path, umask, mode):
    command = [sys.executable, "-c", PROGRAM, umask, str(tmp_path / "model.safetensors")]
    ran = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert ran.stdout.split() == [mode, mode], ran.stderr


def test_a_writer_of_private_files_makes_ordinary_ones(tmp_path):
    write_whole(tmp_path / "ordinary", "text")
    with replaced(tmp_path / "private") as partial:
        os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    modes = {(tmp_path / name).stat().st_mode & 0o777 for name in ("ordinary", "private")}
    assert len(modes) == 1 and sorted(p.name for p in tmp_path.iterdir()) == ["ordinary", "private"]
