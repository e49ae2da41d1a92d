"""The torch backend as it runs on a GPU: words of every precision, CUDA graphs, threads. On a CPU a tiny network, no
graphs.

Random weights leave some words undecided to within half precision's rounding: a word is held to the float32 network's
where that decided every character of it, in every pass, by a margin.
"""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from device import DEVICE, ON_GPU, needs_gpu
from golden_weights import golden_state
from torch import Tensor
from torch_networks import backend_of

from clip4str.model import Clip4Str, load_checkpoint
from clip4str.model.checkpoint import BUNDLED
from clip4str.model.config import config_from_shapes
from clip4str.runtime.backends.pytorch.graphs import CudaGraphs

pytestmark = pytest.mark.gpu
NAME = "base16" if ON_GPU else "tiny"
# Of logits, some ten times what they differ by; bfloat16's would be too wide. The most wanted first.
MARGINS = {torch.float16: 0.1, torch.float32: 1e-3}
CLEAR = {torch.float16: 0.05, torch.float32: 0.7}  # the least share of words with such margins
ROWS = {torch.float32: 8}  # whose kernels for more rows nothing else launches, and take long to compile


class Reader:
    """The backend over a network in memory: pixels -> words and the probabilities of their characters."""

    def __init__(self, model: Clip4Str, dtype: torch.dtype, graphs: bool = ON_GPU) -> None:
        layer = CudaGraphs(DEVICE) if graphs else None
        self.backend, self.driver = backend_of(model, batch_size=256, layer=layer, dtype=dtype, device=DEVICE)

    def __call__(self, pixels: Tensor) -> tuple[list[str], np.ndarray]:
        reading = self.backend.read(self.driver, pixels)
        return [self.driver.charset.decode(row) for row in reading.ids], reading.probs


@pytest.fixture(scope="module")
def network(golden) -> Clip4Str:
    want = golden(NAME)
    arrays = golden_state(str(want["size"]), int(want["seed"]), float(want["eos_bias"]))
    config = config_from_shapes({name: array.shape for name, array in arrays.items()})
    with torch.device("meta"):
        model = Clip4Str(config, charset_test=str(want["charset_test"]))
    model.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()}, assign=True)
    return model.eval().requires_grad_(False).to(DEVICE)


@pytest.fixture(scope="module")
def pixels(golden, network) -> Tensor:
    """The golden images, then smooth shades and strokes about as rough as a photographed word: 128 in all, or 20."""
    images = torch.from_numpy(golden(NAME)["images"]).permute(0, 3, 1, 2).float() / 127.5 - 1
    generator, count = torch.Generator().manual_seed(0), (128 if ON_GPU else 20) - len(images)

    def noise(height: int, width: int) -> Tensor:
        field = torch.randn(count, 3, height, width, generator=generator)
        return F.interpolate(field, network.config.image_size, mode="bilinear", align_corners=False)

    rough = 0.6 * noise(3, 5) + 0.8 * noise(9, 17).sign() + 0.1 * noise(*network.config.image_size)
    return torch.cat((images, rough.clamp(-1, 1))).to(DEVICE)


@pytest.fixture(scope="module")
def reference(network, pixels) -> tuple[np.ndarray, np.ndarray]:
    return words_and_margins(network, pixels)


@pytest.fixture(scope="module")
def half(network) -> Reader:
    return Reader(network, torch.float16)


def words_and_margins(model: Clip4Str, pixels: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """What the float32 network reads, image by image, and by what difference of logits the closest of the decisions
    that led to the word was made."""
    decided: list[float] = []

    def look(_module: object, _given: object, logits: Tensor) -> None:
        first, second = logits[0].topk(2).values.unbind(-1)
        ends = (logits[0].argmax(-1) == 0).nonzero()
        decided.append(float((first - second)[: int(ends[0]) + 1 if len(ends) else None].min()))

    hooks = [decoder.register_forward_hook(look) for decoder in (model.visual_decoder, model.cross_decoder)]
    words, margins = [], []
    for image in pixels:
        decided.clear()
        words.append(model.charset.decode(model.read(image[None]).ids[0]))
        margins.append(min(decided))
    for hook in hooks:
        hook.remove()
    return np.array(words), np.array(margins)


def hold(words: list[str], wanted: np.ndarray, margins: np.ndarray, dtype: torch.dtype) -> None:
    clear = margins > MARGINS[dtype]
    assert clear.mean() >= CLEAR[dtype], "nothing is shown"
    wrong = clear & (np.array(words) != wanted)
    assert not wrong.any(), [(words[i], wanted[i], margins[i]) for i in np.flatnonzero(wrong)[:3]]


def test_the_float32_network_reads_what_the_published_code_did(golden, reference):
    published = golden(NAME)["text"].tolist()
    hold(published, *(part[: len(published)] for part in reference), torch.float32)


@pytest.mark.parametrize("dtype", MARGINS, ids=str)
def test_words_are_the_float32_networks(dtype, network, pixels, reference):
    some = pixels[: ROWS.get(dtype)]
    words, probs = Reader(network, dtype)(some)
    assert np.isfinite(probs).all()
    hold(words, *(part[: len(some)] for part in reference), dtype)


@pytest.mark.parametrize("batch", [1, 64])
def test_batches_read_like_the_whole(batch, half, pixels, reference):
    """Kernels are chosen by the number of rows, so words that are not clear may differ."""
    some = pixels[: max(8, 2 * batch)]
    words = [word for part in some.split(batch) for word in half(part)[0]]
    hold(words, *(part[: len(some)] for part in reference), torch.float16)


def test_a_row_does_not_depend_on_its_place(half, pixels):
    words, probs = half(pixels[:8])
    turned, turned_probs = half(pixels[:8].flip(0))
    assert turned[::-1] == words and np.array_equal(turned_probs[::-1], probs)


@needs_gpu
@pytest.mark.parametrize("batch", [1, 4, 64])
def test_a_graph_is_the_launches_one_by_one(batch, network, half, pixels):
    """The graph twice, with other images between."""
    wanted = Reader(network, torch.float16, graphs=False)(pixels[:batch])
    first, _, second = half(pixels[:batch]), half(pixels[batch : 2 * batch]), half(pixels[:batch])
    assert first[0] == second[0] == wanted[0] and np.array_equal(first[1], second[1])
    np.testing.assert_allclose(first[1], wanted[1], atol=1e-3)


def test_threads_share_a_reader(half, pixels):
    """Each on a stream of its own."""
    parts = [pixels[i : i + 3] for i in range(4)]
    wanted, wrong = [half(part) for part in parts], []

    def work(i: int) -> None:
        stream = torch.cuda.Stream(DEVICE) if ON_GPU else None
        if stream is not None:
            stream.wait_stream(torch.cuda.default_stream(DEVICE))
        try:
            with torch.cuda.stream(stream):
                for _ in range(5 if ON_GPU else 1):
                    words, probs = half(parts[i])
                    if words != wanted[i][0] or not np.array_equal(probs, wanted[i][1]):
                        wrong.append(f"thread {i} read {words}, expected {wanted[i][0]}")
        except Exception as error:
            wrong.append(f"thread {i}: {type(error).__name__}: {error}")

    threads = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not any(thread.is_alive() for thread in threads), "a thread hangs"
    assert not wrong


@pytest.mark.parametrize(("dtype", "least"), [(torch.float16, 0.995), (torch.float32, 1.0), (torch.bfloat16, 0.9)])
def test_the_bundled_network_reads_its_sample_crops(dtype, least):
    """And shifted, dimmed copies of them: a trained network's margins."""
    from clip4str.export.parity_images import BUNDLED_CROPS
    from clip4str.runtime.images import load_image, prepare

    model = load_checkpoint(BUNDLED).to(DEVICE)
    images = [np.asarray(load_image(path)) for path in sorted(BUNDLED_CROPS.glob("*.jpg"))[: None if ON_GPU else 4]]
    crops = [image[i % 3 :, i % 5 :] // 8 * (8 - i % 3) for i in range(16 if ON_GPU else 1) for image in images]
    pixels = torch.from_numpy(prepare(crops, model.config.image_size, "half")).to(DEVICE)
    wanted = [model.charset.decode(row) for part in pixels.split(64) for row in model.read(part).ids]
    words, probs = Reader(model, dtype)(pixels)
    assert np.isfinite(probs).all()
    assert sum(a == b for a, b in zip(words, wanted)) >= least * len(wanted)
