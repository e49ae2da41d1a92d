"""The driver against a transcript of the published algorithm, over decoders that are hash functions of all they are
shown: any mask, limit, cut or stale token that is off by one changes the word. Thousands of words, every mode."""

import random
import zlib

import numpy as np
import pytest

from clip4str.core.bpe import BytePairTokenizer
from clip4str.core.caption_cache import CaptionCache
from clip4str.core.driver import PredictAndRefine
from clip4str.core.reading import Decoding, Pass
from clip4str.core.text import Charset

CHARACTERS = "abAB1-"
TOKENIZER = BytePairTokenizer(600, 5)


def draw(*seen):
    return zlib.crc32(repr(seen).encode())


class HashDecoders:
    """ends: share of end tokens. certain: percent of positions that do not look at their context, as most do in a
    trained network. drafts: image -> ids in frames, None where there is no draft head."""

    def __init__(self, flexible, ends, certain, drafts=None):
        self.flexible_steps, self.ends, self.certain, self.drafts = flexible, ends, certain, drafts

    def predict(self, branch, image, position, visible, text):
        """One position of one image, given its visible (place, token) pairs: (id, probability)."""
        alone = draw(branch, image, position)
        value = draw(alone if alone % 100 < self.certain else (alone, visible, text))
        ends = value % 1000 < 1000 * self.ends
        return 0 if ends else 1 + value // 1000 % len(CHARACTERS), (value // 7 % 997 + 1) / 1000

    def image(self, pixels):
        if self.drafts is None:
            return pixels, pixels
        return pixels, pixels, np.array([self.drafts(int(image)) for image in pixels])

    def visual(self, tokens, rule, images):
        return self.decode("visual", tokens, rule, images, [None] * len(images))

    def text(self, bpe):
        return bpe.copy()

    def cross(self, tokens, rule, images, text):
        return self.decode("cross", tokens, rule, images, [tuple(row) for row in text.tolist()])

    def stack(self, rows):
        return np.stack(rows)

    def decode(self, branch, tokens, rule, images, texts):
        attend = rule.mask(tokens.shape[1])
        out = Pass(np.zeros(attend.shape[:2], np.int32), np.zeros(attend.shape[:2], np.float32))
        for row, i in np.ndindex(*attend.shape[:2]):
            visible = tuple((int(j), int(tokens[row, j])) for j in np.flatnonzero(attend[row, i]))
            out.ids[row, i], out.probs[row, i] = self.predict(branch, int(images[row]), i, visible, texts[row])
        return out


def published(decoders, charset, steps, image, how):
    """The published loop for one image: (word, confidence)."""

    def greedy(branch, most, stop, text):
        context, ids, probs = [charset.start], [], []
        for i in range(most):
            visible = tuple(enumerate(context if how.decode == "ar" else context[:1]))
            token, prob = decoders.predict(branch, image, i, visible, text)
            ids, probs, context = [*ids, token], [*probs, prob], [*context, token]
            if stop and token == 0:
                break
        return ids, probs

    def cloze(branch, ids, text):
        context = [charset.start, *ids]
        seen = [(j, token) for j, token in enumerate(context) if 0 not in context[: j + 1]]
        step = [decoders.predict(branch, image, i, tuple(s for s in seen if s[0] != i + 1), text) for i in range(steps)]
        return [token for token, _ in step], [prob for _, prob in step]

    def text_of(ids):
        return tuple(TOKENIZER([charset.caption(ids)])[0].tolist())

    both = how.branch == "cross"
    visual, probs = greedy("visual", steps, how.decode == "ar", None)
    answer = visual
    if both:
        answer, probs = greedy("cross", len(visual), False, text_of(visual))
    for _ in range(how.refine):
        visual, visual_probs = cloze("visual", visual[:-1], None)
        if both:
            answer, probs = cloze("cross", answer[:-1], text_of(visual))
        else:
            answer, probs = visual, visual_probs
    word = answer[: answer.index(0)] if 0 in answer else answer
    return word, np.prod(np.float32(probs[: len(word) + 1]))


@pytest.mark.parametrize("seed", range(4))
def test_every_mode_on_random_decoders(seed):
    rng, charset, words, compacted = random.Random(seed), Charset(CHARACTERS, "ab1"), 0, 0
    for _ in range(300):
        steps = rng.choice([1, 2, 3, 6, 9])
        decoders = HashDecoders(rng.random() < 0.6, rng.choice([0, 0.05, 0.2, 0.5, 1]), rng.choice([0, 50, 90, 100]))
        how = Decoding(rng.choice(["ar", "ar", "nar"]), rng.choice([0, 1, 1, 2, 3]), rng.choice(["cross", "visual"]))
        driver = PredictAndRefine(charset, TOKENIZER, steps, how, CaptionCache(rng.choice([0, 2, 100])))
        images = np.array([rng.randrange(1000) for _ in range(rng.choice([1, 2, 7]))])
        reading = driver(decoders, images, full_logits=rng.random() < 0.3)
        for image, ids, confidence in zip(images, reading.ids, reading.confidence):
            word, wanted = published(decoders, charset, steps, int(image), how)
            assert ids[: len(word)].tolist() == word and not ids[len(word) :].any()
            np.testing.assert_allclose(confidence, wanted, rtol=1e-5)
            words += 1
        compacted += len(images) > 2 and decoders.flexible_steps
    assert words > 600 and compacted > 50


def greedy_word(decoders, charset, steps, image):
    """The visual branch's word, step by step."""
    context = [charset.start]
    while len(context) <= steps and 0 not in context:
        token, _ = decoders.predict("visual", image, len(context) - 1, tuple(enumerate(context)), None)
        context.append(token)
    return [token for token in context[1:] if token]


def spread(word, frames):
    """A word as frames that collapse to it: blanks between all characters, some of them held for two frames."""
    shown = [token for character in word for token in (0, character, character)]
    return (shown + [0] * frames)[:frames]


@pytest.mark.parametrize("seed", range(2))
def test_no_draft_changes_a_word_in_any_mode(seed):
    rng, charset, words, frames = random.Random(seed), Charset(CHARACTERS, "ab1"), 0, 30
    kinds = {
        "right": lambda image: spread(greedy_word(decoders, charset, steps, image), frames),
        "nearly right": lambda image: spread(
            [1 + draw(image) % 6, *greedy_word(decoders, charset, steps, image)[1:]], frames
        ),
        "empty": lambda image: [0] * frames,
        "longest": lambda image: [1 + (i + image) % 6 for i in range(frames)],
        "garbage": lambda image: [draw(image, i) % 7 for i in range(frames)],
        "no characters at all": lambda image: [draw(image, i) % 2000 - 1000 for i in range(frames)],
    }  # fmt: skip
    for turn in range(240):
        steps, drafts = rng.choice([1, 2, 3, 6, 9]), list(kinds.values())[turn % len(kinds)]
        decoders = HashDecoders(rng.random() < 0.6, rng.choice([0, 0.05, 0.2, 0.5, 1]), rng.choice([0, 50, 90]), drafts)
        how = Decoding(rng.choice(["ar", "ar", "nar"]), rng.choice([0, 1, 2]), rng.choice(["cross", "visual"]))
        images = np.array([rng.randrange(1000) for _ in range(rng.choice([1, 2, 7]))])
        reading = PredictAndRefine(charset, TOKENIZER, steps, how)(decoders, images)
        assert reading.stats.visual_passes <= max(2, steps)
        assert reading.stats.drafted == (len(images) if how.decode == "ar" else 0)
        for image, ids, confidence in zip(images, reading.ids, reading.confidence):
            word, wanted = published(decoders, charset, steps, int(image), how)
            assert ids[: len(word)].tolist() == word and not ids[len(word) :].any()
            np.testing.assert_allclose(confidence, wanted, rtol=1e-5)
            words += 1
    assert words > 500


@pytest.mark.parametrize("flexible", [True, False])
def test_a_draft_that_is_right_takes_one_visual_pass(flexible):
    charset, steps, images, seen = Charset(CHARACTERS, "ab1"), 9, np.arange(200), []
    decoders = HashDecoders(flexible, 0.15, 30, lambda image: spread(greedy_word(decoders, charset, steps, image), 30))
    for image in images:
        reading = PredictAndRefine(charset, TOKENIZER, steps)(decoders, image[None])
        word = greedy_word(decoders, charset, steps, int(image))
        seen.append(len(word))
        assert reading.stats.visual_passes == 1, "also where it never ends: nothing hangs on the last character"
    assert {0, 1, 2, 8, 9} <= set(seen)
    reading = PredictAndRefine(charset, TOKENIZER, steps, Decoding(draft=False))(decoders, images)
    assert reading.stats.drafted == 0 and reading.stats.visual_passes > 3
