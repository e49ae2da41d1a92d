"""Captions' byte pairs inside a graph, against CLIP's own tokens and core/bpe.py."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import onnxruntime
import pytest
from charsets import BENGALI, CHINESE, VIETNAMESE
from golden_weights import GOLDEN

from clip4str.core.bpe import BytePairTokenizer
from clip4str.core.errors import CharsetError
from clip4str.core.text import CHARSET_36, CHARSET_94, Charset, default_test
from clip4str.export.graph import Graph
from clip4str.export.single_file.bodies import BOOL, INT32, iota, number, reduce
from clip4str.export.single_file.characters import Characters
from clip4str.export.single_file.pairs import Pairs
from clip4str.export.single_file.tokens import Tokens

STEPS, BUNDLED = 26, 2562  # the bundled network's shortened vocabulary
DECODED = [
    "&lt",
    "a&amp;b",
    "&foo;",
    "&#65;",
    "x&#x41",
    "&Eacute",
    "<|endoftext|>",
    "x<|startoftext|>",
    "<|ENDofTEXT|>",
]
PLAIN = [
    "", "a", "'", "a'", "AT&T", "R&D", "&", "&&;", "&;", "&a b;"[:2], "'s's'll're''s", "don't", "we'RE", "'sex'll",
    ".'s", "''s", "1's", "a" * 26, "ab" * 13, "<|endoftext>", "thethethethethe", "12345678901234567890123456",
]  # fmt: skip


def golden_words() -> list[str]:
    return [line.split("\t")[0] for line in (GOLDEN / "bpe.tsv").read_text(encoding="utf-8").splitlines()]


def random_words(characters: str, count: int, seed: int = 0) -> list[str]:
    """Half of random characters, half of words put together."""
    choice, words = random.Random(seed), golden_words()
    found = ["".join(choice.choices(characters, k=choice.randint(0, STEPS))) for _ in range(count // 2)]
    found += [(choice.choice(words)[: choice.randint(0, 12)] + choice.choice(words))[:STEPS] for _ in found]
    return found


def encoded(charset: Charset, words: list[str]) -> np.ndarray:
    """Ids, behind each word an end token and then any characters."""
    ids = np.random.default_rng(0).integers(0, len(charset.characters) + 1, (len(words), STEPS)).astype(np.int32)
    for row, word in zip(ids, words):
        row[: len(word) + 1] = [*charset.encode(word), 0][:STEPS]
    return ids


@pytest.fixture(scope="session")
def tokens_graph(tmp_path_factory) -> Callable[..., Callable[[list[str]], tuple[np.ndarray, np.ndarray]]]:
    """tokens_graph(charset, unrolled, vocabulary) -> words -> tokens, which of them say that they are others"""

    def make(charset: Charset, unrolled: bool = False, vocabulary: int = BUNDLED):
        tokenizer = BytePairTokenizer(vocabulary)
        g = Graph("tokens", "fp32")
        ids = g.input("ids", INT32, ("N", STEPS))
        ended = g.op("Where", g.op("Equal", ids, number(g, 0)), iota(g, STEPS), number(g, STEPS))
        write = Tokens(tokenizer, Characters.build(charset, tokenizer), STEPS, unrolled)
        tokens, decoded = write(g, ids, reduce(g, "Min", ended, 1))
        g.output(tokens, "tokens", INT32, ("N", tokenizer.context))
        if decoded is not None:
            g.output(decoded, "decoded", BOOL, ("N", 1))
        assert unrolled != any(node.op_type == "Loop" for node in g.nodes)
        path = tmp_path_factory.mktemp("tokens") / "tokens.onnx"
        g.save(path, {}, "")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(str(path), options)

        def run(words: list[str]) -> tuple[np.ndarray, np.ndarray]:
            rows = encoded(charset, words)
            parts = [session.run(None, {"ids": rows[i : i + 500]}) for i in range(0, len(rows), 500)]
            others = [part[1][:, 0] if decoded is not None else np.zeros(len(part[0]), bool) for part in parts]
            return np.concatenate([part[0] for part in parts]), np.concatenate(others)

        return run

    return make


def assert_equal(charset: Charset, run, words: list[str], vocabulary: int = BUNDLED) -> None:
    """Equal to core/bpe.py, but for words that say that they are not."""
    got, others = run(words)
    want = BytePairTokenizer(vocabulary)([charset.caption(charset.encode(word)) for word in words])
    wrong = np.flatnonzero((got != want).any(axis=1) & ~others)
    assert not len(wrong), [(words[i], got[i].tolist(), want[i].tolist()) for i in wrong[:3]]
    assert others.mean() < 0.005


def test_every_golden_word_gets_clips_own_tokens_or_says_that_it_does_not(tokens_graph):
    lines = [line.split("\t") for line in (GOLDEN / "bpe.tsv").read_text(encoding="utf-8").splitlines()]
    got, others = tokens_graph(Charset(test=CHARSET_94), vocabulary=49408)([word for word, _ in lines])
    right = (got == np.array([tokens.split() for _, tokens in lines], np.int32)).all(axis=1)
    assert (right | others).all()
    decoded = {"&amp;", "&lt;b&gt;", "<|endoftext|>", "&#65;", "&eacute;", "IhHs&#7N;8Si+BGU5NRkP91v"}
    unknown = {"?*J_w&Q;KvtnsVbN7P@\\'92n", "1arZmu`TGPR&Ts;cqW;TiT"}  # "&Ts;" might be a name
    assert {word for (word, _), other in zip(lines, others) if other} == decoded | unknown


@pytest.mark.parametrize("unrolled", [False, True])
@pytest.mark.parametrize("test", [CHARSET_36, CHARSET_94, CHARSET_94[36:62]])
def test_random_words(tokens_graph, test, unrolled):
    charset = Charset(test=test)
    run = tokens_graph(charset, unrolled)
    assert_equal(charset, run, [*PLAIN, *random_words(CHARSET_94, 3000)])


@pytest.mark.parametrize("characters", [VIETNAMESE, CHINESE, "абвгдежзийклмнопрстуфхцчшщъыьэюя²½０１Ａ’“ﬁ-'sß"])
def test_other_scripts(tokens_graph, characters):
    charset = Charset(characters, default_test(characters))
    assert_equal(charset, tokens_graph(charset), random_words("".join(dict.fromkeys(characters)), 400)[:200])


def test_punctuation_of_other_scripts(tokens_graph):
    characters = "абв²３’‘“”＆﹒«»…—'stmdrevl0Ａ&"
    charset = Charset(characters, characters)
    run = tokens_graph(charset)
    assert_equal(charset, run, [*random_words(characters, 1000)[:500], "’s", "а’s’ll", "»'re", "３’в", "²’s"])


def test_what_the_tokenizer_would_decode_is_told(tokens_graph):
    run = tokens_graph(Charset(test=CHARSET_94), vocabulary=49408)
    assert run(DECODED)[1].all() and not run(PLAIN)[1].any()


@pytest.mark.parametrize("characters, named", [
    (BENGALI.replace(" ", ""), "combine with"), ("ab c", "separate words"),
    ("ΑΒΓΣ", "small letters"), ("e\u0301", "U\\+0301"),
    ("'ſs", "beside an apostrophe"),
])  # fmt: skip
def test_characters_that_a_graph_cannot_encode_are_named(characters, named):
    with pytest.raises(CharsetError, match=f"{named}.*--charset-test"):
        Characters.build(Charset(characters, characters), BytePairTokenizer(BUNDLED))


def test_a_merge_is_found_where_it_is_and_nowhere_else():
    tokenizer = BytePairTokenizer(1500)
    pairs = Pairs.build(tokenizer, [symbol for c in "abcdefghij" for symbol in (c, f"{c}</w>")])
    known = {(a, b): rank for (a, b), rank in tokenizer.ranks.items() if a in pairs.numbers and b in pairs.numbers}
    assert len(known) > 20
    for a, left in pairs.numbers.items():
        for b, right in pairs.numbers.items():
            cell = pairs.offsets[left] + right
            found = pairs.ranks[cell] if pairs.owners[cell] == left else None
            assert (found is None) == ((a, b) not in known)
            if found is not None:
                assert list(known)[found] == (a, b) and pairs.merged[found] == pairs.numbers[a + b]


@pytest.mark.slow
@pytest.mark.parametrize("test", [CHARSET_36, CHARSET_94])
def test_a_hundred_thousand_random_words(tokens_graph, test):
    charset = Charset(test=test)
    run = tokens_graph(charset, vocabulary=49408)
    assert_equal(charset, run, random_words(test, 100_000), vocabulary=49408)
