"""The library by one command: the same bytes again, loadable on old systems, found where it was built or installed."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from clip4str.core.errors import BackendError
from clip4str.kernels import loader

pytest.importorskip("triton")
from compiled_kernels import KEPT
from slim_library import SLIM, command, needed, slim

MACHINE = platform.machine()
pytestmark = pytest.mark.skipif(MACHINE not in ("x86_64", "aarch64"), reason="builds for neither of its processors")


def test_another_build_in_another_folder_has_the_same_bytes(tmp_path):
    """Some kernels compiled anew, with none of Triton's own cache, and everything linked anew."""
    first, folder = slim(MACHINE), tmp_path / "with a longer name"
    cache = folder / "cubins" / "cache"
    shutil.copytree(KEPT / "slim" / "cubins" / "cache", cache)
    cubins = sorted(cache.glob("*.cubin"), key=lambda path: (path.stat().st_size, path.name))
    for cubin in cubins[:3]:
        for suffix in (".cubin", ".json", ".lz4"):
            cubin.with_suffix(suffix).unlink()
    done = command("--machine", MACHINE, *SLIM, "--output", str(folder), "--no-test",
                   TRITON_CACHE_DIR=str(tmp_path / "triton"))  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "triton").iterdir()), "nothing was compiled"
    again = folder / MACHINE / loader.NAME
    assert again.read_bytes() == first.read_bytes()
    assert done.stdout.splitlines()[-1].startswith(f"{again}: ") and "not tested" in done.stdout
    assert str(tmp_path).encode() not in again.read_bytes()


def test_it_loads_on_systems_with_glibc_2_17():
    names, versions = needed(slim(MACHINE))
    assert max(versions) <= (2, 17), "the wheels' platform, manylinux_2_17, says so"
    assert set(names) == {"libc.so.6", "libdl.so.2"}, "older than 2.34, libc has no dlopen"


def test_a_checkout_finds_what_it_built_and_the_variable_comes_first(monkeypatch, tmp_path):
    """Beside a copy of the loader, since this checkout may have libraries of its own."""
    built = tmp_path / loader.BUILT / MACHINE / loader.NAME
    monkeypatch.setattr(loader, "__file__", str(tmp_path / "kernels" / "loader.py"))
    monkeypatch.delenv(loader.VARIABLE, raising=False)
    (tmp_path / "kernels").mkdir()
    with pytest.raises(BackendError, match=r"no kernel library at .*kernels/lib\w+.so: the wheels for Linux"):
        loader.find_library()
    (tmp_path / "CMakeLists.txt").touch()
    with pytest.raises(BackendError, match=rf"{built}: python -m clip4str.kernels builds it \(CLIP4STR_KERNELS=PATH"):
        loader.find_library()
    built.parent.mkdir(parents=True)
    shutil.copy(slim(MACHINE), built)
    assert loader.find_library() == built
    assert loader.open_library(built).clip4str_kernels_architectures() == b"87"
    installed = tmp_path / "kernels" / loader.NAME
    shutil.copy(slim(MACHINE), installed)
    assert loader.find_library() == installed
    monkeypatch.setenv(loader.VARIABLE, str(built))
    assert loader.find_library() == built


def test_a_library_of_another_version_is_one_line(tmp_path):
    if shutil.which("gcc") is None:
        pytest.skip("gcc makes the library")
    (tmp_path / "old.c").write_text("int clip4str_kernels_abi(void) { return 1; }")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", tmp_path / "old.so", tmp_path / "old.c"], check=True)
    with pytest.raises(BackendError, match=f"old.so has interface 1, this package needs {loader.ABI}: ") as caught:
        loader.open_library(tmp_path / "old.so")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "path", "message"),
    [
        (("--machine", "mips"), None, "--machine: mips unknown; there are x86_64, aarch64"),
        (("--arch", "sm_61"), None, "--architectures: 'sm_61' is not one like 87 or 9.0; 80 is the least"),
        (("--arch", "99"), None, "--architectures: 99 unknown; there are 80,86,87,89,90,"),
        (("--networks", "tiny"), None, "--networks: tiny unknown"),
        ((), ("cmake",), "gcc is not on the PATH: apt-get install gcc"),
        ((), (), "cmake is not on the PATH: apt-get install cmake, or pip install cmake"),
    ],
)
def test_mistakes_are_one_line(options, path, message, tmp_path):
    environment = {} if path is None else {"PATH": str(tmp_path)}
    for tool in path or ():
        (tmp_path / tool).symlink_to(Path(shutil.which(tool) or "/bin/true"))
    done = command(*options, "--output", str(tmp_path / "out"), **environment)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert message in done.stderr and not (tmp_path / "out").exists()
