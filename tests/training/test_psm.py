"""Permutations and masks against a naive reading of the paper; the loss against a plain unbatched computation."""

import math
from itertools import permutations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny import tiny_network

from clip4str.core.text import END
from clip4str.training.data import encode_words
from clip4str.training.psm import draw_orders, order_masks, psm_losses


@pytest.mark.parametrize("length", range(1, 26))
@pytest.mark.parametrize("count", [2, 6])
def test_orders_are_mirrored_permutations(length, count):
    orders = draw_orders(length, count, np.random.default_rng(length))
    assert (orders[:, 0] == 0).all()
    assert (np.sort(orders, axis=1) == np.arange(length + 2)).all()
    assert list(orders[0]) == list(range(length + 2))
    assert len(orders) == (1 if length == 1 else 2 * min(count // 2, math.factorial(length) // 2))
    if length > 1:
        # The end token comes first in the mirrored forward order and last in all others.
        assert list(orders[1]) == [0, *range(length + 1, 0, -1)]
        assert all(order[-1] == length + 1 for i, order in enumerate(orders) if i != 1)
    for forward, mirror in zip(orders[2::2], orders[3::2]):
        assert list(forward[1:-1]) == list(mirror[1:-1][::-1])


@pytest.mark.parametrize("length", [2, 3, 4])
def test_short_words_draw_without_repeats_and_can_draw_everything(length):
    seen = set()
    for seed in range(200):
        orders = draw_orders(length, 6, np.random.default_rng(seed))
        characters = [tuple(o for o in order if 1 <= o <= length) for order in orders]
        assert len(set(characters)) == len(characters)
        seen.update(characters)
    assert seen == set(permutations(range(1, length + 1)))


@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_a_query_sees_exactly_what_precedes_it(length):
    for middle in permutations(range(1, length + 1)):
        for order in ([0, *middle, length + 1], [0, length + 1, *middle]):
            mask = order_masks(np.array([order]))[0]
            assert mask.shape == (length + 1, length + 1)
            for position in range(1, length + 2):
                before = set(order[: order.index(position)]) - {length + 1}  # the end token is never content
                assert set(np.flatnonzero(mask[position - 1])) == before


def test_a_single_character():
    orders = draw_orders(1, 6, np.random.default_rng(0))
    assert orders.tolist() == [[0, 1, 2]]
    assert order_masks(orders)[0].tolist() == [[True, False], [True, True]]


def plain_losses(model, pixels, words, orders, alone=False):
    """One word, one order, one query at a time; sums over all predicted tokens."""
    asked = [(number < 2, order) for number, order in enumerate(orders.tolist())]
    asked += [(True, None)] * alone  # no order: nothing comes before anything
    sums, count = torch.zeros(2), 0
    c = model.charset
    for image, word in zip(pixels, words):
        memory = model.clip_model.visual(image[None])
        content = [c.start, *c.encode(word)]
        answers = [*c.encode(word), END]
        for with_end, order in asked:
            logits = []
            longest = max(map(len, words))
            for position in range(1, longest + 2):
                before = [p for p in order[: order.index(position)] if p < len(content)] if order else []
                attend = torch.zeros(1, position, len(content), dtype=torch.bool)
                attend[:, :, 0] = True
                attend[0, -1, before] = True
                kv = model.visual_decoder.project_memory(memory)
                logits.append(model.visual_decoder(torch.tensor([content]), attend, kv)[0, -1])
            text = model.tokenizer([c.caption(int(row.argmax()) for row in logits)])
            features = model.clip_model.encode_text(torch.from_numpy(text))
            kv = model.cross_decoder.project_memory(torch.cat((memory.detach(), features), dim=1))
            for position, answer in enumerate(answers, start=1):
                if answer == END and not with_end:
                    continue
                before = [p for p in order[: order.index(position)] if p < len(content)] if order else []
                attend = torch.zeros(1, position, len(content), dtype=torch.bool)
                attend[:, :, 0] = True
                attend[0, -1, before] = True
                crossed = model.cross_decoder(torch.tensor([content]), attend, kv)[0, -1]
                target = torch.tensor(answer)
                sums += torch.stack((F.cross_entropy(logits[position - 1], target), F.cross_entropy(crossed, target)))
                count += 1
    return sums / count


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("words", [["ab", "Cab1", "x"], ["abcdefg", "hi"], ["q"]])
def test_the_loss_equals_a_plain_computation(words, alone):
    model = tiny_network(seed=3)
    pixels = torch.randn(len(words), 3, *model.config.image_size)
    orders = draw_orders(max(map(len, words)), 6, np.random.default_rng(0))
    expected = plain_losses(model, pixels, words, orders, alone)
    memory = model.clip_model.visual(pixels)
    losses = psm_losses(model, memory, encode_words(words, model.charset), orders, alone=alone)
    torch.testing.assert_close(torch.stack((losses.visual, losses.cross)), expected, rtol=1e-4, atol=1e-5)


def test_the_cross_branch_does_not_reach_the_image_tower():
    model = tiny_network()
    memory = model.clip_model.visual(torch.randn(2, 3, *model.config.image_size))
    tokens = encode_words(["ab", "c"], model.charset)
    psm_losses(model, memory, tokens, draw_orders(2, 6, np.random.default_rng(0))).cross.backward()
    assert all(p.grad is None for p in model.clip_model.visual.parameters())
    assert all(p.grad is None for p in model.visual_decoder.parameters())
    assert model.clip_model.token_embedding.weight.grad is not None
    assert psm_losses(model, memory, tokens, draw_orders(2, 2, np.random.default_rng(0)), cross=False).cross is None
