"""The driver against a transcript of the published algorithm, over decoders that are hash functions of all they are
shown: any mask, limit, cut or stale token that is off by one changes the word. Thousands of words, every mode."""

import random
import zlib

import numpy as np
import pytest

from clip4str.runtime.bpe import BytePairTokenizer
from clip4str.runtime.caption_cache import CaptionCache
from clip4str.runtime.driver import Decoding, Pass, PredictAndRefine
from clip4str.runtime.text import Charset

CHARACTERS = "abAB1-"
TOKENIZER = BytePairTokenizer(600, 5)


def draw(*seen):
    return zlib.crc32(repr(seen).encode())


class HashDecoders:
    """ends: share of end tokens. certain: percent of positions that do not look at their context, as most do in a
    trained network."""

    def __init__(self, flexible, ends, certain):
        self.flexible_steps, self.ends, self.certain = flexible, ends, certain

    def predict(self, branch, image, position, visible, text):
        """One position of one image, given its visible (place, token) pairs: (id, probability)."""
        alone = draw(branch, image, position)
        value = draw(alone if alone % 100 < self.certain else (alone, visible, text))
        ends = value % 1000 < 1000 * self.ends
        return 0 if ends else 1 + value // 1000 % len(CHARACTERS), (value // 7 % 997 + 1) / 1000

    def image(self, pixels):
        return pixels, pixels

    def visual(self, tokens, attend, images):
        return self.decode("visual", tokens, attend, images, [None] * len(images))

    def text(self, bpe):
        return bpe.copy()

    def cross(self, tokens, attend, images, text):
        return self.decode("cross", tokens, attend, images, [tuple(row) for row in text.tolist()])

    def stack(self, rows):
        return np.stack(rows)

    def decode(self, branch, tokens, attend, images, texts):
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
