"""Charsets and CLIP's byte pairs."""

import pytest
from golden_weights import GOLDEN

from clip4str.core.bpe import BytePairTokenizer
from clip4str.core.errors import CharsetError
from clip4str.core.text import CHARSET_94, Charset


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
    for wrong in ("", "aa"):
        with pytest.raises(CharsetError):
            Charset(wrong)
    with pytest.raises(CharsetError, match="not trained for"):
        Charset("abc", "abcd")
