"""The renderer: letters as Pillow draws them, labels that say what is drawn, the same words from a seed; training."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont
from tiny import TINY, write_lmdb
from torch import Tensor

from clip4str.core.errors import DataError
from clip4str.core.text import Charset
from clip4str.model.sizes import SIZES
from clip4str.training.data import Stream, load_words
from clip4str.training.drawing import atlas_build, camera, command
from clip4str.training.drawing.atlas import CAP, PAD, SPACE, STEP, Atlas
from clip4str.training.drawing.command import figures
from clip4str.training.drawing.data import drawn_beside
from clip4str.training.drawing.dice import Dice
from clip4str.training.drawing.order import BLANK, MAIN, PAPER, SIDE, Order, Orders, encode, printing_weights
from clip4str.training.drawing.paint import coarser, coverage, slopes, smooth
from clip4str.training.drawing.renderer import Renderer
from clip4str.training.drawing.warp import plain_warp, random_warp, text_points
from clip4str.training.fonts import Font
from clip4str.training.train import main
from clip4str.training.vocabulary import CHARSET

WORDS = ["hotel", "street", "coffee", "parking", "international"]


@pytest.fixture(scope="module")
def renderer(atlas: Atlas) -> Renderer:
    return Renderer(atlas, WORDS, seed=3)


def order(*texts: str) -> Order:
    lines = [("", "\0" * SIDE + text, "") for text in texts]
    return Order(encode(lines), np.zeros(len(texts), np.int64), list(texts))


@pytest.mark.parametrize("text", ["A", "g", "R8", "Wave"])
def test_undistorted_words_equal_pillows(renderer: Renderer, atlas: Atlas, font: Font, text: str):
    high, wide, fine, margin = 40, 40 * len(text), 8, 0.1
    drawn = Renderer(atlas, size=(high, wide)).clean(order(text), margin)[0].numpy()
    size = 200 * CAP * fine / -ImageFont.truetype(font.path, 200).getbbox("H", anchor="ls")[1]
    face = ImageFont.truetype(font.path, size, layout_engine=ImageFont.Layout.BASIC)
    canvas = Image.new("L", (3000, 1200))
    pen, boxes = 600.0, []
    for i, char in enumerate(text):
        glyph = CHARSET.index(char)
        width, height, left, top, advance = (int(v) for v in atlas.glyphs[0, glyph])
        ImageDraw.Draw(canvas).text((pen, 600), char, 255, face, anchor="ls")
        boxes.append((pen + (left + PAD) * fine, 600 + (top + PAD) * fine,
                      pen + (left + width - PAD) * fine, 600 + (top + height - PAD) * fine))  # fmt: skip
        if i + 1 < len(text):
            pen += (advance + int(atlas.kerning[0, glyph, CHARSET.index(text[i + 1])])) * fine / STEP
    x0, y0, x1, y1 = (f(v) for f, v in zip((min, min, max, max), zip(*boxes)))
    room = margin * (y1 - y0)
    box = (x0 - room, y0 - room, x1 + room, y1 + room)
    expected = np.asarray(canvas.resize((wide, high), Image.Resampling.BOX, box), np.float32) / 255
    wrong = np.abs(drawn - expected)
    assert wrong.mean() < 0.02 and (wrong > 0.4).mean() < 0.002  # tips, as in the notches of W, come out round


def test_every_letter_is_there(renderer: Renderer):
    """Gaps between letters: as many runs of ink as letters that do not touch."""
    texts = ["HIH", "HHHHHHHH", "I", "0 0"]
    for picture, text in zip(renderer.clean(order(*texts)), texts):
        ink = (picture.amax(0) > 0.5).int()
        assert int((ink.diff(prepend=ink.new_zeros(1)) == 1).sum()) == len(text.replace(" ", ""))


def test_letters_are_recognised_by_their_templates(renderer: Renderer):
    """Each letter of a word looks like that letter drawn by itself, and less like any other."""
    alphabet = "ABCDEFGHKLMNPRSTUVXYZ23456789"
    templates = Renderer.clean(renderer, order(*alphabet)).flatten(1)
    templates = templates / templates.norm(dim=1, keepdim=True)
    shuffled = "".join(alphabet[i] for i in torch.randperm(len(alphabet), generator=torch.Generator().manual_seed(0)))
    single = renderer.clean(order(*shuffled), margin=0.13).flatten(1)
    best = (single @ templates.T).argmax(1)
    assert "".join(alphabet[i] for i in best) == shuffled


def test_shapes_and_determinism(atlas: Atlas):
    for size, count in (((32, 128), 9), ((16, 64), 1), ((40, 100), 3)):
        one, two = (Renderer(atlas, WORDS, size, seed=5) for _ in range(2))
        (a, labels), (b, again) = one.batch(count), two.batch(count)
        assert a.dtype == torch.uint8 and a.shape == (count, *size, 3) and len(labels) == count
        assert labels == again and torch.equal(a, b)
        assert not torch.equal(a, one.batch(count)[0])
        two.number = 0
        assert torch.equal(two.batch(count)[0], a)
    assert not torch.equal(Renderer(atlas, WORDS, size, seed=6).batch(count)[0], a)


def test_pictures_show_something(renderer: Renderer):
    pixels, labels = renderer.batch(200)
    assert all(1 <= len(label) <= 25 and set(label) <= set(CHARSET) for label in labels)
    values = dict(zip(command.FIGURES, figures(pixels.numpy()).T))
    assert np.median(values["contrast"]) > 40 and (values["contrast"] > 10).mean() > 0.95
    assert 50 < values["grey"].mean() < 190 and 0.2 < values["dark text"].mean() < 0.8


def test_a_face_draws_only_what_it_has(atlas: Atlas):
    orders = Orders(atlas, ["$5", "no#1", "cost$"], extra=())
    taken = orders.take(3000, 1)
    lacking = ~np.concatenate((atlas.drawable, np.ones((2, 2), bool)), axis=1)
    faces = taken.faces % PAPER
    assert not lacking[faces[:, None], taken.codes.reshape(3000, -1)].any()
    assert set(faces) == {0, 1} and any("$" in label for label in taken.labels)
    for face, label, codes in zip(faces, taken.labels, taken.codes):
        assert face == 0 or label == label.upper()
        word = codes[1, SIDE : SIDE + MAIN]
        assert "".join(CHARSET[c] for c in word if c < SPACE) == label
        assert (word[len(word[word != BLANK]) :] == BLANK).all()


def test_no_face_for_a_text(atlas: Atlas):
    # $ and # are in no face; the texts are drawn anew until one can be shown.
    parts = (atlas.glyphs[1:], atlas.kerning[1:], atlas.texels[atlas.offsets[1, 0] :])
    poor = atlas_build.assemble([atlas.faces[1]], *parts)
    taken = Orders(poor, ["#", "hotel"], extra=()).take(300, 0)
    assert not any(set("$#") & set(label) for label in taken.labels)
    empty = replace(poor, glyphs=np.zeros_like(poor.glyphs))
    with pytest.raises(DataError, match="more faces"):
        Orders(empty, ["hotel"], extra=()).take(3, 0)


def test_the_word_lies_within_the_crop(atlas: Atlas):
    """Corners of the ink, taken back from the picture to the text plane, are found in it."""
    renderer = Renderer(atlas, WORDS)
    dice = Dice(400, torch.Generator().manual_seed(1))
    width, height = torch.rand(400) * 300 + 20, torch.rand(400) * 20 + 20
    warp = random_warp(width, height, dice)
    u, v = text_points(warp, *renderer.size)
    inside = (u.abs() < width[:, None, None] / 2) & (v.abs() < height[:, None, None] / 2)
    share = inside.float().mean((1, 2))
    assert share.min() > 0.03 and share.median() > 0.45
    reach = torch.where(inside, u, 0.0).flatten(1).amax(1) / (width / 2)
    assert (reach > 0.9).float().mean() > 0.95


def test_the_sensor_sees_and_gives_back_as_pillow_does():
    rng = np.random.default_rng(0)
    row = rng.uniform(0, 255, (1, 24)).astype(np.float32)
    count, none = torch.tensor([24.0]), torch.zeros(1)
    up = camera._from_sensor(128, 40, count, torch.tensor([5.0]))[0].numpy()
    held = np.concatenate((np.repeat(row[:, :1], 5, 1), row, np.repeat(row[:, -1:], 11, 1)), axis=1)
    expected = np.asarray(Image.fromarray(row).resize((128, 1), Image.Resampling.BICUBIC))
    assert np.abs(held @ up.T - expected)[:, 8:-8].max() < 0.1
    wide = torch.from_numpy(rng.uniform(0, 255, (96,)).astype(np.float32))
    down = camera._to_sensor(40, 96, count, torch.tensor([5.0]), none, none)[0] @ wide
    # A blur of a fifth of a pixel stays, so that pixels far smaller than the scene's have weights at all.
    assert (down[5:29] - wide.view(24, 4).mean(1)).abs().max() < 10
    separate = camera._separable(torch.ones(1, 2, 3), torch.ones(1, 3, 3, 4), torch.ones(1, 5, 4))
    torch.testing.assert_close(separate, torch.full((1, 3, 2, 5), 12.0))


def test_words_come_back_in_their_order_from_parts(renderer: Renderer, monkeypatch: pytest.MonkeyPatch):
    """However the words of a batch are sorted and divided to be drawn."""
    taken = renderer.orders.take(150, 2)
    codes, faces = torch.from_numpy(taken.codes), torch.from_numpy(taken.faces)
    number, sizes = torch.arange(150) % 256, []

    def painted(codes: Tensor, faces: Tensor, fine: int) -> Tensor:
        sizes.append((len(codes), fine))
        longest = (codes[:, 1, SIDE : SIDE + MAIN] != BLANK).sum(1).max()
        assert fine == 2 or longest <= 10
        return faces.to(torch.uint8)[:, None, None, None].expand(-1, 32, 128, 3)

    monkeypatch.setattr(renderer, "_draw", painted)
    assert torch.equal(renderer.draw(codes, number, 0)[:, 0, 0, 0].long(), number) and len(faces) == 150
    assert sizes == [(50, 1), (50, 1), (50, 2)]


def test_one_sample_a_pixel_is_enough_for_wide_letters(renderer: Renderer):
    taken = order("hotel", "Wagen", "R2-D2", "MMMMMMMM")
    layout = renderer.glyphs.lay_out(torch.from_numpy(taken.codes).long(), torch.from_numpy(taken.faces))
    covers = []
    for fine in (1, 8):
        field = renderer.glyphs.field(layout, *text_points(plain_warp(*layout.size), 32, fine * 128))
        covers.append(coarser(coverage(field, slopes(field)), fine))
    assert (covers[0] - covers[1]).abs().mean() < 0.01


def test_enlarging_is_bicubic_interpolation():
    small = torch.randn(1, 1, 6, 18, generator=torch.Generator().manual_seed(0))
    dice = Dice(1, torch.Generator())
    dice.field = lambda *cells: small[:, 0] / 0.8  # type: ignore[method-assign]
    expected = torch.nn.functional.interpolate(small, (32, 128), mode="bicubic", align_corners=False)[:, 0]
    torch.testing.assert_close(smooth(dice, (6, 18), (32, 128)), expected, atol=1e-5, rtol=1e-5)


def test_printed_words_stand_dark_on_plain_paper(atlas: Atlas):
    renderer = Renderer(atlas, WORDS, seed=1)
    taken = renderer.orders.take(4000, 5)
    on_paper = taken.faces >= PAPER
    assert 0.02 < on_paper.mean() < 0.05
    assert 0.35 < np.mean([any(c.isdigit() for c in taken.labels[i]) for i in np.flatnonzero(on_paper)]) < 0.75
    some = taken.rows(np.arange(200))
    codes, faces = torch.from_numpy(some.codes), torch.from_numpy(some.faces) % PAPER
    values = [dict(zip(command.FIGURES, figures(renderer.draw(codes, faces + paper, 3).numpy()).T))
              for paper in (0, PAPER)]  # fmt: skip
    assert np.mean(values[1]["dark text"]) > 0.75 > np.mean(values[0]["dark text"])
    assert np.median(values[1]["grey"]) > np.median(values[0]["grey"]) + 30
    assert np.median(values[1]["saturation"]) < 0.6 * np.median(values[0]["saturation"])


def test_faces_of_even_width_print_most_of_what_is_printed(atlas: Atlas):
    even = atlas.glyphs.copy()
    even[1, :, 4] = 300
    shares = printing_weights(replace(atlas, glyphs=even), np.array([0.9, 0.1]))
    assert 0.6 < shares[1] < 0.75 and shares.sum() == pytest.approx(1)
    assert printing_weights(atlas, np.array([0.9, 0.1])).sum() == pytest.approx(1)


def test_a_good_camera_changes_little():
    scene = torch.zeros(2, 3, 32, 128)
    scene[:, :, 8:24, 20:100] = 200
    one = torch.tensor([32.0, 16.0])
    down = camera._to_sensor(40, 32, one, torch.tensor([3.0, 0.0]), torch.zeros(2), torch.zeros(2))
    up = camera._from_sensor(32, 40, one, torch.tensor([3.0, 0.0]))
    torch.testing.assert_close((up @ down).sum(-1), torch.ones(2, 32))
    seen = (up @ down)[:, None] @ scene
    assert (seen[0] - scene[0]).abs().max() < 12 and (seen[1] - scene[1]).abs().mean() < 8
    basis = camera._cosines(torch.device("cpu"))
    torch.testing.assert_close(basis @ basis.T, torch.eye(8), atol=1e-5, rtol=0)
    smooth = torch.linspace(20, 220, 40)[:, None].expand(4, 3, 40, 128).contiguous()
    seen = camera.jpeg(Dice(4, torch.Generator().manual_seed(0)), smooth)
    assert (seen - smooth).abs().mean() < 6


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_lmdb(folder / "words", ["stop", "Exit", "24", "taxi"] * 12)
    return folder


def test_stored_and_drawn_words_share_a_batch(atlas_file: Path, words: Path):
    charset = Charset()
    stored, _ = load_words([words], charset)
    stream = Stream([(stored, 1.0, 1.0)], charset, (16, 64), 8, seed=1, render=0.75, vocabulary=WORDS)
    drawn = drawn_beside(map(stream.make, range(16)), stream, str(atlas_file), torch.device("cpu"))
    batches = list(drawn)
    longest = [batch.tokens.shape[1] for batch in batches]
    for number, batch in enumerate(batches):
        assert batch.number == number and batch.pixels.shape == (8, 16, 64, 3) and batch.pixels.dtype == torch.uint8
        assert torch.equal(batch.pixels[:2], stream.make(number).pixels)
        assert (batch.tokens[:, 0] == charset.start).all() and ((batch.tokens == 0).sum(1) == 1).all()
    assert min(longest[:8]) < max(longest[:8]) - 2  # words of a length go together
    again = drawn.complete(pickle.loads(pickle.dumps(stream)).make(11))
    assert torch.equal(again.pixels, batches[11].pixels) and torch.equal(again.tokens, batches[11].tokens)


def test_drawn_words_alone(atlas_file: Path):
    charset = Charset()
    stream = Stream([], charset, (16, 64), 6, render=1.0)
    batch = drawn_beside([], stream, str(atlas_file), torch.device("cpu")).complete(stream.make(3))
    assert batch.pixels.shape == (6, 16, 64, 3) and len(batch.tokens) == 6
    order = stream.orders.take(48, "0/group 0")
    words = sorted(charset.decode(row[1:].tolist()) for n in range(8) for row in stream.make(n).tokens)
    assert words == sorted(order.labels)


def test_a_run_on_drawn_words_goes_on(atlas_file, words, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(SIZES, "small", replace(TINY))
    options = ["--render", "0.5", "--render-atlas", str(atlas_file), "--batch", "4", "--workers", "0", "--threads", "1",
               "--precision", "32", "--accelerator", "cpu", "--data", str(words), "--real-fraction", "0.5"]  # fmt: skip
    for name, count in (("whole", "2"), ("parts", "1"), ("parts", "2")):
        # A schedule by minutes would differ; one by steps ends where it is told.
        monkeypatch.setattr("clip4str.training.schedule.one_cycle", lambda progress: 1.0)
        assert main([*options, "--output", str(tmp_path / name), "--steps", count]) == 0
    assert "2 steps, 8 words" in capsys.readouterr().out
    whole, parts = (torch.load(tmp_path / n / "last.ckpt", weights_only=True) for n in ("whole", "parts"))
    for name in ("clip_model.visual.proj", "visual_decoder.text_embed.embedding.weight"):
        torch.testing.assert_close(whole["state_dict"][name], parts["state_dict"][name], rtol=0, atol=1e-6)
    assert main([*options[2:], "--output", str(tmp_path / "other"), "--steps", "1"]) == 2
    assert "how much" in capsys.readouterr().err
