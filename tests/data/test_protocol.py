"""The standard protocol on awkward labels, edit distance against the textbook recursion, names of sets."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from charsets import DIGITS, VIETNAMESE

from clip4str.core.edit_distance import edit_distance
from clip4str.core.text import CHARSET_36, CHARSET_94, Charset, default_test
from clip4str.data.protocol import Protocol, closeness
from clip4str.data.standard_sets import STANDARD, claimed_sets, name_sets, standard_name


@pytest.mark.parametrize(
    ("stored", "label"),
    [
        ("Ronaldo", "ronaldo"),
        ("  two words\t", "twowords"),
        ("Café", "cafe"),
        ("CAFÉ№2", "cafeno2"),  # NFKD takes compatibility characters apart
        ("ﬁsh ½", "fish12"),  # a ligature; the fraction slash is not ASCII
        ("don't!", "dont"),
        ("10:30", "1030"),
        ("a" * 25, "a" * 25),
        ("a" * 26, None),
        ("a" * 24 + "--", None),  # too long before punctuation goes
        ("a " * 25, "a" * 25),  # whitespace does not count
        ("...", None),
        ("日本", None),
        ("", None),
    ],
)
def test_labels(stored, label):
    assert Protocol().label(stored) == label


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "its5pm"),
        ({"cased": True}, "Its5PM"),
        ({"punctuation": True}, "it's5pm!"),
        ({"cased": True, "punctuation": True}, "It's5PM!"),
    ],
)
def test_case_and_punctuation(options, expected):
    protocol = Protocol(**options)
    assert protocol.label("It's 5 PM!") == protocol.prediction("It's 5 PM!") == expected


@pytest.mark.parametrize(
    ("options", "label", "compared"),
    [
        ({}, "Phở, 5", "phở5"),
        ({"cased": True}, "Phở, 5", "Phở5"),
        ({"punctuation": True}, "Phở, 5", "phở,5"),
        ({"cased": True, "punctuation": True}, "Phở, 5", "Phở,5"),
        ({}, "日本", None),
        ({}, "x" * 101, None),
        ({}, "x" * 100, "x" * 100),
    ],
)
def test_a_network_of_another_script_is_compared_in_its_own(options, label, compared):
    """Whatever its test charset keeps of ASCII alone: accents count."""
    for test in (CHARSET_36, default_test(VIETNAMESE)):
        protocol = Protocol.of(Charset(VIETNAMESE, test), 101, **options)
        assert protocol.label(label) == compared and protocol.to_dict()["own"]


def test_a_network_of_ascii_keeps_the_standard_protocol_to_the_letter():
    for charset in (Charset(), Charset(test=CHARSET_94), Charset(CHARSET_36)):
        assert Protocol.of(charset, 26) == Protocol() and Protocol.of(charset, 11).max_length == 25
    assert Protocol.of(Charset(DIGITS), 26).label("No 24") == "24"
    assert Protocol.of(Charset(DIGITS), 26).altered("No 24") and not Protocol.of(Charset(DIGITS), 26).altered("24")
    assert Protocol().altered("Café") and not Protocol().altered("It's 5 PM")


def test_predictions_are_never_left_out():
    assert Protocol().prediction("b" * 26) == "b" * 26
    assert Protocol().prediction("!?") == ""


def test_closeness_is_one_less_the_share_of_characters_to_change():
    assert closeness("", "") == 1 and closeness("abc", "") == 0
    assert closeness("kitten", "sitting") == pytest.approx(4 / 7)
    draw = random.Random(0)
    for _ in range(300):
        a, b = ("".join(draw.choices("abc", k=draw.randrange(9))) for _ in range(2))
        longest = max(len(a), len(b))
        assert closeness(a, b) == pytest.approx(1 - edit_distance(a, b) / longest if longest else 1)


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("IIIT5K", "IIIT5k"),
        ("IIIT5k_3000", "IIIT5k"),
        ("svt", "SVT"),
        ("SVT-P", "SVTP"),
        ("CUTE", "CUTE80"),
        ("IC13_857", "IC13_857"),
        ("icdar2013_1015", "IC13_1015"),
        ("IC15", "IC15_2077"),
        ("ic15-1811", "IC15_1811"),
        ("coco_v1.4", "COCOv1.4"),
        ("art", "ArT"),
        ("uber-text", "Uber"),
        ("my_words", None),
        ("IC03_867", None),
    ],
)
def test_folder_names(folder, name):
    assert standard_name(Path("data") / folder) == name


def test_every_standard_set_knows_its_own_name():
    assert [standard_name(Path(name)) for name in STANDARD] == list(STANDARD)


def test_training_splits_and_doubles_are_not_standard_sets(tmp_path):
    folders = [tmp_path / f for f in ("test/SVT", "train/SVT", "a/CUTE80", "b/cute", "other")]
    for folder in folders:
        folder.mkdir(parents=True)
    named = name_sets(tmp_path, folders)
    assert list(named) == ["SVT", "a/CUTE80", "b/cute", "other", "train/SVT"]
    assert named["SVT"] == folders[0]
    assert name_sets(folders[0], [folders[0]]) == {"SVT": folders[0]}


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (("SVT", "b/svt"), ["./SVT", "b/svt"]),
        (("SVT", "SVT/svt"), ["./SVT", "SVT/svt"]),
        (("SVT", "b/svt", "CUTE"), ["CUTE80", "./SVT", "b/svt"]),
    ],
)
def test_a_set_claimed_twice_is_never_the_one_on_top(folders, names, tmp_path):
    places = [tmp_path / folder for folder in folders]
    for place in places:
        place.mkdir(parents=True)
    named = name_sets(tmp_path, places)
    assert list(named) == names
    assert named["./SVT"] == tmp_path / "SVT"
    assert claimed_sets(tmp_path, places)["SVT"] == places[:2]


def test_the_root_itself_hides_no_set_below_it(tmp_path):
    root = tmp_path / "words"
    (root / "words").mkdir(parents=True)
    assert name_sets(root, [root]) == {"words": root}
    assert name_sets(root, [root, root / "words"]) == {".": root, "words": root / "words"}
