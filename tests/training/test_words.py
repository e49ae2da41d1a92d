"""What synthetic words say."""

import random

import numpy as np

from clip4str.runtime.text import Charset
from clip4str.training.words import CHARSET, WordSampler, clean

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
