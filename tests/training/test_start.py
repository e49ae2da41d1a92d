"""Other networks than the sizes: --network, and a checkpoint's weights under patches of another shape."""

import argparse
from dataclasses import replace

import pytest
import torch
from tiny import TINY, tiny_network

from clip4str.core.errors import CheckpointError, UsageError
from clip4str.model import save_checkpoint
from clip4str.model.clip4str import Clip4Str
from clip4str.model.sizes import SIZES
from clip4str.training import start
from clip4str.training.arguments import config_from
from clip4str.training.module import Settings, Training


def asked(network, size="small"):
    return config_from(argparse.Namespace(size=size, network=network, ctc=0.0))


def test_network_changes_the_size_and_nothing_else():
    small = SIZES["small"]
    assert asked("") == small
    wanted = replace(small, image_layers=9, patch_size=(8, 4))
    assert asked("image_layers=9,patch_size=8x4") == wanted
    assert asked("text_layers=1", "base16") == replace(SIZES["base16"], text_layers=1)


@pytest.mark.parametrize(
    "network", ["layers=9", "charset=abc", "image_layers", "image_layers=", "image_layers=-1", "image_layers=0",
                "image_layers=4x4", "patch_size=8", "patch_size=8x4x2", "patch_size=8xx", "patch_size=ax4"],
)  # fmt: skip
def test_what_no_network_has(network):
    with pytest.raises(UsageError, match="--network: "):
        asked(network)


def test_a_checkpoint_starts_other_patches(tmp_path):
    """A plane of one colour along a patch looks the same to a stretched kernel; positions keep their places."""
    old = tiny_network().eval()
    save_checkpoint(old, tmp_path / "old.safetensors")
    new = Clip4Str(replace(TINY, patch_size=(8, 4)))
    start.start_from(new, str(tmp_path / "old.safetensors"), "small")
    pixels = torch.randn(2, 3, 1, 16).repeat_interleave(4, 3).repeat_interleave(16, 2)
    with torch.inference_mode():
        wide, low = old.clip_model.visual.conv1(pixels), new.clip_model.visual.conv1(pixels)
    torch.testing.assert_close(low, wide.expand_as(low), rtol=0, atol=1e-5)
    before, after = (n.clip_model.visual.positional_embedding for n in (old, new))
    torch.testing.assert_close(after[:17], before)
    torch.testing.assert_close(after[17:], before[1:])
    assert torch.equal(old.visual_decoder.head.weight, new.visual_decoder.head.weight)


def test_a_checkpoint_without_a_draft_head_starts_a_run_with_one(tmp_path):
    old = tiny_network()
    save_checkpoint(old, tmp_path / "old.safetensors")
    new = Training(replace(TINY, draft_frames=2), Settings(ctc=0.5, steps=1))
    start.start_from(new, str(tmp_path / "old.safetensors"), "small")
    assert not new.draft_head.weight.any()
    state = new.network_state()
    assert all(torch.equal(state[k], v) for k, v in old.state_dict().items())
    with pytest.raises(CheckpointError, match="another size"):
        start.start_from(Clip4Str(replace(TINY, text_layers=3)), str(tmp_path / "old.safetensors"), "small")


@pytest.mark.parametrize("layers", [3, 4, 5])
def test_a_deeper_tower_computes_the_same_and_can_learn(tmp_path, layers):
    old = tiny_network().eval()
    save_checkpoint(old, tmp_path / "old.safetensors")
    deep = Clip4Str(replace(TINY, image_layers=layers))
    start.start_from(deep, str(tmp_path / "old.safetensors"), "small")
    pixels = torch.randn(3, 3, *TINY.image_size)
    with torch.inference_mode():
        before, after = (network.eval().clip_model.visual(pixels) for network in (old, deep))
    assert torch.equal(before, after)
    deep.clip_model.visual(pixels).square().sum().backward()
    blocks = deep.clip_model.visual.transformer.resblocks
    assert all(block.mlp.c_proj.weight.grad.any() and block.attn.out_proj.weight.grad.any() for block in blocks)
    silent = [not block.mlp.c_proj.weight.any() for block in blocks]
    assert sum(silent) == layers - TINY.image_layers and not silent[0]
