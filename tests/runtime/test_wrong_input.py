"""What users pass that is no image, no number or no option: one typed line that says which, and never a word."""

import json
import math

import numpy as np
import pytest
from PIL import Image

from clip4str.core.errors import BackendError, Clip4StrError, ImageError, NonFiniteError, UsageError
from clip4str.core.reading import Pass
from clip4str.runtime import Decoding, Recognizer, Word
from clip4str.runtime.backends.contract import Options, Wrapper


@pytest.fixture(scope="module")
def recognizer(tiny_bundle):
    return Recognizer.load(tiny_bundle, threads=1, batch_size=4)


@pytest.fixture(scope="module")
def crops(golden):
    return list(golden("tiny")["images"])


# One bad image among many


def test_the_error_says_which_of_many_images_it_was(recognizer, crops):
    images = [*crops[:5], b"broken", *crops[:2]]
    with pytest.raises(ImageError, match=r"^images\[5\]: <bytes>: not an image") as caught:
        recognizer.read(images)
    assert caught.value.index == 5
    with pytest.raises(ImageError) as caught:
        recognizer.prepare([crops[0], None])
    assert caught.value.index == 1


def test_skipping_leaves_none_in_the_place_of_what_is_no_image(recognizer, crops):
    images = [None, *crops[:5], b"broken", "no/such.png", crops[5], [crops[0]]]
    got = recognizer.read(iter(images), on_error="skip")
    want = recognizer.read(crops[:6])
    assert got == [None, *want[:5], None, None, want[5], None]
    assert recognizer.read([b"broken"], on_error="skip") == [None]
    with pytest.raises(UsageError, match="on_error is 'raise' or 'skip', not 'ignore'"):
        recognizer.read(crops, on_error="ignore")


# What is not finite


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_pixels_that_are_not_finite_are_an_error_naming_the_row(recognizer, crops, value):
    pixels = recognizer.prepare(crops[:6])
    pixels[5, 1, 3, 4] = value
    with pytest.raises(ImageError, match=r"pixels\[5\] are not finite") as caught:
        recognizer.read_pixels(pixels)
    assert caught.value.index == 5


def test_pixels_that_nobody_normalised_are_not_read_as_words(recognizer, crops):
    raw = np.stack(crops[:2]).transpose(0, 3, 1, 2).astype(np.float32)
    with pytest.raises(ImageError, match=r"pixels\[0\] reach 255; normalised ones are about -1 to 1"):
        recognizer.read_pixels(raw)
    assert recognizer.read_pixels(np.empty((0, *raw.shape[1:]), np.float32)) == []


class Overflowing(Wrapper):
    """A backend in which one stage's output is NaN for images that are as bright as the brightest."""

    def __init__(self, inner, stage, bright):
        super().__init__(inner)
        self.stage, self.bright, self.rows = stage, bright, None

    def image(self, pixels):
        self.rows = pixels.mean(axis=(1, 2, 3)) >= self.bright
        return self.inner.image(pixels)

    def visual(self, tokens, rule, visual_kv):
        return self.spoilt("visual", self.inner.visual(tokens, rule, visual_kv))

    def cross(self, tokens, rule, cross_kv, text_kv):
        return self.spoilt("cross", self.inner.cross(tokens, rule, cross_kv, text_kv))

    def spoilt(self, stage, out):
        if stage != self.stage or len(out.ids) != len(self.rows):  # of compacted batches it is not known whose rows
            return out
        ids, probs = out.ids.copy(), out.probs.copy()
        ids[self.rows], probs[self.rows] = 0, np.nan  # an argmax over NaN is what it likes: here the end of the word
        return Pass(ids, probs, out.logits)


@pytest.mark.parametrize(("stage", "named"), [("visual", "visual"), ("cross", "cross-modal")])
def test_an_output_that_is_not_finite_is_never_a_word(tiny_bundle, crops, stage, named):
    """As where half precision overflows: in ids alone it would be an empty word."""
    recognizer = Recognizer.load(tiny_bundle, threads=1, batch_size=4)
    want = recognizer.read(crops[:6])
    means = [recognizer.prepare([crop]).mean() for crop in crops[:6]]
    worst = int(np.argmax(means))
    recognizer.backend = Overflowing(recognizer.backend, stage, max(means) - 1e-6)
    with pytest.raises(NonFiniteError, match=rf"^images\[{worst}\]: tiny-fp32: the {named} decoder's output") as caught:
        recognizer.read(crops[:6])
    assert caught.value.index == worst and isinstance(caught.value, BackendError)
    got = recognizer.read(crops[:6], on_error="skip")
    assert got == [*want[:worst], None, *want[worst + 1 :]], "all others as without it"
    with pytest.raises(NonFiniteError, match=named):
        recognizer.read_pixels(recognizer.prepare(crops[:6]))


def test_a_word_has_only_numbers_that_json_has(recognizer, crops):
    for word in recognizer.read(crops):
        assert math.isfinite(word.confidence) and all(map(math.isfinite, word.char_confidences))
        json.dumps(word.confidence, allow_nan=False)


# What is no list of images, and no option


@pytest.mark.parametrize("given", [None, 5, 0.5, object()])
def test_what_is_no_list_of_images_is_said(recognizer, given):
    with pytest.raises(UsageError, match=f"read takes a list of images, not {type(given).__name__}; images are paths"):
        recognizer.read(given)


def test_one_image_in_the_place_of_a_list_is_said(recognizer, crops, tmp_path):
    image = Image.fromarray(crops[0])
    image.save(tmp_path / "a.png")
    with (tmp_path / "a.png").open("rb") as file:
        for given in (image, file, "a.png", tmp_path / "a.png", b"bytes", bytearray(b"x"), memoryview(b"x"), crops[0]):
            with pytest.raises(UsageError, match=r"for one image: read\(\[image\]\)"):
                recognizer.read(given)
        assert recognizer.read([file]) == recognizer.read([image])


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"bundle": 5}, UsageError, "load takes a bundle's folder or a checkpoint's path, not int"),
        ({"decoding": "ar"}, UsageError, "decoding is a Decoding, for instance .*, not 'ar'"),
        ({"backend": "cuda"}, BackendError, "unknown backend 'cuda'; .* a GPU is chosen by device=\"cuda\""),
        ({"backend": "cpu"}, BackendError, "unknown backend 'cpu'; .* a CPU is what onnxruntime and openvino use"),
        ({"backend": None}, BackendError, "unknown backend None"),
        ({"backend": ["torch"]}, BackendError, "unknown backend"),
        ({"threads": "4"}, UsageError, "threads must be 1 to 1024, not '4'"),
        ({"batch_size": 2.5}, UsageError, "batch size must be 1 or more, not 2.5"),
        ({"batch_size": True}, UsageError, "batch size must be 1 or more, not True"),
        ({"providers": "CUDA"}, UsageError, "providers are a list of names, not 'CUDA'"),
        ({"charset_test": 36}, UsageError, "charset_test is a string of characters, not 36"),
        ({"cache_size": "large"}, UsageError, "cache's size must be 0 or more, not 'large'"),
        ({"cache_size": None}, UsageError, "cache's size must be 0 or more, not None"),
    ],
)
def test_options_of_a_wrong_kind_are_one_typed_line(tiny_bundle, options, kind, message):
    with pytest.raises(kind, match=message) as caught:
        Recognizer.load(**{"bundle": tiny_bundle, **options})
    assert isinstance(caught.value, Clip4StrError) and "\n" not in str(caught.value)


@pytest.mark.parametrize("refine", [17, 99, -1, 1.0, True, "1"])
def test_rounds_of_refinement_have_a_bound(refine):
    with pytest.raises(UsageError, match="refine is a number of rounds, 0 to 16, not"):
        Decoding(refine=refine)


def test_a_batch_size_above_what_can_be_is_said(tiny_bundle):
    with pytest.warns(RuntimeWarning, match=r"batches of \d+ images, not 100000: the most that this bundle"):
        recognizer = Recognizer.load(tiny_bundle, threads=1, batch_size=100_000)
    assert recognizer.batch_size == recognizer.manifest.max_batch < 100_000
    assert Options(batch_size=np.int64(8)).batch_size == 8


def test_names_with_line_breaks_are_escaped_in_every_error():
    for kind in (Clip4StrError, *Clip4StrError.__subclasses__()):
        assert str(kind("a\nb\x1b[31m \udce9")) == "a\\nb\\x1b[31m \\udce9"
    with pytest.raises(Clip4StrError, match=r"no\\nbundle: no such") as caught:
        Recognizer.load("no\nbundle")
    assert "\n" not in str(caught.value)


# Hints


@pytest.mark.parametrize(
    ("text", "confidence", "shape", "hint"),
    [
        ("STOP", 0.99, (120, 40), ""),
        ("STOP", 0.3, (120, 40), ""),
        ("STOP", 0.99, (4000, 3000), ""),  # a word as large as that, and plainly read
        ("7il", 0.003, (4000, 3000), "4000x3000 pixels look like a photo, not a word crop"),
        ("", 0.97, (4000, 3000), "4000x3000 pixels look like a photo"),
        ("lll", 0.6, (2000, 30), "2000x30 pixels are far from a word's shape"),
        ("lll", 0.6, (30, 2000), "30x2000 pixels are far from a word's shape"),
        ("7il", 0.003, (120, 40), "confidence 0.3%: probably wrong"),
        ("7il", 0.003, None, "confidence 0.3%: probably wrong"),
    ],
)
def test_a_photo_or_a_doubtful_word_has_a_hint(text, confidence, shape, hint):
    from clip4str.runtime.word import hint_of

    got = hint_of(text, confidence, shape)
    assert got.startswith(hint) and bool(got) == bool(hint)


def test_a_hint_is_no_part_of_what_words_are_compared_by():
    assert Word("a", 0.5, (0.5,), "look") == Word("a", 0.5, (0.5,))


def test_words_of_a_photo_carry_the_hint(recognizer, crops):
    photo = np.tile(crops[0], (20, 60, 1))
    (word,) = recognizer.read([photo])
    assert photo.shape[0] * photo.shape[1] > 2_000_000 and "look like a photo" in word.hint
