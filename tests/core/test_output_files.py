"""Reports are written whole or not at all."""

import os
import shutil
from pathlib import Path

import pytest

from clip4str.core.cli import main
from clip4str.core.errors import UsageError
from clip4str.core.output_files import check_apart, check_output, write_json, write_whole
from clip4str.core.packaged import PACKAGED


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "report.json"
    write_whole(path, "old")

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("clip4str.core.atomic_files.os.replace", refuse)
    with pytest.raises(UsageError, match="No space left"):
        write_whole(path, "new")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("weights.safetensors", b"\x08\0\0\0\0\0\0\0{}      tensors"),
        ("image.onnx", b"\x08\x08\x12\x07pytorch"),
        ("thesis.txt", b"Years of work.\nMore of it.\n"),
        ("program.py", b"if True:\n\tprint(1)\n"),
        ("report.json", b"[1, 2]"),
        ("report.json", b"{broken"),
        ("report.json", b"a\tb\n"),
        ("words.srt", b"a diary\n"),
        ("words.vtt", b"a diary\n"),
        ("words.csv", b"name,number\nanna,5\n"),
        ("words.jsonl", b"{}\nnot an object\n"),
        ("wrong.tsv", b"\xff\xfe\x00"),
        ("chart.png", b"\xff\xd8\xff\xe0 a photograph"),
        ("photo.jpg", b"\x89PNG"),
    ],
)
def test_what_is_no_report_is_never_replaced_by_one(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match="exists and is no report"):
        check_output(tmp_path / name)
    assert (tmp_path / name).read_bytes() == content


@pytest.mark.parametrize(
    ("name", "begins", "ours"),
    [
        ("words.csv", b"source,track,text,confidence\n", True),
        ("words.jsonl", b'{"event": "sources", "version": 1, "names": []}\n', True),
        ("words.csv", b"name,number\nanna,5\n", False),
        ("words.jsonl", b"{}\n", False),
    ],
)
def test_what_a_camera_filled_for_months_is_known_without_reading_it(name, begins, ours, tmp_path, monkeypatch):
    path = tmp_path / name
    path.write_bytes(begins)
    os.truncate(path, 1 << 29)  # with a hole, which takes no room
    monkeypatch.setattr(Path, "read_bytes", lambda self: pytest.fail("read whole"))
    if ours:
        check_output(path)
        return
    with pytest.raises(UsageError, match="exists and is no report"):
        check_output(path)


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.json", b'{"machine": 1}'), ("a.txt", b'{"machine": 1}'), ("a.tsv", b"set\trow\nSVT\t1\n"), ("a.json", b""),
     ("a.png", b"\x89PNG\r\n"), ("a.svg", b"<?xml version"), ("a.jsonl", b'{"event": "sources"}\n{"event": "gap"}\n'),
     ("a.srt", b"1\n00:00:00,000 --> 00:00:01,000\nword\n"), ("a.vtt", b"WEBVTT\n\n"),
     ("a.csv", b"source,track,text,confidence\n"), ("a.csv", b"set\trow\n")],
)  # fmt: skip
def test_a_report_may_be_written_again(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    check_output(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_nothing_is_written_into_a_bundle():
    for name in ("manifest.json", "report.json", "weights.safetensors"):
        with pytest.raises(UsageError, match="is a bundle, which holds nothing else"):
            check_output(PACKAGED / name)


def test_devices_pipes_and_links(tmp_path):
    """Root may put a file in the place of /dev/null, for every program of the machine."""
    os.mkfifo(tmp_path / "pipe")
    for path in (Path("/dev/null"), tmp_path / "pipe"):
        with pytest.raises(UsageError, match="is a device or a pipe"):
            check_output(path)
    (tmp_path / "latest.json").symlink_to(tmp_path / "three.json")
    check_output(tmp_path / "latest.json")
    write_json(tmp_path / "latest.json", {"a": 1})
    assert (tmp_path / "latest.json").is_symlink() and '"a": 1' in (tmp_path / "three.json").read_text()
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    with pytest.raises(UsageError) as caught:
        check_output(tmp_path / "circle")
    assert "\n" not in str(caught.value)


def test_outputs_are_apart_from_each_other_and_from_what_is_read(tmp_path):
    labels, link = tmp_path / "labels.tsv", tmp_path / "link.tsv"
    link.symlink_to(labels)
    check_apart({"--report": tmp_path / "a", "--charset": tmp_path / "b", "--json": None, "--errors": None}, [labels])
    with pytest.raises(UsageError, match=r"--charset .*a: is that of --report, too; name another file"):
        check_apart({"--report": tmp_path / "a", "--charset": tmp_path / "." / "a"})
    with pytest.raises(UsageError, match=r"--report .*link\.tsv: is what is read, too"):
        check_apart({"--report": link}, [labels])


PLACES = ["nowhere/x.json", "x" * 250 + ".json", "afile/x.json", "folder"]


@pytest.mark.parametrize("place", [*PLACES, *(["/proc/x.json"] if Path("/proc/self").exists() else [])])
@pytest.mark.parametrize("command", ["bench --json", "bench --chart", "eval --data . --json", "eval --data . --errors"])
def test_a_place_that_cannot_be_written_is_said_before_the_run(command, place, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "afile").touch()
    place = place.replace(".json", ".png") if "chart" in command else place
    loaded = []
    monkeypatch.setattr("clip4str.runtime.Recognizer.load", lambda *_, **__: loaded.append(1))
    assert main([*command.split(), place]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"clip4str {command.split()[0]}: error: ") and error.count("\n") == 1 and not loaded
    assert "errno" not in error.lower()


@pytest.mark.parametrize("option", ["--json", "--errors"])
def test_eval_over_a_bundles_weights(option, tmp_path, capsys):
    bundle = shutil.copytree(PACKAGED, tmp_path / "bundle")
    before = (bundle / "weights.safetensors").read_bytes()
    assert main(["eval", "--data", str(tmp_path), option, str(bundle / "weights.safetensors")]) == 2
    assert "is a bundle" in capsys.readouterr().err and (bundle / "weights.safetensors").read_bytes() == before
