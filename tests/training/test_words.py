"""What synthetic words say."""

import random
import re

import numpy as np
import pytest

from clip4str.core.text import Charset
from clip4str.training.vocabulary import CHARSET, clean
from clip4str.training.words import WordSampler

WORDS = ["hotel", "street", "coffee", "parking", "international"]


def test_charset_is_the_networks():
    assert len(CHARSET) == len(set(CHARSET)) == 94
    assert Charset().characters == CHARSET


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


@pytest.fixture(scope="module")
def drawn() -> list[str]:
    sampler = WordSampler(WORDS, random.Random(1), extra=["museum", "of"])
    return [sampler.sample().replace(" ", "") for _ in range(10_000)]


def test_ordinary_words_are_the_large_majority_and_long_ones_no_rarity(drawn: list[str]):
    length = np.array([len(text) for text in drawn])
    assert np.mean(length <= 15) > 0.93 and 0.03 < np.mean(length >= 16) < 0.07
    assert np.mean(length >= 21) > 0.01  # not only the shortest of the long ones
    known = {word.lower() for word in [*WORDS, "museum", "of"]}
    assert 0.6 < np.mean([text.lower() in known for text in drawn]) < 0.75


def test_characters_by_themselves_are_about_one_word_in_thirty(drawn: list[str]):
    alone = [text for text in drawn if len(text) == 1]
    assert 0.024 < len(alone) / len(drawn) < 0.042
    kinds = [np.mean([test(text) for text in alone]) for test in (str.isupper, str.isdigit, str.islower)]
    assert 0.3 < kinds[0] < 0.6 and 0.25 < kinds[1] < 0.55 and 0.05 < kinds[2] < 0.3
    sampler = WordSampler(WORDS, random.Random(4))
    small = {text for text in (sampler.single() for _ in range(3000)) if text.islower()}
    assert len(small) > 12 and not small & set("clopsvwxz")  # by itself, nothing tells s from S, l from I


def test_case_digits_and_punctuation_have_their_shares(drawn: list[str]):
    mixed = [text for text in drawn if re.search("[a-z]+[A-Z]", text)]
    assert 0.02 < len(mixed) / len(drawn) < 0.08
    assert 0.08 < np.mean([any(c.isdigit() for c in text) for text in drawn]) < 0.2
    assert 0.08 < np.mean([not text.isalnum() for text in drawn]) < 0.2


def test_long_texts_are_of_11_to_25_characters_and_of_many_kinds():
    sampler = WordSampler(WORDS, random.Random(2), extra=["Electroencephalography"])
    texts = [sampler.long_text() for _ in range(2000)]
    labels = [text.replace(" ", "") for text in texts]
    assert all(11 <= len(label) <= 25 and set(label) <= set(CHARSET) for label in labels)
    assert 0.65 < np.mean([len(label) >= 16 for label in labels]) < 0.85
    assert any("@" in t for t in labels) and any(t.lower().startswith("www.") for t in labels)
    assert any(t.isdigit() for t in labels) and any(t.lower() == "electroencephalography" for t in labels)
    assert any(" " in t for t in texts) and any(t.startswith("#") for t in labels)


@pytest.mark.parametrize("word", ["a", "x" * 25, "unchangeable-ness"])
def test_long_texts_can_be_made_of_any_words(word: str):
    sampler = WordSampler([word], random.Random(0))
    assert all(11 <= len(sampler.long_text().replace(" ", "")) <= 25 for _ in range(300))


def test_half_of_what_receipts_say_is_numbers():
    sampler = WordSampler(WORDS, random.Random(3))
    texts = [sampler.receipt() for _ in range(3000)]
    assert all(set(text) <= set(CHARSET) for text in texts)
    assert 0.4 < np.mean([any(c.isdigit() for c in text) for text in texts]) < 0.7
    assert any(re.fullmatch(r"\d+\.\d\d", text) for text in texts) and "TOTAL" in texts
    assert any(re.fullmatch(r"\d\d/\d\d/\d{4}", text) for text in texts)
