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


def test_what_is_built_is_a_plain_file_and_stays_one(tmp_path):
    """Carried to a board with its links kept, a link would mean nothing there."""
    built = slim(MACHINE)
    assert built.is_file() and not built.is_symlink()
    soname = subprocess.run(["readelf", "-d", built], capture_output=True, text=True, check=True).stdout
    assert f"[{loader.NAME}.1]" in soname and (built.parent / f"{loader.NAME}.1").is_symlink(), "as it is installed"
    (real,) = built.parent.glob(f"{loader.NAME}.*.*.*")
    for gone in ((), (real,)):
        for path in gone:
            path.unlink()
        slim.cache_clear()
        assert not slim(MACHINE).is_symlink(), "built again, with nothing to be linked, and with all"
    assert real.read_bytes() == built.read_bytes()
    shutil.move(shutil.copytree(built.parent, tmp_path / "copy", symlinks=True) / loader.NAME, tmp_path / "alone.so")
    assert loader.open_library(tmp_path / "alone.so").clip4str_kernels_architectures() == b"87"


def test_a_link_to_nothing_is_told_apart_from_nothing(tmp_path, monkeypatch):
    link = tmp_path / loader.NAME
    link.symlink_to(f"{loader.NAME}.1")
    monkeypatch.setenv(loader.VARIABLE, str(link))
    with pytest.raises(BackendError, match=rf"{link} is a link to {loader.NAME}.1, which is not there: .*rsync -L"):
        loader.find_library()
    link.unlink()
    with pytest.raises(BackendError, match=f"no kernel library at {link}: "):
        loader.find_library()


@pytest.mark.parametrize(
    ("header", "machine"),
    [
        (b"\x7fELF\2\1" + bytes(12) + b"%c\0", {"x86_64": "aarch64", "aarch64": "x86_64"}.get(MACHINE, "")),
        (b"\x7fELF\1\2" + bytes(12) + b"\0\x08", r"another processor \(ELF machine 8\)"),
    ],
    ids=["the other", "mips"],
)
def test_a_library_for_another_processor_is_said_to_be(tmp_path, header, machine):
    """By its first bytes alone: the system's word for it is that there is no such file."""
    numbers = {"x86_64": 62, "aarch64": 183}
    path = tmp_path / "lib.so"
    path.write_bytes((header % numbers[machine] if b"%" in header else header) + bytes(100))
    with pytest.raises(BackendError, match=f"lib.so is for {machine}, here is {MACHINE}: .*--machine {MACHINE}`"):
        loader.open_library(path)
    for other in (b"", b"\x7fELF", b"text, of some length"):
        path.write_bytes(other)
        with pytest.raises(BackendError, match="cannot be loaded as clip4str's kernel library"):
            loader.open_library(path)


@pytest.mark.skipif(shutil.which("aarch64-linux-gnu-gcc") is None, reason="gcc-aarch64-linux-gnu makes the library")
@pytest.mark.skipif(MACHINE == "aarch64", reason="it is this machine's")
def test_a_real_library_for_a_board(tmp_path):
    path = tmp_path / "board.so"
    (tmp_path / "a.c").write_text("int clip4str_kernels_abi(void) { return 3; }")
    subprocess.run(["aarch64-linux-gnu-gcc", "-shared", "-fPIC", "-o", path, tmp_path / "a.c"], check=True)
    with pytest.raises(BackendError, match=r"board\.so is for aarch64, here is x86_64") as caught:
        loader.open_library(path)
    assert "\n" not in str(caught.value)


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
