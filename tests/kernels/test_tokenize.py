"""Captions' byte pairs on the device, against CLIP's own tokens and core/bpe.py."""

import random
import re

import numpy as np
import pytest
import torch
from device import ON_GPU, there
from golden_weights import GOLDEN

from clip4str.core.bpe import BytePairTokenizer
from clip4str.core.caption_tables import cuckoo
from clip4str.core.errors import CharsetError, DeviceError, DtypeError, LayoutError, ShapeError, UsageError
from clip4str.core.text import CHARSET_36, CHARSET_94, Charset
from clip4str.kernels.tokenize import TokenizeConfig, TokenizerTables, api, candidates

tokenize = there(api.tokenize)
STEPS = 26
BUNDLED = 2562  # the bundled network's shortened vocabulary
MANY = None if ON_GPU else TokenizeConfig(words=1024)  # the interpreter takes as long for one word as for these
LETTERS = "abcdefghijklmnopqrstuvwxyz"
EDGES = [
    "", "a", "7", "1234567890123456789012345", "a" * 25, "a" * 24, "ab" * 12, "aab" * 8, "haha2haha", "banana",
    "mississippi", "x1y2z3", "the", "thethethe", "zzzzq", "1st2nd3rd", "qxzjqvkwqxzjqvkwqxzjqvkwq", "Hello",
    "WORLD", "Caf-1", "don't", "a[E]b", "<|endoftext|>", "&amp;", "_", "!!!", "S.O.S.", "a-b", "-a", "a-",
]  # fmt: skip


def golden() -> tuple[list[str], np.ndarray]:
    """Lowercase letters and digits of tests/golden/bpe.tsv, with the published tokenizer's answers."""
    lines = [line.split("\t") for line in (GOLDEN / "bpe.tsv").read_text(encoding="utf-8").splitlines()]
    lines = [line for line in lines if re.fullmatch("[0-9a-z]*", line[0])]
    return [line[0] for line in lines], np.array([line[1].split() for line in lines], np.int32)


def random_words(count: int, seed: int) -> list[str]:
    """Up to 25 letters and digits: random ones, repeated ones, pieces of the golden words put together."""
    choice = random.Random(seed)
    pieces = [word for word in golden()[0] if word]

    def word() -> str:
        kind, length = choice.random(), choice.randrange(26)
        if kind < 0.3:
            return "".join(choice.choices(CHARSET_36, k=length))
        if kind < 0.45:
            return "".join(choice.choices(LETTERS[: choice.randint(1, 26)], k=length))
        if kind < 0.6:
            return (choice.choice(pieces)[: choice.randint(1, 4)] * 25)[:length]
        piece = choice.choice(pieces)
        return piece if kind < 0.8 else (piece[choice.randrange(len(piece)) :] + choice.choice(pieces))[:length]

    return [word() for _ in range(count)]


def encode(words: list[str], charset: Charset | None = None, steps: int = STEPS, seed: int | None = 0) -> torch.Tensor:
    """(N, steps) int32: characters, the end token, then whatever int32 can hold."""
    charset = charset or Charset()
    ids = np.random.default_rng(seed).integers(-(2**31), 2**31, (len(words), steps)).astype(np.int32)
    for row, word in zip(ids, words):
        characters = [*charset.encode(word), 0][:steps]
        row[: len(characters)] = characters
    return torch.from_numpy(ids)


def expected(words: list[str], tokenizer: BytePairTokenizer, charset: Charset) -> np.ndarray:
    return tokenizer([charset.caption(charset.encode(word)) for word in words])


def assert_same(words: list[str], got: torch.Tensor, want: np.ndarray) -> None:
    assert got.dtype == torch.int32 and tuple(got.shape) == want.shape
    wrong = np.flatnonzero((got.numpy() != want).any(axis=1))
    assert not len(wrong), [(words[i], got[i].tolist(), want[i].tolist()) for i in wrong[:3]]


@pytest.fixture(scope="module")
def tables() -> TokenizerTables:
    return TokenizerTables.build(BytePairTokenizer(), Charset())


def kernel(tables: TokenizerTables, ids: torch.Tensor, last: torch.Tensor | None = None) -> torch.Tensor:
    return tokenize(tables, ids, last, config=MANY, implementation="triton")


@pytest.mark.gpu
def test_all_golden_words(tables):
    words, tokens = golden()
    assert len(words) > 2900
    ids = encode(words)
    assert_same(words, tokenize(tables, ids), tokens)
    assert_same(words, kernel(tables, ids), tokens)


def test_twenty_thousand_random_words(tables):
    words = random_words(20_000, seed=1)
    tokenizer = BytePairTokenizer()
    ids = encode(words)
    got = torch.cat([tokenize(tables, part) for part in ids.split(4096)])
    assert_same(words, got, tokenizer(words))


@pytest.mark.gpu
@pytest.mark.parametrize("vocabulary", [49408, BUNDLED, 1026, 514])
def test_kernel_and_reference(vocabulary):
    charset, tokenizer = Charset(), BytePairTokenizer(vocabulary)
    tables = TokenizerTables.build(tokenizer, charset)
    words = [*EDGES, *random_words(400, seed=vocabulary)]
    ids, want = encode(words), expected(words, tokenizer, charset)
    assert_same(words, tokenize(tables, ids), want)
    assert_same(words, kernel(tables, ids), want)


@pytest.mark.gpu
def test_a_word_is_tokenized_the_same_in_any_company(tables):
    words = [*EDGES[3:9], *random_words(5, seed=3)]
    ids, want = encode(words), expected(words, BytePairTokenizer(), Charset())
    for config in candidates(len(words)):
        assert_same(words, tokenize(tables, ids, config=config, implementation="triton"), want)
    assert_same(words[:1], tokenize(tables, ids[:1], implementation="triton"), want[:1])


@pytest.mark.gpu
def test_equal_letters_merge_from_the_left():
    tokenizer, charset = BytePairTokenizer(), Charset()
    tables = TokenizerTables.build(tokenizer, charset)
    words = [letter * count for letter in "aeoz" for count in range(1, 26)]
    words += [f"{word[:-1]}b" for word in words]
    ids, want = encode(words), expected(words, tokenizer, charset)
    assert_same(words, tokenize(tables, ids), want)
    assert_same(words, kernel(tables, ids), want)


@pytest.mark.gpu
def test_a_later_merge_of_lower_rank_waits_for_the_rank_at_work():
    """(xyz, x) ranks before (x, yz), yet in "xyzxyz" both (x, yz) merge before it is looked at again."""

    class Crafted(BytePairTokenizer):
        def __init__(self) -> None:
            super().__init__()
            pairs = [("xyz", "x"), ("y", "z"), ("x", "yz")]
            self.ranks = {pair: rank for rank, pair in enumerate(pairs)}
            self.ids.update({a + b: 600 + rank for (a, b), rank in self.ranks.items()})

    tokenizer, charset = Crafted(), Charset()
    tables = TokenizerTables.build(tokenizer, charset)
    words = ["xyz" * n for n in range(1, 9)] + ["xyzx", "xyzxy", "xyzxyzx", "yzxyzxyz"]
    ids, want = encode(words), expected(words, tokenizer, charset)
    assert_same(words, tokenize(tables, ids), want)
    assert_same(words, kernel(tables, ids), want)


@pytest.mark.gpu
@pytest.mark.parametrize("run", [tokenize, kernel])
def test_where_a_caption_ends(tables, run):
    tokenizer, charset = BytePairTokenizer(), Charset()
    unended = "abcdefghij" * 4
    for steps in (1, 15, 26, 32):
        word = unended[:steps]
        assert_same([word], run(tables, encode([word], steps=steps)), tokenizer([word]))
    words = ["stationary"] * 6
    last = [0, 3, 10, 25, -4, 2**31 - 1]
    got = run(tables, encode(words), torch.tensor(last, dtype=torch.int32))
    cut = [word[: max(at, 0)] for word, at in zip(words, last)]
    assert_same(words, got, tokenizer(cut))
    ids = torch.tensor([[11, charset.start, 12, charset.pad, 11 - charset.start, 1000, 13, 0]], dtype=torch.int32)
    assert_same(["abc"], run(tables, ids), tokenizer(["abc"]))


@pytest.mark.gpu
@pytest.mark.parametrize("run", [tokenize, kernel])
def test_rows_need_not_touch(tables, run):
    words = random_words(12, seed=5)
    wide = torch.cat((encode(words), encode(words)), dim=1)
    want = expected(words, BytePairTokenizer(), Charset())
    assert_same(words, run(tables, wide[:, :STEPS]), want)
    assert_same(words[::2], run(tables, wide[::2, STEPS:]), want[::2])
    assert run(tables, wide[:0, :STEPS]).shape == (0, 16)


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("characters", "test"),
    [
        (CHARSET_94, CHARSET_94[:62]),
        (CHARSET_94, "0123ABC"),
        (CHARSET_94, "xyz"),
        (CHARSET_36, CHARSET_36),
        ("zyx9é8Z", "zyx"),
    ],
    ids=["both cases", "capitals", "three letters", "36 classes", "other order"],
)
def test_other_charsets(characters, test):
    charset, tokenizer = Charset(characters, test), BytePairTokenizer()
    tables = TokenizerTables.build(tokenizer, charset)
    words = ["".join(random.Random(seed).choices(characters, k=seed % 25)) for seed in range(60)]
    ids, want = encode(words, charset), expected(words, tokenizer, charset)
    assert_same(words, tokenize(tables, ids), want)
    assert_same(words, kernel(tables, ids), want)


@pytest.mark.gpu
def test_a_shorter_context_keeps_the_end():
    tokenizer = BytePairTokenizer(context=5)
    tables = TokenizerTables.build(tokenizer, Charset())
    words = ["1", "12", "123", "1234", "12345"]
    want = tokenizer(words)
    assert want[3, -1] == want[4, -1] == tokenizer.end
    for run in (tokenize, kernel):
        assert_same(words, run(tables, encode(words)), want)
        assert_same(words[:2], run(tables, encode(words[:2], steps=2)), want[:2])


@pytest.mark.parametrize("vocabulary", [49408, BUNDLED, 515, 514])
def test_every_merge_is_in_one_of_its_two_places(vocabulary):
    tokenizer = BytePairTokenizer(vocabulary)
    tables, again = (TokenizerTables.build(tokenizer, Charset()) for _ in range(2))
    assert torch.equal(tables.pairs, again.pairs) and torch.equal(tables.characters, again.characters)
    entries = {int(e) for e in tables.pairs.numpy().view(np.uint64).ravel() if e}
    ids, ranks = tokenizer.ids, tokenizer.ranks
    letters = {
        pair: rank for pair, rank in ranks.items() if not re.search("[^a-z]", "".join(pair).removesuffix("</w>"))
    }
    assert entries == {ids[a] << 48 | ids[b] << 32 | rank << 16 | ids[a + b] for (a, b), rank in letters.items()}
    assert tables.pairs.numel() * 8 <= 2**20, "no more than a megabyte"


def test_a_table_that_cannot_hold_its_entries_is_doubled():
    keys = np.random.default_rng(7).integers(1, 2**32, 4000).astype(np.uint64)
    four_bits = [(key * multiplier & 0xFFFFFFFF) >> 28 for multiplier in (0x2C1B3C6D, 0x68E31DA5) for key in [keys]]
    same = keys[(four_bits[0] == 3) & (four_bits[1] == 5)][:5]
    assert len(same) == 5, "five keys for two places"
    table = cuckoo(np.unique(same) << 32)
    assert table.shape[1] > 16
    assert sorted(table[table != 0].view(np.uint64) >> 32) == sorted(same)


@pytest.mark.parametrize(
    ("characters", "test", "message"),
    [
        (CHARSET_94, CHARSET_36 + "'", '"\'"'),
        (CHARSET_94, CHARSET_94, "'!'"),
        ("abcé", "abcé", "'é'"),
        ("ßST", "ST", "'ß' into 'SS'"),
    ],
)
def test_captions_of_other_characters_are_the_hosts(characters, test, message):
    with pytest.raises(CharsetError, match=message) as raised:
        TokenizerTables.build(BytePairTokenizer(), Charset(characters, test))
    assert "BytePairTokenizer" in str(raised.value)


def test_a_context_longer_than_a_warp():
    with pytest.raises(ShapeError, match="context: supported are 2 to 32, got 77"):
        TokenizerTables.build(BytePairTokenizer(context=77), Charset())


def int32(*shape: int) -> torch.Tensor:
    return torch.zeros(shape, dtype=torch.int32)


@pytest.mark.parametrize("implementation", ["auto", "triton"])
@pytest.mark.parametrize(
    ("ids", "last", "error", "message"),
    [
        (int32(26), None, ShapeError, r"ids: expected shape \(N, T\), got \(26,\)"),
        (int32(2, 26, 1), None, ShapeError, r"ids: .*got \(2, 26, 1\)"),
        (int32(2, 33), None, ShapeError, "ids: T: supported are 1 to 32, got 33"),
        (int32(2, 0), None, ShapeError, "1 to 32, got 0"),
        (int32(2, 26).long(), None, DtypeError, "ids: expected int32, got int64"),
        (int32(2, 26).float(), None, DtypeError, "ids: expected int32, got float32"),
        (int32(2, 52)[:, ::2], None, LayoutError, r"ids: expected contiguous in its last 1 .*strides \(52, 2\)"),
        (int32(26, 2).T, None, LayoutError, "ids"),
        (int32(2, 26), int32(3), ShapeError, r"last: expected shape \(N\) = \(2\), got \(3,\)"),
        (int32(2, 26), int32(2, 1), ShapeError, "last"),
        (int32(2, 26), int32(2).long(), DtypeError, "last: expected int32, got int64"),
        (int32(2, 26), int32(4)[::2], LayoutError, "last"),
        (int32(2, 26).to("meta"), None, DeviceError, "ids: expected on cpu like tables, got meta"),
        (int32(2, 26), int32(2).to("meta"), DeviceError, "last: expected on cpu like tables, got meta"),
    ],
)
def test_arguments_that_do_not_fit(tables, ids, last, error, message, implementation):
    with pytest.raises(error, match=message):
        api.tokenize(tables, ids, last, implementation=implementation)


def test_implementation_names(tables, monkeypatch):
    with pytest.raises(UsageError, match="'cuda'"):
        tokenize(tables, int32(1, 26), implementation="cuda")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(DeviceError, match="implementation='reference'"):
        api.tokenize(tables, int32(1, 26), implementation="triton")
