"""What is published: a source package that holds the project, and a wheel made of it that reads a word from any folder
without torch."""

from __future__ import annotations

import email
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import textwrap
import zipfile
from itertools import takewhile
from pathlib import Path

import pytest
from without_torch import PROGRAM

import clip4str
from clip4str.core.packaged import PACKAGED

ROOT = Path(__file__).resolve().parents[1]


def tracked() -> list[str]:
    """The project's files, new ones too."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a clone")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    return [name for name in listed if os.path.lexists(ROOT / name)]


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """The source package, unpacked. Made of a copy: setuptools walks all that lies in a folder."""
    pytest.importorskip("setuptools")
    folder, clone = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("clone")
    for name in tracked():
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, clone / name, follow_symlinks=False)
    command = [sys.executable, "setup.py", "-q", "sdist", "-d", str(folder)]
    subprocess.run(command, cwd=clone, check=True, capture_output=True)
    with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
        archive.extractall(folder, filter="data")
    return folder / f"clip4str-{clip4str.__version__}"


@pytest.fixture(scope="module")
def installed(source, tmp_path_factory) -> Path:
    """The wheel of it, as an installer would leave it."""
    folder = tmp_path_factory.mktemp("wheel")
    make_wheel(source, folder).check_returncode()
    assert [path.name for path in folder.iterdir()] == [f"clip4str-{clip4str.__version__}-py3-none-any.whl"]
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(folder / "site")
    return folder / "site"


@pytest.fixture(scope="module")
def with_kernels(source, tmp_path_factory) -> Path:
    """A Linux wheel with the kernels' library, unpacked."""
    pytest.importorskip("triton")
    sys.path.insert(0, str(ROOT / "tests" / "kernels"))
    from slim_library import slim

    folder = tmp_path_factory.mktemp("kernels")
    make_wheel(source, folder, CLIP4STR_WHEEL_KERNELS=str(slim(platform.machine())))
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(folder / "site")
    return folder


def make_wheel(source: Path, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--wheel-dir", str(folder))
    command = [sys.executable, "-m", "pip", "wheel", *options, str(source)]
    kept = {k: v for k, v in os.environ.items() if k != "CLIP4STR_WHEEL_KERNELS"}
    return subprocess.run(command, env={**kept, **environment}, capture_output=True, text=True)


def in_wheel(installed: Path, cwd: Path, *code: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "CLIP4STR_BUNDLE"} | {"PYTHONPATH": str(installed)}
    return subprocess.run([sys.executable, "-c", *code], cwd=cwd, env=environment, capture_output=True, text=True)


def test_the_wheel_reads_from_any_folder_without_torch(installed, tmp_path):
    shutil.copy(ROOT / "export/sample_crops/01-HAPPENINGS.jpg", tmp_path / "crop.jpg")
    done = in_wheel(installed, tmp_path, PROGRAM, "read", "crop.jpg", "--json", "--quiet", "--threads", "1")
    assert done.returncode == 0 and json.loads(done.stdout)["text"] == "HAPPENINGS", done.stderr
    assert done.stderr.splitlines() == ["no bundle under ./bundles: taking the packaged network, clip4str-small"]


def test_python_reads_too_and_is_the_wheels(installed, tmp_path):
    code = "import clip4str; r = clip4str.Recognizer.load(threads=1); print(r.bundle.folder, clip4str.__file__)"
    done = in_wheel(installed, tmp_path, code)
    assert done.stdout.split() == [str(installed / p) for p in ("clip4str/model/bundled/clip4str-small",
                                                              "clip4str/__init__.py")], done.stderr  # fmt: skip


# What users write about the answers: held by a type checker to what the annotations say.
TYPED = """
from typing_extensions import assert_type

from clip4str import Clip4Str, Clip4StrError, Word, load_checkpoint
from clip4str.runtime import Decoding, ImageError

assert_type(recognizer, Recognizer)
assert_type(recognizer.read(["a.jpg"]), list[Word])
assert_type(recognizer.read([b"", open("a.jpg", "rb")], on_error="skip"), list[Word | None])
assert_type(word.confidence, float)
assert_type(load_checkpoint("a.ckpt"), Clip4Str)
assert_type(ImageError("").index, int | None)
"""


def test_a_users_code_is_typed_through_and_through(installed, tmp_path):
    pytest.importorskip("mypy")
    shown = (ROOT / "README.md").read_text(encoding="utf-8").partition("    from clip4str import Recognizer\n")
    lines = takewhile(lambda line: not line or line.startswith("    "), (shown[1] + shown[2]).splitlines())
    program = textwrap.dedent("\n".join(lines))
    assert "recognizer.read(" in program
    (tmp_path / "use.py").write_text("from __future__ import annotations\n" + program + TYPED)
    (tmp_path / "mypy.ini").write_text(
        "[mypy]\nstrict = true\n[mypy-torch.*]\nfollow_imports = skip\n"
    )  # a minute of its own
    run_mypy = "from mypy.main import main; main(args=['use.py'], clean_exit=True)"
    done = in_wheel(installed, tmp_path, run_mypy)
    assert (done.returncode, done.stdout) == (0, "Success: no issues found in 1 source file\n"), done.stderr


def test_the_wheel_holds_what_runs_and_its_licences(installed):
    names = {str(path.relative_to(installed)) for path in installed.rglob("*") if path.is_file()}
    rooms = {name.split("/")[1] for name in names if name.startswith("clip4str/") and name.count("/") > 1}
    assert rooms == set(clip4str.ROOMS) and "clip4str/py.typed" in names
    assert {f"clip4str/{room}/py.typed" for room in clip4str.ROOMS} <= names
    assert {f"clip4str/model/bundled/clip4str-small/{p.name}" for p in PACKAGED.iterdir()} <= names
    assert {Path(n).name for n in names if "/licenses/" in n or n.endswith(("dist-info/LICENSE", "dist-info/NOTICE"))}
    assert not [n for n in names if n.endswith(".png") or "/results/" in n or n.startswith("tests")]
    about = email.message_from_bytes(next(installed.glob("*.dist-info/METADATA")).read_bytes())
    assert about["Author"] and about["Keywords"] and about.get_all("License-File") == ["LICENSE", "core/data/NOTICE"]
    text = str(about.get_payload())
    assert "# clip4str" in text and not [line for line in text.splitlines() if "](" in line and "](http" not in line]


def test_the_source_package_is_the_project(source):
    """All that is tracked, rooms where they are, links as links: what is done in a clone can be done in it."""
    assert [name for name in tracked() if not os.path.lexists(source / name)] == [".gitignore"]
    assert all((source / "clip4str" / room).is_symlink() for room in clip4str.ROOMS)


def test_a_linux_wheel_has_the_kernels_library_and_finds_it(with_kernels, installed, tmp_path):
    """Beside its loader, without a variable, and nothing else but that and the tag is another wheel's."""
    machine = platform.machine()
    (wheel,) = with_kernels.glob("*.whl")
    assert wheel.name == f"clip4str-{clip4str.__version__}-py3-none-manylinux_2_17_{machine}.whl"
    site, library = with_kernels / "site", "clip4str/kernels/libclip4str_kernels.so"
    names = [{str(path.relative_to(root)) for path in root.rglob("*")} for root in (site, installed)]
    assert names[0] - names[1] == {library} and names[1] <= names[0]
    code = """
from clip4str.kernels import loader
print(loader.find_library())
print(*loader.open_library(loader.find_library()).clip4str_kernels_architectures().decode().split())
loader.KernelLibrary(libcuda="/nowhere/libcuda.so")
"""
    done = in_wheel(site, tmp_path, code)
    assert done.stdout.splitlines() == [str(site / library), "87"]
    assert done.stderr.splitlines()[-1].startswith("clip4str.core.errors.DeviceError: clip4str_kernels_open: no NVIDIA")
    done = in_wheel(installed, tmp_path, code)
    assert "the wheels for Linux on x86-64 and arm64 have it" in done.stderr.splitlines()[-1]


def test_a_wheel_is_not_made_of_another_file(source, tmp_path):
    (tmp_path / "other.so").write_text("no library")
    done = make_wheel(source, tmp_path / "wheels", CLIP4STR_WHEEL_KERNELS=str(tmp_path / "other.so"))
    assert done.returncode != 0 and "other.so is no library for x86_64 or aarch64" in done.stdout + done.stderr
    assert not list(tmp_path.glob("wheels/*.whl"))
