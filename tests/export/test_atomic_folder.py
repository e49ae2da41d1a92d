"""Bundles appear whole or not at all: whoever is killed, whoever builds beside, and whatever stood there before."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from clip4str.core.errors import UsageError
from clip4str.core.text import CHARSET_36, CHARSET_94
from clip4str.export import atomic_folder as module
from clip4str.export.atomic_folder import atomic_folder, check_target
from clip4str.runtime.bundle import STAGES, Bundle, Manifest, describe_file, write_manifest

CONFIG = {
    "image_size": [32, 128], "patch_size": [8, 8], "steps": 26, "context": 16, "vocabulary": 1024, "d": 64,
    "decoder_heads": 8,
}  # fmt: skip
EMPTY_GRAPH = b"\x08\x08"  # ir_version 8, and nothing else


def fill(folder: Path, name: str) -> None:
    for stage in STAGES:
        (folder / f"{stage}.onnx").write_bytes(EMPTY_GRAPH)
    (folder / "MODEL_CARD.md").write_text(name)
    stages = {stage: f"{stage}.onnx" for stage in STAGES}
    files = {path: describe_file(folder / path) for path in [*stages.values(), "MODEL_CARD.md"]}
    write_manifest(folder, Manifest(name, CONFIG, CHARSET_94, CHARSET_36, "half", "fp32", 4, files, stages))


def publish(target: Path, name: str, force: bool = True) -> None:
    with atomic_folder(target, force) as folder:
        fill(folder, name)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(params=["exchanged", "one after the other"])
def way(request, monkeypatch):
    """Folders change places in one move, or, where the system cannot, are moved one after the other."""
    if request.param == "exchanged" and not sys.platform.startswith("linux"):
        pytest.skip("only Linux exchanges two folders")
    if request.param != "exchanged":
        monkeypatch.setattr(module, "exchange", lambda *_: False)
    return request.param


def killed_at(step: int, target: Path) -> bool:
    """Publish "new" in a process that is killed outright before its step-th new line of atomic_folder.py; False where
    there are fewer."""
    process = os.fork()
    if process:
        return os.WIFSIGNALED(os.waitpid(process, 0)[1])
    lines = set()

    def trace(frame, event, _):
        if frame.f_code.co_filename != module.__file__:
            return None
        if event == "line":
            lines.add(frame.f_lineno)
            if len(lines) > step:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    try:
        sys.settrace(trace)
        publish(target, "new")
        sys.settrace(None)
    finally:
        os._exit(0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a fork of this process")
@pytest.mark.parametrize("existing", [True, False])
def test_a_build_killed_at_any_line_leaves_the_old_bundle_or_the_new_one(way, existing, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "flush", lambda _: None)  # which takes the most time, and is for power cuts
    found, step = set(), 0
    while True:
        home = tmp_path / str(step)
        home.mkdir()
        target = home / "b"
        if existing:
            publish(target, "old")
        if not killed_at(step, target):
            break
        if existing or target.exists():
            assert target.is_dir() or way != "exchanged"
            found.add(Bundle.open(target).manifest.name)
        publish(target, "newest")
        assert Bundle.open(target).manifest.name == "newest" and names(home) == ["b"], f"killed at line {step}"
        step += 1
    assert step > 30 and found == ({"old", "new"} if existing else {"new"})
    assert Bundle.open(target).manifest.name == "new" and names(home) == ["b"]


def test_builds_of_one_target_in_many_threads_publish_one_of_them_whole(way, tmp_path):
    target, errors = tmp_path / "b", []

    def build(number):
        for turn in range(5):
            try:
                publish(target, f"{number}-{turn}")
            except BaseException as error:
                errors.append(error)

    threads = [threading.Thread(target=build, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and names(tmp_path) == ["b"]
    assert (target / "MODEL_CARD.md").read_text() == Bundle.open(target).manifest.name


def test_builds_with_the_same_process_number_do_not_meet(way, tmp_path, monkeypatch):
    """Containers on one volume: each believes to be process 1, and that no other process runs."""
    monkeypatch.setattr(os, "getpid", lambda: 1)
    target = tmp_path / "b"
    with atomic_folder(target, force=True) as first:
        (first / "half").write_text("written")
        with atomic_folder(target, force=True) as second:
            fill(second, "second")
        assert first != second and (first / "half").read_text() == "written", "it is somebody's work"
        assert Bundle.open(target).manifest.name == "second"
        (first / "half").unlink()
        fill(first, "first")
    assert Bundle.open(target).manifest.name == "first" and names(tmp_path) == ["b"]


def test_of_two_builds_that_may_not_replace_anything_the_second_is_refused(tmp_path):
    target = tmp_path / "b"
    with pytest.raises(UsageError, match="exists; --force replaces it"), atomic_folder(target, force=False) as first:
        fill(first, "first")
        publish(target, "second", force=False)
    assert Bundle.open(target).manifest.name == "second" and names(tmp_path) == ["b"]


def test_a_running_build_in_another_process_is_not_taken_for_a_killed_one(tmp_path):
    target, (begun, begin), (end, ended) = tmp_path / "b", os.pipe(), os.pipe()
    process = os.fork()
    if not process:
        try:
            with atomic_folder(target, force=True) as folder:
                os.write(begin, b"x")
                os.read(end, 1)
                fill(folder, "slow")
        finally:
            os._exit(0)
    os.read(begun, 1)
    publish(target, "quick")
    assert len(names(tmp_path)) == 2
    os.write(ended, b"x")
    os.waitpid(process, 0)
    assert Bundle.open(target).manifest.name == "slow" and names(tmp_path) == ["b"]


def test_failing_to_move_puts_the_old_bundle_back(tmp_path, monkeypatch):
    target = tmp_path / "b"
    publish(target, "old")
    rename = Path.rename

    def fail(self, to):
        if "building" in self.name:
            raise OSError("no")
        return rename(self, to)

    monkeypatch.setattr(module, "exchange", lambda *_: False)
    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="no"):
        publish(target, "new")
    assert Bundle.open(target).manifest.name == "old" and names(tmp_path) == ["b"]


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("afile/sub", "afile is a file; choose another --output"),
        ("afile/sub/deeper", "afile is a file; choose another --output"),
        ("x" * 250, "a name of 250 characters; at most"),
        ("locked/b", r"nothing can be written in .*locked \(Permission denied\); choose another"),
    ],
)
def test_a_place_where_nothing_can_be_written(place, message, tmp_path, monkeypatch):
    (tmp_path / "afile").touch()
    (tmp_path / "locked").mkdir()
    if place.startswith("locked"):  # whoever runs this may write everywhere

        def deny(*_, **__):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(module.tempfile, "mkdtemp", deny)
    with pytest.raises(UsageError, match=message) as caught:
        check_target(tmp_path / place, force=True)
    assert "building" not in str(caught.value) and names(tmp_path) == ["afile", "locked"]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a folder in which nobody may make another")
def test_a_place_in_proc():
    with pytest.raises(UsageError, match=r"/proc/x: nothing can be written in /proc"):
        check_target(Path("/proc/x"), force=True)


def test_an_error_names_the_bundle_and_not_the_folder_it_is_made_in(tmp_path):
    with pytest.raises(OSError, match="No space") as caught, atomic_folder(tmp_path / "b", force=True) as folder:
        raise OSError(28, "No space left on device", str(folder / "image.onnx"))
    assert caught.value.filename == str(tmp_path / "b" / "image.onnx") and not names(tmp_path)
