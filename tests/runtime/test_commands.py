"""clip4str read and info as a user types them, in processes of their own, one of them without torch."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from without_torch import PROGRAM

from clip4str.core import cli

CROPS = Path(__file__).resolve().parents[2] / "export" / "sample_crops"


def run(*args, stdin=None, cwd=None, env=None):
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, args)],
        input=stdin, capture_output=True, cwd=cwd, env={**os.environ, **(env or {})}, timeout=120,
    )  # fmt: skip


@pytest.fixture
def crops(tmp_path, golden):
    folder = tmp_path / "crops"
    (folder / "below").mkdir(parents=True)
    images = golden("tiny")["images"]
    for i, name in enumerate(["a.png", "b.png", "below/c.png"]):
        Image.fromarray(images[i]).save(folder / name)
    (folder / "notes.txt").write_text("no image")
    return folder


def test_reads_folders_patterns_and_files_without_torch(tiny_bundle, crops, golden):
    done = run("read", "--bundle", tiny_bundle, crops, crops / "a.png", crops / "*.png", "--json", "--threads", 1)
    assert done.returncode == 0, done.stderr.decode()
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    words = golden("tiny")["text"].tolist()
    order = [("a.png", 0), ("b.png", 1), ("c.png", 2), ("a.png", 0), ("a.png", 0), ("b.png", 1)]
    assert [(os.path.basename(x["path"]), x["text"]) for x in lines] == [(n, words[i]) for n, i in order]
    assert set(lines[0]) - {"hint"} == {"path", "text", "confidence", "char_confidences"}
    table = run("read", "--bundle", tiny_bundle, crops / "b.png", crops / "b.png", "--threads", 1)
    assert words[1] in table.stdout.decode() and b"%" in table.stdout and b"ms a word" in table.stderr


def test_standard_input_as_an_image_or_a_list_of_paths(tiny_bundle, crops, golden):
    env = {"CLIP4STR_BUNDLE": str(tiny_bundle)}
    image = run("read", "-", "--json", stdin=(crops / "b.png").read_bytes(), env=env)
    assert json.loads(image.stdout)["text"] == golden("tiny")["text"][1]
    paths = run("read", "-", "--json", stdin=f"{crops}/a.png\n{crops}/b.png\n".encode(), env=env)
    assert len(paths.stdout.splitlines()) == 2
    assert json.loads(image.stdout)["path"] == "<stdin>"
    listed = run("read", "-", "--json", stdin=f"{crops}/a.png\nno/such.png\n".encode(), env=env)
    assert [("text" in json.loads(line)) for line in listed.stdout.splitlines()] == [True, False]


def test_paths_with_zero_bytes_between_them(tiny_bundle, crops):
    """As find -print0 lists them: a name may hold a line break."""
    (crops / "a.png").rename(crops / "two\nlines.png")
    paths = b"".join(os.fsencode(crops / name) + b"\0" for name in ("two\nlines.png", "b.png"))
    env = {"CLIP4STR_BUNDLE": str(tiny_bundle)}
    for option in ("-0", "--null"):
        done = run("read", option, "-", "--json", "--threads", 1, stdin=paths, env=env)
        assert done.returncode == 0, done.stderr
        read = [os.path.basename(json.loads(line)["path"]) for line in done.stdout.splitlines()]
        assert read == ["two\nlines.png", "b.png"]
    done = run("read", "-", stdin=paths, env=env)
    said = b"clip4str read: error: <stdin>: a list of paths with zero bytes between them is read with -0\n"
    assert (done.returncode, done.stderr) == (2, said)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (b"", "<stdin>: nothing came; give it an image or a list of paths"),
        (b"hello\n", "<stdin>: neither an image nor a list of paths of files that exist; it begins with 'hello'"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "<stdin>: "),
    ],
)
def test_standard_input_that_is_nothing_is_said_by_that_name(given, message):
    done = run("read", "-", "--quiet", stdin=given)
    (error,) = [line for line in done.stderr.decode().splitlines() if "error" in line]
    assert done.returncode == 2 and error.startswith(f"clip4str read: error: {message}") and "bytes>" not in error


def test_missing_files_are_said_before_a_network_is_loaded(crops, tmp_path):
    done = run("read", "nope.jpg", "gone.jpg", "--bundle", "nowhere", "--json", cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.decode().splitlines() == [
        "clip4str read: error: nope.jpg: no such file", "clip4str read: error: gone.jpg: no such file",
    ]  # fmt: skip
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        {"path": name, "error": f"{name}: no such file"} for name in ("nope.jpg", "gone.jpg")
    ]
    beside = run("read", "nope.jpg", crops / "a.png", "--bundle", "nowhere", cwd=tmp_path)
    assert beside.returncode == 2 and b"nowhere" in beside.stderr and b"nope.jpg" not in beside.stderr


def test_json_is_in_input_order_with_errors_in_their_places(tiny_bundle, crops):
    (crops / "bad.png").write_bytes(b"no image")
    paths = [crops / name for name in ("a.png", "bad.png", "b.png", "missing.png", "below/c.png")]
    done = run("read", "--bundle", tiny_bundle, *paths, "--json", "--threads", 1, "--batch-size", 2)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 2 and [line["path"] for line in lines] == list(map(str, paths))
    assert ["error" in line for line in lines] == [False, True, False, True, False]


def test_a_folder_is_walked_for_regular_visible_images_alone(tiny_bundle, crops, tmp_path):
    (crops / ".cache").mkdir()
    shutil.copy(crops / "a.png", crops / ".cache" / "thumbnail.png")
    shutil.copy(crops / "a.png", crops / ".hidden.png")
    (crops / "folder.png").mkdir()
    os.mkfifo(crops / "fifo.jpg")  # opened, it would wait for ever
    (crops / "device.png").symlink_to("/dev/zero")
    (crops / "link.png").symlink_to(crops / "a.png")
    done = run("read", "--bundle", tiny_bundle, crops, "--json", "--threads", 1)
    read = [os.path.basename(json.loads(line)["path"]) for line in done.stdout.splitlines()]
    assert done.returncode == 0 and read == ["a.png", "b.png", "c.png", "link.png"]
    named = run("read", "--bundle", tiny_bundle, crops / "fifo.jpg", crops / ".hidden.png", "--json", "--threads", 1)
    first, second = [json.loads(line) for line in named.stdout.splitlines()]
    assert "a pipe or a device, not an image file" in first["error"] and "text" in second


def test_the_summary_counts_words_as_one_speaks(tiny_bundle, crops):
    one = run("read", "--bundle", tiny_bundle, crops / "a.png", "--threads", 1).stderr.decode().splitlines()[-1]
    assert one.startswith("1 word, ") and "ms, warming up included (batches of up to 16" in one and "median" not in one
    three = run("read", "--bundle", tiny_bundle, crops, "--threads", 1, "--batch-size", 1).stderr.decode()
    assert three.splitlines()[-1].startswith("3 words, median ") and "warming up" not in three


def test_a_photo_has_a_hint_once_on_stderr_and_in_json(tmp_path):
    """The bundled network, over noise as large as a photo, and over a crop that it reads plainly."""
    noise = np.random.default_rng(0).integers(0, 256, (150, 200, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((2000, 1500)).save(tmp_path / "street.jpg")
    crop = CROPS / "01-HAPPENINGS.jpg"
    done = run("read", "street.jpg", crop, "--json", "--threads", 1, cwd=tmp_path)
    photo, word = [json.loads(line) for line in done.stdout.splitlines()]
    hints = [line for line in done.stderr.decode().splitlines() if "hint" in line]
    said = "2000x1500 pixels look like a photo, not a word crop; cut the word out first"
    assert done.returncode == 0 and hints == [f"clip4str read: hint: street.jpg: {said}"] and photo["hint"] == said
    assert (word["text"], set(word)) == ("HAPPENINGS", {"path", "text", "confidence", "char_confidences"})
    assert b"hint" not in run("read", "street.jpg", "--quiet", "--threads", 1, cwd=tmp_path).stderr


def test_a_batch_size_and_rounds_that_cannot_be_are_said(tiny_bundle, crops):
    done = run("read", "--bundle", tiny_bundle, crops / "a.png", "--batch-size", 99999, "--threads", 1)
    warnings = [line for line in done.stderr.decode().splitlines() if line.startswith("clip4str: warning")]
    assert done.returncode == 0 and len(warnings) == 1 and "images, not 99999: the most that this" in warnings[0]
    refused = run("read", "--bundle", tiny_bundle, crops / "a.png", "--refine", 99)
    assert refused.returncode == 2 and b"refine is a number of rounds, 0 to 16, not 99" in refused.stderr


def test_one_corrupt_image_is_reported_and_the_rest_are_read(tiny_bundle, crops):
    (crops / "b.png").write_bytes((crops / "b.png").read_bytes()[:300])
    done = run("read", "--bundle", tiny_bundle, crops, "--json", "--threads", 1)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 2 and sum("text" in x for x in lines) == 2
    assert [x["path"] for x in lines if "error" in x] == [str(crops / "b.png")]
    errors = [line for line in done.stderr.decode().splitlines() if "error" in line]
    assert len(errors) == 1 and "b.png: damaged image" in errors[0]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["read", "--bundle", "nowhere", str(CROPS / "02-Blame.jpg")], "nowhere: no such bundle folder"),
        (["read", "empty"], "empty: no images found"),
        (["read", str(CROPS / "02-Blame.jpg"), "empty"], "empty: no images found"),
        (["read", str(CROPS / "02-Blame.jpg"), "emp*"], "emp*: matches folders alone"),
        (["read", "*.png"], "matches nothing"),
        (["info", "nowhere"], "nowhere: no such bundle folder or checkpoint"),
        (["info", "file.ckpt"], "a checkpoint needs"),
        (["build"], "a checkpoint needs"),
        (["read", ""], "an empty path names nothing"),
        (["read", "a" * 300 + ".png", "--bundle", "nowhere"], "File name too long"),
        (["read"], "the following arguments are required: PATH"),
        (["read", "--thread", "1", "x.png"], "unrecognized arguments: --thread"),
        (
            ["read", "--refine", "-1", "--bundle", "nowhere", str(CROPS / "02-Blame.jpg")],
            "refine is a number of rounds",
        ),
    ],
)
def test_errors_are_one_line_and_exit_2(args, message, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.ckpt").write_bytes(b"x")
    done = run(*args, cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == b""
    error = done.stderr.decode().strip()
    assert error.startswith(f"clip4str {args[0]}: error: ") and message in error and "\n" not in error


@pytest.mark.parametrize("command", sorted(cli.commands()))
def test_every_command_explains_itself_whatever_it_needs(command):
    done = run(command, "--help")
    assert (done.returncode, done.stderr) == (0, b"") and done.stdout.startswith(f"usage: clip4str {command}".encode())


@pytest.mark.parametrize(
    "args, needs", [(["export", "--output", "w.onnx"], "onnx"), (["atlas", "--output", "a"], "safetensors")]
)
def test_what_is_missing_is_named_with_its_extra(args, needs, tmp_path):
    done = run(*args, cwd=tmp_path)
    error = done.stderr.decode()
    assert done.returncode == 2 and error.count("\n") == 1 and list(tmp_path.iterdir()) == []
    assert error.startswith(f"clip4str {args[0]}: error: it needs {needs}; pip install 'clip4str[")


def test_without_a_bundle_the_packaged_network_is_taken_and_said(tmp_path):
    said = b"no bundle under ./bundles: taking the packaged network, clip4str-small\n"
    read = run("read", CROPS / "01-HAPPENINGS.jpg", "--json", "--quiet", "--threads", 1, cwd=tmp_path)
    assert (json.loads(read.stdout)["text"], read.stderr) == ("HAPPENINGS", said)
    info = run("info", "--json", cwd=tmp_path)
    assert (json.loads(info.stdout)["name"], info.stderr) == ("clip4str-small", said)


def test_a_bundle_here_or_a_named_one_comes_first(tiny_bundle, tmp_path):
    shutil.copytree(tiny_bundle, tmp_path / "bundles" / "mine")
    here = run("info", "--json", cwd=tmp_path)
    assert (json.loads(here.stdout)["bundle"], here.stderr) == ("bundles/mine", b"")
    named = run("info", "--json", cwd=tmp_path, env={"CLIP4STR_BUNDLE": str(tiny_bundle)})
    assert json.loads(named.stdout)["bundle"] == str(tiny_bundle)


def test_unreadable_folders_and_damaged_bundles(tiny_bundle, tmp_path, crops):
    damaged = tmp_path / "damaged"
    shutil.copytree(tiny_bundle, damaged)
    data = bytearray((damaged / "image.onnx").read_bytes())
    data[len(data) // 2] ^= 255
    (damaged / "image.onnx").write_bytes(data)
    done = run("read", "--bundle", damaged, crops)
    assert done.returncode == 2 and b"its sha256 is not the manifest's" in done.stderr
    info = run("info", damaged)
    assert info.returncode == 2 and b"sha256" in info.stderr
    if os.geteuid() != 0:
        (crops / "below").chmod(0)
        assert b"cannot be read" in run("read", "--bundle", tiny_bundle, crops).stderr
        (crops / "below").chmod(0o755)


def test_an_unreadable_folder_is_one_line(tmp_path, monkeypatch):
    """Root may read anything, so the refusal itself is staged."""
    from pathlib import Path

    from clip4str.core.errors import UsageError
    from clip4str.runtime.read_command import expand

    def refuse(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(UsageError, match="cannot be read \\(Permission denied\\)"):
        list(expand([str(tmp_path)]))


def test_info_shows_the_bundle(tiny_bundle):
    facts = json.loads(run("info", tiny_bundle, "--json").stdout)
    assert facts["precision"] == "fp32" and facts["network"]["d"] == 64 and facts["parity"]
    shown = run("info", tiny_bundle).stdout.decode().splitlines()
    names = [line.split()[0] for line in shown]
    assert "image_size" in names and names.count("charset") == names.count("charset_test") == 1 and len(shown) < 60
    assert [line for line in shown if "max_abs=" in line and "calls=" in line], "figures of a stage on one line"


def test_help_of_every_command_that_needs_nothing():
    for args in ([], ["--help"], ["read", "--help"], ["info", "--help"]):
        done = run(*args)
        assert b"usage: clip4str" in done.stdout and b"Traceback" not in done.stderr
    assert run("--version").stdout.startswith(b"clip4str ")
    done = subprocess.run([sys.executable, "-m", "clip4str", "--version"], capture_output=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, run("--version").stdout)
    unknown = run("fly")
    assert unknown.returncode == 2 and b"invalid choice: 'fly'" in unknown.stderr
    assert unknown.stderr.count(b"\n") == 1


def test_file_names_of_any_bytes(tiny_bundle, golden, tmp_path):
    image = Image.fromarray(golden("tiny")["images"][1])
    names = [b"caf\xe9.png", b"two\nlines.png", b"\x1b[31mred.png"]
    for name in names:
        image.save(tmp_path / os.fsdecode(name))
    done = run("read", "--bundle", tiny_bundle, tmp_path, "--threads", 1)
    assert done.returncode == 0 and done.stdout.count(b"\n") == 3 and b"\x1b" not in done.stdout
    assert b"two\\nlines.png" in done.stdout


def test_warming_up_before_the_first_image(tiny_bundle, crops):
    done = run("read", "--bundle", tiny_bundle, crops, "--json", "--threads", 1, "--batch-size", 2, "--warm-up")
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 3, done.stderr
    assert done.stderr.startswith(b"warmed up for batches of 2, 1 in ")
    quiet = run("read", "--bundle", tiny_bundle, crops / "a.png", "--threads", 1, "--warm-up", "--quiet")
    assert quiet.returncode == 0 and b"warmed" not in quiet.stderr
