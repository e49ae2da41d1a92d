"""Fixed-point decoding against the naive oracle, and what the driver promises about batches and passes."""

import numpy as np
import pytest
import torch
from oracle import read_alone

from clip4str.core.caption_cache import CaptionCache
from clip4str.core.driver import PredictAndRefine
from clip4str.core.errors import UsageError
from clip4str.core.masks import Rule
from clip4str.core.reading import Pass
from clip4str.runtime import Decoding, Stats

SIZES = [
    {},
    {"steps": 5, "eos_bias": 1.0},
    {"d": 64, "decoder_heads": 8, "image_layers": 1, "eos_bias": 4.0},
    {"d": 16, "steps": 40, "text_positions": 77, "eos_bias": 2.0},
]


def images(n, seed=0, size=(32, 64)):
    return torch.randn(n, 3, *size, generator=torch.Generator().manual_seed(seed))


class Fixed:
    """The model's stages, pretending to be an engine of fixed shapes."""

    def __init__(self, model):
        self.model = model
        self.image, self.text, self.stack = model.image, model.text, model.stack
        self.shapes = set()

    flexible_steps = False

    def visual(self, tokens, rule, kv):
        self.shapes.add((tokens.shape[1:], (rule.queries, tokens.shape[1])))
        return self.model.visual(tokens, rule, kv)

    def cross(self, tokens, rule, kv, text_kv):
        self.shapes.add((tokens.shape[1:], (rule.queries, tokens.shape[1])))
        return self.model.cross(tokens, rule, kv, text_kv)


@pytest.mark.parametrize("mode", ["start", "causal", "cloze"])
@pytest.mark.parametrize(("queries", "contents"), [(5, 5), (5, 1), (2, 5), (5, 3), (1, 1)])
def test_a_rule_is_its_mask(mode, queries, contents):
    def sees(i, j, keep):
        return j <= keep and {"start": j == 0, "causal": j <= i, "cloze": j != i + 1}[mode]

    keep = np.array([0, 2, contents - 1, 9])
    wanted = [[[sees(i, j, most) for j in range(contents)] for i in range(queries)] for most in keep]
    assert np.array_equal(Rule(mode, keep, queries).mask(contents), wanted)


@pytest.mark.parametrize("size", range(len(SIZES)))
def test_equals_step_by_step_greedy_decoding(size, random_model):
    model = random_model(seed=size, **SIZES[size])
    steps, pixels = model.config.steps, images(60, seed=size)
    wanted = [read_alone(model, row[None]) for row in pixels]
    assert len({len(want["ids"]) for want in wanted}) > 2, "words all of one length would prove little"
    fixed = Fixed(model)
    for stages in (model, fixed):
        with torch.inference_mode():
            reading = PredictAndRefine(model.charset, model.tokenizer, steps)(stages, pixels)
        for ids, confidence, want in zip(reading.ids, reading.confidence, wanted):
            length = len(want["ids"])
            assert ids[:length].tolist() == want["ids"] or want["margin"] < 1e-4
            assert (ids[length:] == 0).all()
            np.testing.assert_allclose(confidence, np.prod(want["probs"]), rtol=1e-3)
    assert fixed.shapes == {((steps,), (steps, steps))}


def test_an_answer_does_not_depend_on_its_batch(random_model):
    model = random_model(seed=11)
    pixels = images(24, seed=11)
    together = model.read(pixels)
    order = np.random.RandomState(0).permutation(24)
    shuffled = model.read(pixels[order])
    assert (shuffled.ids == together.ids[order]).all()
    for size in (1, 5, 7):
        parts = [model.read(pixels[i : i + size]) for i in range(0, 24, size)]
        assert (np.concatenate([p.ids for p in parts]) == together.ids).all()
        np.testing.assert_allclose(np.concatenate([p.confidence for p in parts]), together.confidence, rtol=1e-3)


def test_at_most_26_passes_and_the_stats_count_them(random_model):
    model = random_model(seed=3, eos_bias=0.0)
    calls = {"visual": 0, "cross": 0, "text": 0}

    class Counting(Fixed):
        flexible_steps = True

        def visual(self, *a):
            calls["visual"] += 1
            return super().visual(*a)

        def cross(self, *a):
            calls["cross"] += 1
            return super().cross(*a)

    stages = Counting(model)

    def text(bpe):
        calls["text"] += 1
        return model.text(bpe)

    stages.text = text
    driver = PredictAndRefine(model.charset, model.tokenizer, model.config.steps)
    total = Stats()
    with torch.inference_mode():
        for row in images(40, seed=5):
            stats = driver(stages, row[None]).stats
            assert stats.visual_passes <= 26 and stats.cross_passes <= 26
            total.add(stats)
    assert total.images == total.batches == 40
    assert total.visual_passes + total.cross_passes + total.refine_passes == calls["visual"] + calls["cross"]
    assert total.text_calls == calls["text"] <= 80


class Chain:
    """A decoder whose every character hangs on the one before it and whose words never end: no guess is right, and
    every pass settles one position alone."""

    flexible_steps = True

    def image(self, pixels):
        return pixels, pixels

    def visual(self, tokens, rule, kv):
        seen = np.where(rule.mask(tokens.shape[1]), np.arange(tokens.shape[1]), -1).max(axis=2)
        ids = np.take_along_axis(tokens, seen, 1) * 7 % 94 + 1
        return Pass(ids, np.ones(ids.shape, np.float32))

    def text(self, bpe):
        return bpe

    def cross(self, tokens, rule, kv, text_kv):
        ids, probs, _ = self.visual(tokens, rule, kv)
        return Pass(ids % 94 + 1, probs)

    def stack(self, rows):
        return np.stack(rows)


def test_the_worst_case_takes_26_passes_a_branch(random_model):
    model = random_model()
    driver = PredictAndRefine(model.charset, model.tokenizer, 26, Decoding(refine=0))
    reading = driver(Chain(), np.zeros(2))
    word, character = [], model.charset.start
    for _ in range(26):
        character = (character * 7 % 94 + 1) % 94 + 1
        word.append(character)
    assert reading.ids.tolist() == [word, word]
    assert reading.stats.visual_passes == 26 and reading.stats.cross_passes == 26


class Scripted:
    """Stages that spell prepared words whatever they are shown, so that every caption is known."""

    flexible_steps = True

    def __init__(self, charset, words, refined):
        self.charset, self.words, self.refined = charset, words, refined
        self.encoded = []

    def image(self, pixels):
        return pixels, pixels

    def visual(self, tokens, rule, kv):
        return self.spell(self.refined if rule.mode == "cloze" else self.words, rule.queries, kv)

    def cross(self, tokens, rule, kv, text_kv):
        assert text_kv.shape == (len(kv), 16)
        return self.spell(self.words, rule.queries, kv)

    def text(self, bpe):
        self.encoded.append(bpe)
        return bpe

    def stack(self, rows):
        return np.stack(rows)

    def spell(self, words, width, kv):
        ids = np.zeros((len(kv), width), np.int32)
        for row, i in zip(ids, kv):
            spelled = self.charset.encode(words[int(i)])[:width]
            row[: len(spelled)] = spelled
        return Pass(ids, np.full(ids.shape, 0.5, np.float32))


def test_text_runs_again_only_for_rows_whose_caption_changed(random_model):
    model = random_model()
    words, refined = ["Exit", "Cafe", "exit!"], ["Exit", "Cafes", "EXIT"]
    stages = Scripted(model.charset, words, refined)
    cache = CaptionCache(8)
    driver = PredictAndRefine(model.charset, model.tokenizer, 26, cache=cache)
    reading = driver(stages, np.arange(3))
    assert [model.charset.decode(row) for row in reading.ids] == words
    # "exit" once for two rows, "cafe"; then only "cafes"
    assert [len(b) for b in stages.encoded] == [2, 1]
    assert reading.stats.captions == 6 and reading.stats.captions_encoded == 3
    np.testing.assert_allclose(reading.confidence, [0.5**5, 0.5**5, 0.5**6])
    assert driver(stages, np.arange(3)).stats.text_calls == 0, "all three captions are in the cache"
    driver_without_cache = PredictAndRefine(model.charset, model.tokenizer, 26)
    assert driver_without_cache(stages, np.arange(3)).stats.captions_encoded == 3


def test_the_cache_forgets_the_least_recently_used():
    cache = CaptionCache(2)
    cache.put("a", 1)
    cache.put("b", 2)
    assert cache.get("a") == 1
    cache.put("c", 3)
    assert (cache.get("b"), cache.get("a"), cache.get("c"), len(cache)) == (None, 1, 3, 2)
    with pytest.raises(UsageError, match="0 or more"):
        CaptionCache(-1)


def test_a_cached_caption_does_not_keep_its_batch_alive(random_model):
    model = random_model()
    cache = CaptionCache(8)
    stages = Scripted(model.charset, ["Exit", "Cafe", "exit!"], ["Exit", "Cafes", "EXIT"])
    PredictAndRefine(model.charset, model.tokenizer, 26, cache=cache)(stages, np.arange(3))
    row = cache.get("cafe")
    assert row.shape == (16,) and (row.base is None or row.base.nbytes == row.nbytes)
