"""The kernels' library for arm64, built here by Debian's compiler for it and run in qemu."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "kernels"))
pytest.importorskip("triton")
from slim_library import needed, slim

from clip4str.kernels.loader import NAME

pytestmark = pytest.mark.debian("gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross", "qemu-user")


def test_it_is_built_tested_and_says_that_there_is_no_driver(tmp_path):
    """Its own tests ran when it was built: every cubin unpacked, launches on the stand-in. Here, a user's program."""
    library = slim("aarch64")
    assert library.read_bytes()[18:20] == (183).to_bytes(2, "little"), "EM_AARCH64"
    names, versions = needed(library)
    assert max(versions) <= (2, 17) and "libdl.so.2" in names
    header = Path(__file__).resolve().parents[2] / "kernels" / "library"
    (tmp_path / "user.c").write_text("""
#include <stdio.h>
#include "clip4str_kernels.h"
int main(void) {
  clip4str_kernels *kernels = 0;
  clip4str_message message = {""};
  int code = clip4str_kernels_open(&kernels, 0, 0, &message);
  printf("%s; %s; %s\\n", clip4str_kernels_architectures(), clip4str_error_string(code), message.text);
  return code;
}
""")
    program, link = tmp_path / "user", ["-L", library.parent, f"-l:{NAME}.1", f"-Wl,-rpath,{library.parent}"]
    subprocess.run(["aarch64-linux-gnu-gcc", "-I", header, tmp_path / "user.c", *link, "-o", program], check=True)
    done = subprocess.run(["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu", program], capture_output=True, text=True)
    said, why, detail = done.stdout.strip().split("; ")
    assert (done.returncode, said, why) == (5, "87", "no NVIDIA driver or no usable GPU here"), done.stderr
    assert detail.startswith("no NVIDIA driver here: libcuda.so.1: cannot open shared object file")
