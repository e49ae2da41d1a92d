"""Textless crops: each kind is what its name says and the same for the same number; photos are cut away from words."""

import io
import pickle

import numpy as np
import pytest
from PIL import Image

from clip4str.core.errors import DataError
from clip4str.data.word_lmdb import fraction
from clip4str.training.textless import letters, photos, plain, scripts, shapes, textures
from clip4str.training.textless.crops import MADE, SHARES, Textless
from clip4str.training.textless.photos import SAME, Photos

SIZE = (32, 96)
WORD = (200, 100, 300, 140)  # left, top, right, bottom


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture
def folder(tmp_path):
    """Grey photos, each with one red word and the list that names its place."""
    noise = rng().integers(90, 160, (240, 480), np.uint8)
    for k in range(12):
        pixels = np.stack([noise] * 3, 2)
        pixels[WORD[1] : WORD[3], WORD[0] : WORD[2]] = (255, 0, 0)
        Image.fromarray(pixels).save(tmp_path / f"img_{k}.png")
        (tmp_path / f"img_{k}.txt").write_text("\ufeff200,100,300,100,300,140,200,140,a,b\n", encoding="utf-8")
    return tmp_path


def test_a_crop_is_a_function_of_seed_and_number(folder):
    one, two = (Textless(3, Photos(folder)) for _ in range(2))
    two.crop(5)  # what came before does not matter
    for number in (0, 7, 8, 9, 40):
        a, b = one.crop(number), two.crop(number)
        assert a.kind == b.kind and np.array_equal(a.picture, b.picture)
    other = Textless(4, Photos(folder))
    assert any(not np.array_equal(one.crop(n).picture, other.crop(n).picture) for n in range(3))
    assert np.array_equal(pickle.loads(pickle.dumps(one)).crop(7).picture, one.crop(7).picture)


def test_kinds_come_in_their_shares(folder):
    series = Textless(0, Photos(folder))
    kinds = [series.crop(n).kind for n in range(600)]
    total = sum(SHARES[kind] for kind in series.kinds)
    for kind in series.kinds:
        assert abs(kinds.count(kind) / 600 - SHARES[kind] / total) < 0.06, kind
    assert {"photo", "blank", "half-cut", "beyond reading"} <= set(kinds)
    assert "photo" not in {Textless(0).crop(n).kind for n in range(200)}


@pytest.mark.parametrize("kind", sorted(MADE))
def test_every_kind_is_a_picture_and_varies(kind):
    series = Textless(1, made={kind: MADE[kind]}, shares={kind: 1.0})
    if not series.kinds:
        pytest.skip(series.notes[0])
    pictures = [series.crop(n).picture for n in range(30)]
    assert all(p.mode == "RGB" and p.width >= 3 and 2 <= p.height <= 64 for p in pictures)
    assert len({p.tobytes() for p in pictures}) > 25
    aspects = sorted(p.width / p.height for p in pictures)
    assert aspects[0] < 2.5 < aspects[-1]


def test_blank_is_one_colour_and_a_white_page_among_them():
    pages = [plain.blank(rng(k), SIZE) for k in range(200)]
    assert all(np.ptp(page.astype(int).mean(2)) < 45 for page in pages)
    assert sum((page == 255).all() for page in pages) > 5 and sum(page.max() == 0 for page in pages) >= 2


def test_strong_jpeg_is_blocks():
    """More of the change lies at the borders of its 8 pixel blocks than between others."""
    steps = np.zeros(8)
    for k in range(60):
        pixels = plain.strong_jpeg(rng(k), (64, 128)).astype(float).mean(2)
        change = np.abs(np.diff(pixels, axis=1)).sum(0)
        steps += np.bincount(np.arange(1, 128) % 8, change, 8)
    assert steps.argmax() == 0


@pytest.mark.parametrize("maker", [textures.checks, textures.stripes, textures.bars, textures.lattice, textures.tiles,
                                   textures.leaves, textures.banked, shapes.blobs, shapes.ovals, shapes.lines,
                                   shapes.logo, plain.gradient, plain.noise])  # fmt: skip
def test_patterns_are_seen(maker):
    """Not plain: two tones apart, in most of them."""
    spread = [np.ptp(maker(rng(k), SIZE).astype(int).mean(2)) for k in range(40)]
    assert np.median(spread) > 30


@pytest.mark.skipif(not letters.latin_faces(), reason="no Latin fonts here")
class TestLetters:
    def test_half_cut_text_shows_a_strip_at_an_edge_only(self, monkeypatch):
        monkeypatch.setattr(letters, "_printed", lambda rng, mask, to=None: np.asarray(mask))
        cut = 0
        for k in range(120):
            mask = letters.half_cut(rng(k), SIZE)
            rows, columns = np.nonzero(mask > 20)
            if not len(rows):
                continue
            middle = rows.mean() / SIZE[0], columns.mean() / SIZE[1]
            cut += not (0.34 < middle[0] < 0.66 and 0.13 < middle[1] < 0.87)
        assert cut > 85  # the others are the strip alone, a few, or a face's very flat letters

    def test_beyond_reading_strokes_run_into_each_other(self, monkeypatch):
        """Strokes as far apart as those of an n: seen at 13 pixels of height, gone in every one of these crops."""
        strokes = np.tile(np.repeat(np.array([255, 0], np.uint8), 6), (40, 20))
        monkeypatch.setattr(letters, "line", lambda rng, words=1: Image.fromarray(strokes))
        ink, paper = np.zeros(3, np.float32), np.full(3, 255, np.float32)
        monkeypatch.setattr(letters, "two_colours", lambda rng, apart: (ink, paper))
        monkeypatch.setattr(letters, "ground", lambda rng, size: np.full((*size, 3), 255, np.uint8))

        def contrast(pixels):
            high, wide = pixels.shape[:2]
            middle = pixels[high // 2, wide // 4 : 3 * wide // 4, 0].astype(int)
            return np.abs(np.diff(middle)).max()

        assert contrast(letters._printed(rng(), Image.fromarray(strokes), (78, 13))) > 120
        assert max(contrast(letters.beyond_reading(rng(k), SIZE)) for k in range(100)) < 120


def test_other_scripts_are_those_with_fonts(monkeypatch):
    known = scripts.script_faces()
    if known:
        assert set(known) <= set(scripts.LEARNED)
        pixels = scripts.other_script(rng(1), SIZE)
        assert pixels.shape[0] == SIZE[0] and pixels.dtype == np.uint8
    monkeypatch.setattr(scripts, "font_files", lambda: [])
    assert scripts.script_faces(("Thai",)) == {}
    assert not set(scripts.LEARNED) & set(scripts.MEASURED)


def test_no_script_has_characters_of_latin_greek_or_cyrillic():
    for name, script in scripts.SCRIPTS.items():
        characters = scripts._letters(script)
        assert len(characters) > 8 and min(map(ord, characters)) > 0x0590, name
        assert not set(characters) & set(script.left_out)


def test_what_the_machine_lacks_is_said(monkeypatch):
    monkeypatch.setattr(letters, "latin_faces", lambda: ())
    monkeypatch.setattr(scripts, "script_faces", lambda: {})
    series = Textless()
    assert series.notes == ["no Latin fonts on this machine: no half-cut and no beyond reading crops",
                            "no fonts of other scripts on this machine: no other script crops"]  # fmt: skip
    assert not {"half-cut", "other script"} & {series.crop(n).kind for n in range(100)}


def test_pieces_of_photos_have_no_word_in_them(folder):
    shots = Photos(folder)
    for number in range(400):
        pixels = shots.piece(rng(number), number * 7)
        if pixels is not None:
            assert 2 <= pixels.shape[0] <= 64 and pixels.shape[1] >= 2
            assert int(pixels[..., 0].max()) - int(pixels[..., 1].max()) < 30  # grey: nothing of the red word


def test_what_the_lists_of_words_leave_out_is_kept_away_from_too(folder, tmp_path, monkeypatch):
    rows = [f"img_{k}.png\t0\t0\t480\t100\n" for k in range(12)]
    (tmp_path / "more.tsv").write_text("photo\tleft\ttop\tright\tbottom\n" + "".join(rows))
    monkeypatch.setattr(photos, "UNLABELLED", tmp_path / "more.tsv")
    photos._unlabelled.cache_clear()
    shots = Photos(folder)
    photos._unlabelled.cache_clear()
    assert all(boxes.tolist() == [list(WORD), [0, 0, 480, 100]] for boxes in shots.words)
    assert all(boxes.tolist() == [list(WORD)] for boxes in Photos(folder, unlabelled=False).words)


def test_the_list_of_unlabelled_text_is_sound():
    found = photos._unlabelled()
    for name, boxes in found.items():
        assert name.startswith("img_") and (boxes[:, :2] < boxes[:, 2:]).all(), name


def test_a_third_of_the_photos_is_for_measuring_only(folder):
    learned, measured = Photos(folder), Photos(folder, measured=True)
    assert not set(learned.paths) & set(measured.paths)
    assert len(learned) + len(measured) == 12 and 1 <= len(measured) <= 8
    names = [fraction(b"img_%d.jpg" % k) >= photos.LEARNED for k in range(3000)]
    assert 900 < sum(names) < 1100


def test_a_photo_full_of_words_gives_way(folder):
    for path in folder.glob("*.txt"):
        path.write_text("0,0,480,0,480,240,0,240,all")
    only = Textless(0, Photos(folder), {}, {"photo": 1.0})
    with pytest.raises(DataError, match="no piece without a word"):
        only.crop(0)
    assert Textless(0, Photos(folder)).crop(3).kind != "photo"
    first = sorted(folder.glob("*.txt"))
    for path in first[::2]:
        path.write_text("")
    assert only.photos is not None and Textless(0, Photos(folder), {}, {"photo": 1.0}).crop(SAME).kind == "photo"


def test_photos_that_are_none(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no photo"):
        Photos(tmp_path / "empty")
    shots = Photos(folder)
    shots.paths[0].write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"img_\d+\.png: not an image that Pillow can read"):
        shots.piece(rng(), 0)
    small = io.BytesIO()
    Image.new("RGB", (20, 20)).save(small, "PNG")
    shots.paths[1].write_bytes(small.getvalue())
    with pytest.raises(DataError, match="20x20 pixels"):
        shots.piece(rng(), SAME)
    lists = sorted(folder.glob("*.txt"))
    for content in ("1,2,3\n", "a,1,2,3,4,5,6,7,x", "nan,1,2,3,4,5,6,7,x"):
        for path in lists:
            path.write_text(content)
        with pytest.raises(DataError, match=r"is not x1,y1,\.\.\.,x4,y4,text"):
            Photos(folder)
    for path in lists:
        path.unlink()
    with pytest.raises(DataError, match="cannot be read as a list"):
        Photos(folder)
