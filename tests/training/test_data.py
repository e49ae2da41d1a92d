"""LMDB folders, labels, held-out words, and batches that depend on nothing but the seed and their number."""

from types import SimpleNamespace

import lmdb
import numpy as np
import pytest
import torch
from PIL import Image
from tiny import draw, write_lmdb

from clip4str.core.errors import DataError, UsageError
from clip4str.core.text import Charset
from clip4str.training.augment import distort, recolour, resize
from clip4str.training.data import RENDERED_STRENGTH, Stream, clean_label, encode_words, load_validation, load_words

CHARSET = Charset()
WORDS = ["sign", "EXIT", "No.7", "cafe", "a", "longerword", "x1", "Taxi"]


@pytest.mark.parametrize(
    "label, word",
    [("Hello", "Hello"), (" two words\t", "twowords"), ("Café", "Cafe"), ("ﬁx", "fix"), ("２４", "24"), ("日本", None),
     ("", None), (" ", None), ("x" * 25, "x" * 25), ("x" * 26, None), ("a\u200bb", "ab")],
)  # fmt: skip
def test_labels(label, word):
    assert clean_label(label, CHARSET) == word


def test_characters_outside_the_charset_are_left_out():
    assert clean_label("A-1 b", Charset("0123456789abcdefghijklmnopqrstuvwxyz")) == "a1b"  # as CharsetAdapter has it
    assert clean_label("A-1 b", Charset("0123456789abB")) == "1b"


def test_folders_are_walked(tmp_path):
    write_lmdb(tmp_path / "b" / "deep", ["x"])
    write_lmdb(tmp_path / "a", ["y"])
    write_lmdb(tmp_path / ".part", ["z"])
    train, held = load_words([tmp_path], CHARSET)
    assert train.labels == ["y", "x"] and len(held) == 0
    assert train.picture(1).size == (64, 16)


def test_held_out_words_are_chosen_by_their_pictures(tmp_path):
    words = [f"w{i}" for i in range(300)]
    write_lmdb(tmp_path / "one", words)
    write_lmdb(tmp_path / "copy", words)
    train, held = load_words([tmp_path / "one"], CHARSET, 0.2)
    assert 30 <= len(held) <= 90 and sorted(train.labels + held.labels) == sorted(words)
    both_train, both_held = load_words([tmp_path], CHARSET, 0.2)
    assert set(both_held.labels) == set(held.labels) and not set(both_train.labels) & set(both_held.labels)


def test_a_set_held_out_is_not_learned_from_nor_are_copies_of_its_pictures(tmp_path):
    whole = write_lmdb(tmp_path / "data" / "SVT", ["one", "two"])
    write_lmdb(tmp_path / "data" / "other", ["one", "three", "four"], first=0)  # the first picture is that of SVT
    sets, places, pictures = load_validation([whole], CHARSET)
    assert {name: words.labels for name, words in sets.items()} == {"SVT": ["one", "two"]} and len(pictures) == 2
    train, held = load_words([tmp_path / "data"], CHARSET, left_out=pictures, apart=places)
    assert train.labels == ["three", "four"] and len(held) == 0
    write_lmdb(tmp_path / "more" / "SVT", ["x"])
    with pytest.raises(UsageError, match="a second validation set called SVT"):
        load_validation([tmp_path], CHARSET)


def test_sets_are_drawn_by_rows_times_weight(tmp_path):
    for name, words in (("a", ["aa"] * 30), ("b", ["bb"] * 10), ("c", ["cc"] * 10)):
        write_lmdb(tmp_path / name, words)
    words, _ = load_words([tmp_path], CHARSET, weights={"b": 6, "c": 0})
    assert set(words.labels) == {"aa", "bb"}
    drawn = [words.labels[words.draw((k + 0.5) / 900)] for k in range(900)]
    assert drawn.count("bb") == 600
    mixed = Stream([(words, 1.0, 0.0)], CHARSET, (16, 64), batch=50, augment=False)
    read = [CHARSET.decode(row[1:].tolist()) for n in range(16) for row in mixed.make(n).tokens]
    assert 0.6 < read.count("bb") / len(read) < 0.73
    assert words.draw(0.0) == 0 and words.draw(np.nextafter(1, 0)) == len(words) - 1
    with pytest.raises(UsageError, match=r"no set is called 'd'; there are a, b, c"):
        load_words([tmp_path], CHARSET, weights={"d": 1})


def test_of_a_caseless_set_only_words_without_letters_are_learned(tmp_path):
    write_lmdb(tmp_path / "receipts", ["TOTAL", "12.50", "5X", "#3"])
    write_lmdb(tmp_path / "signs", ["EXIT"])
    words, _ = load_words([tmp_path], CHARSET, caseless=["receipts"])
    assert words.labels == ["12.50", "#3", "EXIT"]
    with pytest.raises(UsageError, match="'absent'"):
        load_words([tmp_path], CHARSET, caseless=["absent"])


def test_errors(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        load_words([tmp_path / "missing"], CHARSET)
    with pytest.raises(DataError, match="no LMDB"):
        load_words([tmp_path], CHARSET)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "data.mdb").write_bytes(b"\0" * 5000)
    with pytest.raises(DataError, match="not a readable LMDB"):
        load_words([tmp_path / "bad"], CHARSET)
    with lmdb.open(str(tmp_path / "other")) as environment, environment.begin(write=True) as txn:
        txn.put(b"key", b"value")
    with pytest.raises(DataError, match="num-samples"):
        load_words([tmp_path / "other"], CHARSET)
    write_lmdb(tmp_path / "foreign", ["日本"])
    with pytest.raises(DataError, match="no word"):
        load_words([tmp_path / "foreign"], CHARSET)


def stream(folder, **options):
    words, _ = load_words([folder], CHARSET)
    return Stream([(words, 1.0, 1.0)], CHARSET, (16, 64), batch=5, **options)


def test_a_batch_depends_on_seed_and_number_alone(tmp_path):
    write_lmdb(tmp_path / "words", WORDS)
    a, b = stream(tmp_path), stream(tmp_path)
    run = iter(a)
    first = [next(run) for _ in range(12)]
    b.start = 7
    again = next(iter(b))
    assert again.number == 7
    assert torch.equal(again.pixels, first[7].pixels) and torch.equal(again.tokens, first[7].tokens)
    assert again.pixels.shape == (5, 16, 64, 3) and again.pixels.dtype == torch.uint8
    assert not torch.equal(stream(tmp_path, seed=1).make(7).pixels, again.pixels)


def test_processes_share_out_the_stream(tmp_path):
    write_lmdb(tmp_path / "words", WORDS)
    whole = stream(tmp_path)
    for rank in range(3):
        part = stream(tmp_path, rank=rank, world=3)
        assert torch.equal(part.make(2).pixels, whole.make(6 + rank).pixels)


def test_a_picture_that_is_none_gives_way(tmp_path):
    write_lmdb(tmp_path / "words", WORDS)
    with lmdb.open(str(tmp_path / "words")) as environment, environment.begin(write=True) as txn:
        txn.put(b"image-%09d" % 3, b"not a picture")
    batches = [stream(tmp_path).make(n) for n in range(10)]
    read = {CHARSET.decode(row[1:].tolist()) for batch in batches for row in batch.tokens}
    assert "No.7" not in read and {"cafe", "EXIT"} <= read


def test_mixing(tmp_path):
    write_lmdb(tmp_path / "real", ["real"] * 20)
    write_lmdb(tmp_path / "made", ["made"] * 20)
    parts = [load_words([tmp_path / name], CHARSET)[0] for name in ("real", "made")]
    mixed = Stream([(parts[0], 0.25, 1.0), (parts[1], 0.75, RENDERED_STRENGTH)], CHARSET, (16, 64), batch=50)
    words = [CHARSET.decode(row[1:].tolist()) for n in range(8) for row in mixed.make(n).tokens]
    assert 0.15 < words.count("real") / len(words) < 0.35


class Stripes:
    """In place of textless crops: as wide as their number."""

    def crop(self, number):
        return SimpleNamespace(picture=Image.new("RGB", (number + 1, 8), (number, 0, 0)))


def test_a_share_of_every_batch_teaches_the_empty_word(tmp_path):
    write_lmdb(tmp_path / "words", WORDS)
    words, _ = load_words([tmp_path], CHARSET)
    mixed = Stream([(words, 1.0, 1.0)], CHARSET, (16, 64), batch=20, augment=False, textless=(0.1, Stripes()))
    for number in range(3):
        batch = mixed.make(number)
        read = [CHARSET.decode(row[1:].tolist()) for row in batch.tokens]
        assert len(batch.pixels) == 20 and read.count("") == 2 and set(read) - {""} <= set(WORDS)
        shades = [int(batch.pixels[i, 0, 0, 0]) for i, word in enumerate(read) if not word]
        assert shades == [2 * number, 2 * number + 1]  # no crop twice


def test_a_batch_of_empty_words_alone_is_wide_enough_for_an_order():
    batch = Stream([], CHARSET, (16, 64), batch=4, textless=(1.0, Stripes())).make(0)
    assert batch.pixels.shape == (4, 16, 64, 3)
    assert batch.tokens.tolist() == 4 * [[CHARSET.start, 0, CHARSET.pad]]


def test_tokens():
    tokens = encode_words(["ab", "1"], CHARSET)
    assert tokens.tolist() == [[CHARSET.start, 11, 12, 0], [CHARSET.start, 2, 0, CHARSET.pad]]


def test_augmentation_keeps_shapes_and_strength_zero_changes_nothing():
    rng = np.random.default_rng(0)
    pixels = np.stack([distort(draw("word", i), (16, 64), rng) for i in range(64)])
    assert pixels.shape == (64, 16, 64, 3) and pixels.dtype == np.uint8
    assert recolour(pixels, rng, np.ones(64)).shape == pixels.shape
    assert np.array_equal(recolour(pixels, rng, np.zeros(64)), pixels)
    assert resize(draw("x"), (32, 128)).shape == (32, 128, 3)
