"""What a draft head's frames spell, and that networks with one read the same words as without."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from oracle import read_alone

from clip4str.core.drafts import collapse
from clip4str.core.errors import CheckpointError
from clip4str.model import load_checkpoint
from clip4str.model.checkpoint import save_checkpoint
from clip4str.model.clip4str import Clip4Str
from clip4str.runtime import Decoding


def one_by_one(frames, steps, characters):
    word, before = [], None
    for frame in frames:
        frame = frame if 1 <= frame <= characters else None
        if frame is not None and frame != before:
            word.append(frame)
        before = frame
    word = word[: steps - 1]
    return word + [0] * (steps - len(word))


@pytest.mark.parametrize("count", [1, 2, 5, 32, 42])
def test_frames_collapse_as_one_by_one(count):
    rng = np.random.default_rng(count)
    frames = rng.integers(-2, 9, (500, count)) * (rng.random((500, count)) < rng.random((500, 1)))
    for steps, dtype in ((26, np.int32), (4, np.int64), (1, np.int32)):
        frames = frames.astype(dtype)
        words = collapse(frames, steps, 6)
        assert words.tolist() == [one_by_one(row, steps, 6) for row in frames.tolist()]


def test_a_draft_is_at_most_a_character_shorter_than_the_steps():
    assert collapse(np.arange(1, 41)[None], 26, 94)[0].tolist() == [*range(1, 26), 0]
    assert collapse(np.full((1, 40), 7), 26, 94)[0].tolist() == [7, *[0] * 25], "a frame that goes on is one character"


@pytest.mark.parametrize("how", [Decoding(), Decoding(refine=0), Decoding("nar"), Decoding(branch="visual", refine=2)])
def test_a_random_head_leaves_a_random_network_its_words(random_model, how):
    model = random_model(seed=5, draft_frames=8)
    pixels = torch.randn(16, 3, 32, 64, generator=torch.Generator().manual_seed(2))
    model.decoding = how
    reading = model.read(pixels)
    for ids, row in zip(reading.ids, pixels):
        want = read_alone(model, row[None], how.decode, how.refine, how.branch)
        assert ids[: len(want["ids"])].tolist() == want["ids"] or want["margin"] < 1e-4
        assert not ids[len(want["ids"]) :].any()
    assert reading.stats.drafted == (16 if how.decode == "ar" else 0)
    model.decoding = replace(how, draft=False)
    without = model.read(pixels)
    assert np.array_equal(without.ids, reading.ids) and without.stats.drafted == 0
    np.testing.assert_allclose(without.confidence, reading.confidence, rtol=1e-3)


def test_a_head_is_saved_with_its_network_and_one_without_is_as_it_was(random_model, tmp_path):
    with_head = random_model(seed=5, draft_frames=8)
    plain = Clip4Str(replace(with_head.config, draft_frames=0))
    state = with_head.state_dict()
    plain.load_state_dict({k: v for k, v in state.items() if not k.startswith("draft_head.")})
    for model, frames in ((with_head, 8), (plain.eval(), 0)):
        save_checkpoint(model, tmp_path / "saved.safetensors")
        again = load_checkpoint(tmp_path / "saved.safetensors")
        assert again.config == model.config and again.config.draft_frames == frames
        pixels = torch.randn(4, 3, 32, 64, generator=torch.Generator().manual_seed(4))
        assert np.array_equal(again.read(pixels).ids, with_head.read(pixels).ids)
        assert again.read(pixels).stats.drafted == (4 if frames else 0)


def test_a_head_of_more_frames_than_any_word_needs_is_refused(random_model, tmp_path):
    save_checkpoint(random_model(draft_frames=300), tmp_path / "many.safetensors")
    with pytest.raises(CheckpointError, match="a draft head of 1200 frames; 1024 at most"):
        load_checkpoint(tmp_path / "many.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("draft_head.bias"), "1 keys missing: draft_head.bias"),
        (lambda s: s.update({"draft_head.weight": torch.zeros(95 * 8 + 1, 128)}), r"draft_head.weight is \(761, 128\)"),
        (lambda s: s.update({"draft_head.weight": torch.zeros(95 * 8, 96)}), r"draft_head.weight is \(760, 96\)"),
        (lambda s: s.update({"draft_head.weight": torch.zeros(10, 128)}), "2 keys not of this network"),
        (lambda s: s.update({"draft_head.weight": torch.zeros(760)}), "draft_head.weight has shape .* expected 2"),
        (
            lambda s: s.update({"visual_decoder.head.weight": torch.zeros(0, 32)}),
            r"visual_decoder.head.weight has shape \(0, 32\): no numbers",
        ),
    ],
)
def test_heads_that_are_none(random_model, tmp_path, change, message):
    state = dict(random_model(draft_frames=8).state_dict())
    change(state)
    torch.save(state, tmp_path / "net.pt")
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(tmp_path / "net.pt", image_size=(32, 64))
    assert "\n" not in str(caught.value)
