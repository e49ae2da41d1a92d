"""libclip4str_kernels.so for one GPU and the smallest network, by the command that builds it; kept in build/."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from compiled_kernels import KEPT, ROOT, alone, compiled

from clip4str.kernels.loader import NAME

SLIM = ("--arch", "sm_87", "--networks", "small")


def command(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: kernels are interpreted in this one."""
    kept = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = [sys.executable, "-m", "clip4str.kernels", *options]
    return subprocess.run(done, cwd=ROOT, env={**kept, "PYTHONPATH": str(ROOT), **environment},
                          capture_output=True, text=True, timeout=600)  # fmt: skip


@functools.cache
def slim(machine: str) -> Path:
    """The library for a processor."""
    if not (shutil.which("cmake") and shutil.which("gcc")):
        pytest.skip("building the C library needs cmake and gcc")
    compiled()
    folder = KEPT / "slim"
    with alone():
        shutil.copytree(KEPT / "cubins" / "cache", folder / "cubins" / "cache", dirs_exist_ok=True)
        done = command("--machine", machine, *SLIM, "--output", str(folder))
    assert done.returncode == 0, done.stderr
    assert f"{folder / machine / NAME}: " in done.stdout and ", tested" in done.stdout
    return folder / machine / NAME


def needed(library: Path) -> tuple[list[str], list[tuple[int, ...]]]:
    """Libraries that it names, and versions of glibc, by binutils, which read every processor's files."""
    said = subprocess.run(["readelf", "--wide", "-d", "-V", library], capture_output=True, text=True, check=True).stdout
    names = [line.partition("[")[2].rstrip("]") for line in said.splitlines() if "(NEEDED)" in line]
    versions = [line.partition("GLIBC_")[2].split()[0] for line in said.splitlines() if "Name: GLIBC_" in line]
    return names, [tuple(map(int, version.split("."))) for version in versions]
