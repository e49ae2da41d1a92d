"""training/render.py: a pool that an interruption does no harm to, a contact sheet, one line for a mistake."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import write_lmdb

from clip4str.core import cli
from clip4str.core.text import Charset
from clip4str.data.word_lmdb import LmdbWords
from clip4str.training.data import load_words
from clip4str.training.drawing import command, pool
from clip4str.training.drawing.atlas import Atlas
from clip4str.training.drawing.renderer import Renderer

WORDS = ["hotel", "street", "coffee", "parking", "international"]


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_lmdb(folder / "words", ["stop", "Exit", "24", "taxi"] * 12)
    return folder


@pytest.fixture
def render(atlas_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The command, in an empty folder, on small pictures."""
    monkeypatch.chdir(tmp_path)
    Path("words.txt").write_text("\n".join(WORDS))
    common = ["--atlas", str(atlas_file), "--words", "words.txt", "--size", "16", "64", "--batch", "8"]
    return lambda *options: command.main([*common, *options])


def stored(folder: str) -> list[tuple[bytes, str]]:
    with LmdbWords(folder) as words:
        return list(words)


def test_a_pool_holds_what_was_drawn(render, atlas: Atlas):
    assert render("--output", "pool", "--count", "20", "--seed", "9", "--quality", "0") == 0
    assert [path.name for path in Path("pool").iterdir()] == ["data.mdb"]
    words = stored("pool")
    drawn = pool.batches(Renderer(atlas, WORDS, (16, 64), seed=9), 20, 8)
    expected = [word for pixels, labels in drawn for word in zip(pixels, labels)]
    assert len(words) == 20 and [label for _, label in words] == [label for _, label in expected]
    for (image, _), (pixels, _) in zip(words, expected):
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(image))), pixels)
    with LmdbWords("pool") as opened:
        assert json.loads(opened._get("made-of"))["seed"] == 9
    trained_on, _ = load_words(["pool"], Charset())
    assert len(trained_on) == 20


def interrupt(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    batch = Renderer.batch

    def interrupted(self, count):
        if self.number == after:
            raise KeyboardInterrupt
        return batch(self, count)

    monkeypatch.setattr(Renderer, "batch", interrupted)


def test_going_on_equals_never_stopping(render, capsys):
    options = ("--count", "30", "--seed", "2")
    assert render("--output", "whole", *options) == 0
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, 2)
        assert render("--output", "pool", *options) == 130
    assert "goes on" in capsys.readouterr().err and not Path("pool").exists()
    assert render("--output", "pool", *options) == 0
    assert "30 words, 16 of them before" in capsys.readouterr().out
    assert stored("pool") == stored("whole")
    assert sorted(path.name for path in Path().iterdir()) == ["pool", "whole", "words.txt"]


def test_what_another_command_left_is_not_gone_on_with(render, real: Path, capsys):
    options = ("--output", "pool", "--count", "20", "--force")
    others = (("--seed", "1"), ("--count", "19"), ("--quality", "80"), ("--size", "16", "48"), ("--real", str(real)))
    for other in others:
        with pytest.MonkeyPatch.context() as patch:
            interrupt(patch, 1)
            assert render(*options, *other) == 130
        assert render(*options) == 0
        assert "before" not in capsys.readouterr().out
    Path(".pool.part").mkdir()
    Path(".pool.part", "data.mdb").write_bytes(b"damaged" * 1000)
    assert render(*options) == 0 and len(stored("pool")) == 20


def test_existing_output_is_kept_unless_forced(render, capsys):
    assert render("--output", "pool", "--count", "3") == 0
    assert render("--output", "pool", "--count", "5") == 2
    assert "--force" in capsys.readouterr().err
    assert len(stored("pool")) == 3
    assert render("--output", "pool", "--count", "5", "--force") == 0
    assert len(stored("pool")) == 5
    Path("letters").mkdir()
    Path("letters", "keep.txt").write_text("mine")
    assert render("--output", "letters", "--count", "3", "--force") == 2
    assert Path("letters", "keep.txt").exists()


def test_held_out_words_lend_nothing(real: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(command, "HELD_OUT", 0.3)
    learned, held = load_words([real], Charset(), 0.3)
    pixels, words = command.real_words([str(real)], (16, 64), 100, 0)
    assert len(held) > 3 and len(pixels) == len(words) == len(learned)


def test_sheet_figures_and_speed(atlas_file: Path, real: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    common = ["--atlas", str(atlas_file), "--count", "20", "--batch", "20", "--real", str(real), "--figures"]
    assert command.main([*common, "--sheet", str(tmp_path / "s.png"), "--seconds", "0.01"]) == 0
    with Image.open(tmp_path / "s.png") as sheet:
        assert sheet.size == (1326, 208)
    shown = capsys.readouterr().out
    assert "words/s" in shown and all(name in shown for name in command.FIGURES)


def test_the_sheet_shows_the_first_words_of_the_pool(render, monkeypatch: pytest.MonkeyPatch):
    sheets = []
    monkeypatch.setattr(command, "contact_sheet", lambda *parts: sheets.append(parts) or Image.new("RGB", (8, 8)))
    assert render("--sheet", "sheet.png", "--output", "pool", "--count", "20") == 0
    (pixels, labels, real), words = sheets[0], stored("pool")
    assert len(pixels) == 20 and real is None and labels == [label for _, label in words]


@pytest.mark.parametrize(
    "options, message",
    [
        ([], "nothing to do"),
        (["--output", "x", "--count", "0"], "at least 1"),
        (["--output", "x", "--quality", "101"], "--quality is 0 to 100"),
        (["--output", "x", "--count", "many"], "invalid int value: 'many'"),
        (["--output", "words.txt/x", "--count", "9"], "cannot write words.txt/x"),
        (["--out", "x"], "unrecognized arguments: --out x"),
        (["--sheet", "x.png", "--words", "absent.txt"], "cannot read absent.txt"),
        (["--sheet", "absent/sheet.png", "--count", "9"], "absent/sheet.png: its folder does not exist"),
        (["--sheet", "x.png", "--real", "absent"], "absent"),
        (["--seconds", "1", "--atlas", "absent"], "clip4str atlas --output absent"),
    ],
)
def test_mistakes_are_one_line(render, options, message, capsys):
    assert render(*options) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and message in lines[0] and lines[0].startswith("render.py: error: ")


def test_no_fonts_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["atlas", "--output", str(tmp_path / "atlas.safetensors"), "--fonts", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error and "fonts-dejavu" in error.splitlines()[-1]
