"""Charsets and CLIP's byte pairs."""

import re
import unicodedata

import pytest
from charsets import BENGALI, VIETNAMESE
from golden_weights import GOLDEN

from clip4str.core.bpe import BytePairTokenizer
from clip4str.core.errors import CharsetError
from clip4str.core.text import CHARSET_94, Charset, default_test, describe_characters


def test_all_captions_of_the_published_tokenizer():
    tokenizer = BytePairTokenizer()
    lines = (GOLDEN / "bpe.tsv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 4000
    for line in lines:
        caption, tokens = line.split("\t")
        assert tokenizer([caption])[0].tolist() == [int(t) for t in tokens.split()], caption


def test_entities_specials_and_other_scripts():
    tokenizer = BytePairTokenizer()
    one = tokenizer(["a&amp;b", "a&b", "<|endoftext|>", "é", "&eacute;", ""])
    assert one[0].tolist() == one[1].tolist()
    assert one[2, :3].tolist() == [49406, 49407, 49407]
    assert one[3].tolist() == one[4].tolist()
    assert one[5, :3].tolist() == [49406, 49407, 0]


MOJIBAKE = {"Ģ¸·ķ¦ł", "@Ý¨{¯Ġ", "ýĹÓÉ±Ĝô"}  # ftfy takes them for Cyrillic and the like, decoded wrongly


def test_captions_of_other_scripts_are_tokenised_as_clip_does():
    """Combining marks, Latin-1 signs, letters of full width, numerals, ligatures, curly quotes, joiners."""
    tokenizer = BytePairTokenizer()
    lines = (GOLDEN / "bpe-scripts.tsv").read_text(encoding="utf-8").split("\n")[:-1]
    pairs = dict(line.split("\t") for line in lines)
    assert len(pairs) == 2866 and {"করা", "ক্\u200dষ", "½½", "ＡＢＣ１２３！", "¿qué?", "đa\u0306ng"} <= pairs.keys()
    differ = {c for c, tokens in pairs.items() if tokenizer([c])[0].tolist() != [int(t) for t in tokens.split()]}
    assert differ == {*MOJIBAKE, "a&EACUTE;b"}


def test_a_shortened_vocabulary_keeps_the_first_merges():
    full, short = BytePairTokenizer(), BytePairTokenizer(1026)
    ids = short(["the"])[0].tolist()
    assert ids[0] == 1024 and ids[2] == 1025 and ids[1] < 1024
    assert ids[1] == full(["the"])[0][1], "an early merge keeps its id"
    rare = short(["guinness"])[0]
    assert rare.max() == 1025 and (rare > 0).sum() > (full(["guinness"])[0] > 0).sum()
    bytes_only = BytePairTokenizer(514)
    assert (bytes_only(["abc"])[0] > 0).sum() == 5
    for impossible in (513, 49409, 0):
        with pytest.raises(CharsetError, match="vocabulary"):
            BytePairTokenizer(impossible)


def test_ids_words_and_captions():
    charset = Charset()
    ids = charset.encode("Caf-1")
    assert charset.decode([*ids, 0, 5, 6]) == "Caf-1"
    assert charset.caption([*ids, 0]) == "caf1"
    assert Charset(test="0123ABC").caption(Charset().encode("abcd1")) == "ABC1"
    assert Charset(test=CHARSET_94).caption(ids) == "Caf-1"
    assert Charset().caption(Charset().encode("a[E]b")) == "aeb", "not cut at the letters [E], as published code does"
    with pytest.raises(CharsetError, match="'é'"):
        charset.encode("é")
    with pytest.raises(CharsetError, match="empty"):
        Charset("")


def test_a_charset_that_repeats_a_character_is_enumerated_as_the_published_code_does():
    """Its tokeniser is dict(zip(characters, numbers)) one way, so the last counts, and a tuple the other way."""
    assert len(VIETNAMESE) == 229 and VIETNAMESE.count("'") == 2
    charset, first = Charset(VIETNAMESE), VIETNAMESE.index("'") + 1
    assert charset.encode("'") == [first + 1]
    assert charset.decode([first]) == charset.decode([first + 1]) == "'"
    assert (charset.start, charset.pad) == (230, 231)
    assert charset.encode("đẳng") == [VIETNAMESE.index(c) + 1 for c in "đẳng"]
    assert describe_characters(VIETNAMESE) == "229 characters, ' twice"


def test_a_charset_with_unassigned_code_points_a_space_and_joiners_loads():
    charset = Charset(BENGALI)
    word = "ক্\u200dষ ১"
    assert charset.decode(charset.encode(word)) == word
    assert charset.spell(word) == word and charset.spell("ক  x\tখ") == "ক খ"
    unassigned = sum(unicodedata.category(c) == "Cn" for c in BENGALI)
    assert unassigned and describe_characters(BENGALI) == (
        f"{len(BENGALI)} characters, 1 space, 2 invisible characters, {unassigned} unassigned code points"
    )
    with pytest.raises(CharsetError, match="surrogate"):
        Charset("ab\ud800")


def test_a_test_charset_is_a_filter_and_what_it_misses_is_said():
    digits = Charset("0123456789")
    assert digits.caption(digits.encode("2024")) == "2024" and "keep the 10 of" in digits.note
    chinese = Charset("日本語")
    assert chinese.caption(chinese.encode("日本")) == "" and "always empty" in chinese.note
    assert Charset().note == Charset(VIETNAMESE).note == ""


@pytest.mark.parametrize(
    ("text", "test"), [("Stop 24!", "0123456789abc"), ("Stop", "STOP"), ("Stop", "Stp"), ("ΟΔΟΣ", "οδος")]
)
def test_captions_are_those_of_the_published_adapter(text, test):
    adapted = text.lower() if test == test.lower() else text.upper() if test == test.upper() else text
    assert Charset(test=test).reduce(text) == re.sub(f"[^{re.escape(test)}]", "", adapted)


@pytest.mark.parametrize(
    ("charset", "label", "word"),
    [
        (VIETNAMESE, "đăng", "đăng"),
        (VIETNAMESE, unicodedata.normalize("NFD", "đặng Ẵ"), "đặngẴ"),
        (VIETNAMESE, "Škoda", "Skoda"),
        (CHARSET_94, "đăng", "ang"),  # no accent makes đ out of d: NFKD leaves it, as in the published code
        (CHARSET_94, "Café ﬁx ½", "Cafefix12"),
        (CHARSET_94, "Straße", "Strae"),
        (CHARSET_94[:36], "STOP-É", "stope"),
        ("\u09df\u09a6", "\u09df", "\u09df"),  # NFC would take it apart
        ("\u09af\u09bc", "\u09df", "\u09af\u09bc"),
        ("日本", "日本語", "日本"),
        ("日本", "ABC", ""),
    ],
)
def test_a_label_loses_only_what_the_charset_lacks(charset, label, word):
    assert Charset(charset).spell(label) == word


def test_captions_keep_letters_and_marks_of_other_scripts_unless_told_otherwise():
    assert default_test(CHARSET_94) == CHARSET_94[:36] and default_test("0123") == "0123" and default_test("!?") == "!?"
    assert set("đặẵ09az") <= set(default_test(VIETNAMESE)) and not set("Đ'!Z") & set(default_test(VIETNAMESE))
    assert "\u09cd" in default_test(BENGALI) and " " not in default_test(BENGALI)
