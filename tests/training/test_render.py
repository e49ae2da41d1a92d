"""The renderer draws legible, correctly labelled words, always the same ones from the same seed."""

from __future__ import annotations

import io
import random
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clip4str.training import fonts as fonts_module
from clip4str.training import paint as paint_module
from clip4str.training import render_command
from clip4str.training.fonts import Font, NoFontsError, find_fonts, font_files, font_weights, inspect_font
from clip4str.training.render import Renderer, render_word
from clip4str.training.warp import random_warp
from clip4str.training.words import CHARSET, WordSampler, clean

lmdb = pytest.importorskip("lmdb")
WORDS = ["hotel", "street", "coffee", "parking", "international"]


def some_fonts() -> list[Font]:
    """A handful of faces: DejaVu where it is installed, or the first ones that will do."""
    files = font_files()
    plain = [f for f in files if Path(f).name.startswith("DejaVuSans")]
    found = [font for font in map(inspect_font, (plain or files)[:6]) if font is not None]
    if not found:
        pytest.skip("no fonts on this machine")
    return found


@pytest.fixture(scope="module")
def few() -> list[Font]:
    return some_fonts()


@pytest.fixture(scope="module")
def renderer(few: list[Font]) -> Renderer:
    return Renderer(7, WORDS, extra=(), fonts=few)


def test_charset_is_the_networks():
    assert len(CHARSET) == len(set(CHARSET)) == 94
    assert CHARSET.startswith("0123456789abcdefghijklmnopqrstuvwxyzABC")
    assert fonts_module.CHARSET == CHARSET


def test_words_have_1_to_25_of_the_94_characters():
    sampler = WordSampler(WORDS, random.Random(0), extra=["Zürich", "x" * 40, "ok"], labels=["P. PINANG"])
    assert sampler.extra == ["ok"] and sampler.labels == ["P.PINANG"]
    texts = [sampler.sample() for _ in range(5000)]
    labels = [t.replace(" ", "") for t in texts]
    assert all(1 <= len(label) <= 25 and set(label) <= set(CHARSET) for label in labels)
    letters = [label for label in labels if label.isalpha()]
    assert 0.6 < len(letters) / len(labels) < 0.95
    assert 0.35 < np.mean([label.isupper() for label in letters]) < 0.7
    assert len(set("".join(labels))) > 88


def test_word_sampler_without_any_list():
    sampler = WordSampler([], random.Random(0))
    assert len({sampler.sample() for _ in range(50)}) > 10
    assert clean(["a b", "", "é", " ok "]) == ["ab", "ok"]


def test_samples_are_crops_with_labels(renderer: Renderer):
    for image, label in islice(renderer, 200):
        assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
        assert 16 <= image.shape[0] <= 64 and 8 <= image.shape[1] <= 800
        assert 1 <= len(label) <= 25 and set(label) <= set(CHARSET)


def test_same_seed_same_crops(few: list[Font]):
    def draw(seed: int) -> list[tuple[bytes, str]]:
        crops = islice(Renderer(seed, WORDS, extra=(), fonts=few), 30)
        return [(image.tobytes(), label) for image, label in crops]

    assert draw(3) == draw(3)
    assert draw(3) != draw(4)


def test_reseed_starts_over(few: list[Font]):
    renderer = Renderer(5, WORDS, extra=(), fonts=few)
    first = [label for _, label in islice(renderer, 20)]
    renderer.reseed(5)
    assert [label for _, label in islice(renderer, 20)] == first


def test_text_can_be_told_from_its_ground(few: list[Font], monkeypatch: pytest.MonkeyPatch):
    """Before the camera, letters differ from what is behind them in nearly every picture."""
    differences = []
    original = paint_module.paint

    def measure(rng, mask, outline, size):
        picture = original(rng, mask, outline, size)
        pixels, ink = np.asarray(picture, np.float32), np.asarray(mask, np.float32) / 255
        if (ink > 0.9).sum() > 20 and (ink < 0.1).sum() > 20:
            apart = pixels[ink > 0.9].mean(0) - pixels[ink < 0.1].mean(0)
            differences.append(np.abs(apart).max())
        return picture

    monkeypatch.setattr("clip4str.training.render.paint", measure)
    rng = random.Random(1)
    for _ in range(200):
        render_word("HOTEL", few[0], rng)
    assert len(differences) > 150
    assert np.percentile(differences, 3) > 12 and np.median(differences) > 60


def test_crop_shows_the_word(few: list[Font]):
    """The ink is in the crop, whole, however it is warped: its share of the area stays that of letters."""
    shares = []

    def measure(rng, mask, outline, size):
        shares.append(np.asarray(mask, np.float32).mean() / 255)
        return Image.new("RGB", mask.size)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("clip4str.training.render.paint", measure)
        rng = random.Random(2)
        for _ in range(200):
            render_word("STREET", few[0], rng)
    assert min(shares) > 0.03 and 0.12 < np.median(shares) < 0.6


def test_warps_invert():
    rng = random.Random(0)
    seen_bend = False
    for _ in range(100):
        warp = random_warp(rng, 5.0, 1.0).scaled(150.0, 30.0, 30.0)
        seen_bend |= bool(warp.bend)
        x, y = np.array([-75.0, 0, 40, 75]), np.array([-15.0, 3, 15, 0])
        back_x, back_y = warp.backward(*warp.forward(x, y))
        np.testing.assert_allclose(back_x, x, atol=1e-6)
        np.testing.assert_allclose(back_y, y, atol=1e-6)
        left, top, right, bottom = warp.extent()
        assert right - left > 10 and bottom - top > 10
    assert seen_bend


@pytest.mark.parametrize("text", ["i", "-", ".", "MMMMMMMMMMMMMMMMMMMMMMMMM", "two words", "...", "'"])
def test_awkward_texts(text: str, few: list[Font]):
    rng = random.Random(0)
    for _ in range(20):
        image = render_word(text, few[0], rng, height=40, others=["NEXT"])
        assert 16 <= image.shape[0] <= 40 and image.shape[1] >= 8


def test_font_scan_keeps_text_fonts(few: list[Font]):
    for font in few:
        assert font.legibility > 0.5 and font.can_draw("Hello 123") and not font.can_draw("\u0416")
    weights = font_weights(few)
    assert len(weights) == len(few) and min(weights) > 0


def test_font_scan_rejects_symbol_fonts(tmp_path: Path):
    builder_module = pytest.importorskip("fontTools.fontBuilder")
    pens = pytest.importorskip("fontTools.pens.ttGlyphPen")
    pen = pens.TTGlyphPen(None)
    for corner in ((100, 0), (100, 700), (600, 350)):
        (pen.moveTo if corner == (100, 0) else pen.lineTo)(corner)
    pen.closePath()
    triangle, names = pen.glyph(), [".notdef", "triangle"]
    builder = builder_module.FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap(dict.fromkeys(map(ord, CHARSET), "triangle"))
    builder.setupGlyf({".notdef": pens.TTGlyphPen(None).glyph(), "triangle": triangle})
    builder.setupHorizontalMetrics(dict.fromkeys(names, (700, 100)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Triangles", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(tmp_path / "triangles.ttf")
    (tmp_path / "broken.ttf").write_bytes(b"no font at all")
    assert inspect_font(str(tmp_path / "triangles.ttf")) is None
    assert inspect_font(str(tmp_path / "broken.ttf")) is None
    with pytest.raises(NoFontsError, match="apt-get install"):
        find_fonts((str(tmp_path),), cache=False)


def test_installed_symbol_fonts_are_rejected():
    symbols = ("D050000L", "OpenSymbol", "fontawesome", "StandardSymbolsPS", "Symbola")
    paths = [p for p in font_files() if Path(p).stem.startswith(symbols)]
    if not paths:
        pytest.skip("no symbol fonts on this machine")
    for font in map(inspect_font, paths):
        assert font is None or font.legibility < fonts_module.LEGIBLE


def test_scan_is_remembered(tmp_path: Path, few: list[Font], monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "fonts"
    folder.mkdir()
    (folder / "copy.ttf").write_bytes(Path(few[0].path).read_bytes())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    first = find_fonts.__wrapped__((str(folder),))
    monkeypatch.setattr(fonts_module, "inspect_font", lambda path: pytest.fail("looked at the file again"))
    assert find_fonts.__wrapped__((str(folder),)) == first
    (tmp_path / "cache" / "clip4str" / "fonts.json").write_text("[broken")
    with pytest.raises(pytest.fail.Exception, match="looked"):
        find_fonts.__wrapped__((str(folder),))


# The command


def read_lmdb(path: Path) -> list[tuple[np.ndarray, str]]:
    with lmdb.open(str(path), readonly=True, lock=False) as env, env.begin() as txn:
        samples = []
        for i in range(1, int(txn.get(b"num-samples")) + 1):
            picture = Image.open(io.BytesIO(txn.get(b"image-%09d" % i))).convert("RGB")
            samples.append((np.asarray(picture), txn.get(b"label-%09d" % i).decode()))
        return samples


@pytest.fixture
def command(few: list[Font], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(render_command, "find_fonts", lambda: few)
    return render_command.main


def test_lmdb_round_trip(tmp_path: Path, command, few: list[Font]):
    out = tmp_path / "pool.lmdb"
    (tmp_path / "words.txt").write_text("\n".join(WORDS))
    arguments = ["--count", "40", "--seed", "9", "--words", str(tmp_path / "words.txt"), "--quality", "0"]
    assert command(["--output", str(out), *arguments]) == 0
    samples = read_lmdb(out)
    assert len(samples) == 40 and [p.name for p in out.iterdir()] == ["data.mdb"]
    renderer = Renderer("9/0", WORDS, fonts=few)
    for (image, label), (expected, text) in zip(samples, renderer):
        assert label == text
        np.testing.assert_array_equal(image, expected)


@pytest.mark.slow
def test_workers_change_nothing(few: list[Font]):
    settings = {"fonts": few, "words": WORDS}
    alone = list(render_command.draw(settings, 300, 4, 1, 90))
    assert list(render_command.draw(settings, 300, 4, 2, 90)) == alone


def test_existing_output_is_kept_unless_forced(tmp_path: Path, command, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "pool"
    assert command(["--output", str(out), "--count", "3"]) == 0
    assert command(["--output", str(out), "--count", "5"]) == 2
    assert "--force" in capsys.readouterr().err
    assert len(read_lmdb(out)) == 3
    assert command(["--output", str(out), "--count", "5", "--force"]) == 0
    assert len(read_lmdb(out)) == 5
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "keep.txt").write_text("mine")
    assert command(["--output", str(tmp_path / "letters"), "--count", "3", "--force"]) == 2
    assert (tmp_path / "letters" / "keep.txt").exists()


def test_interrupted_write_leaves_nothing_and_can_be_repeated(tmp_path: Path):
    sample = (render_command.encode(np.zeros((8, 8, 3), np.uint8), 0), "a")

    def breaks():
        yield sample
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        render_command.write_lmdb(tmp_path / "pool", breaks(), 2)
    assert list(tmp_path.iterdir()) == []
    render_command.write_lmdb(tmp_path / "pool", [sample, sample], 2)
    assert [label for _, label in read_lmdb(tmp_path / "pool")] == ["a", "a"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "nothing to do"),
        (["--output", "x", "--count", "0"], "at least 1"),
        (["--output", "x", "--quality", "101"], "--quality"),
        (["--output", "x", "--words", "absent.txt"], "cannot read absent.txt"),
        (["--sheet", "absent/sheet.png"], "cannot write absent/sheet.png"),
        (["--output", "x", "--count", "many"], "invalid int value: 'many'"),
        (["--out", "x"], "unrecognized arguments: --out x"),
    ],
)
def test_errors_are_one_line(arguments, message, command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert command(arguments) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and message in lines[0] and lines[0].startswith("render.py: error: ")


def test_no_fonts_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(render_command, "find_fonts", lambda: find_fonts((str(tmp_path),), cache=False))
    assert render_command.main(["--output", str(tmp_path / "pool")]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and "fonts-dejavu" in error


def test_contact_sheet(tmp_path: Path, command):
    assert command(["--sheet", str(tmp_path / "sheet.png"), "--seed", "2"]) == 0
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (1500, 660)
