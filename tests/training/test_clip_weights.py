"""--init clip: CLIP's weights from open_clip, and from files as OpenAI, open_clip and Hugging Face lay them out."""

import json
import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tiny import TINY

from clip4str.core.errors import CheckpointError, UsageError
from clip4str.model import save_checkpoint
from clip4str.model.clip4str import Clip4Str
from clip4str.training import start

ROOT = Path(__file__).parents[2]
OPEN_CLIP = Path(os.environ.get("CLIP4STR_OPEN_CLIP", ROOT / ".venv" / "open-clip"))  # make setup puts it aside
CASES = [
    "towers equal open_clip's, base16", "towers equal open_clip's, base32", "towers equal open_clip's, large",
    "towers equal open_clip's, huge", "other heads and gelu are taken as they are", "a model that open clip makes",
    "a text tower of its own", "what open clip lacks is one line", "lightning still imports",
]  # fmt: skip
SQUARE = replace(TINY, image_size=(32, 32), patch_size=(8, 8), text_positions=77)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    if not OPEN_CLIP.is_dir():
        missing = f"there is no {OPEN_CLIP}: make setup"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    path = os.pathsep.join((str(ROOT), str(ROOT / "tests" / "training"), str(OPEN_CLIP)))
    environment = {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-m", "open_clip_cases", str(tmp_path_factory.mktemp("open-clip"))]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)
    lines = [line for line in ran.stdout.splitlines() if line.startswith("[")]
    assert ran.returncode == 0, ran.stderr[-2000:]
    return dict(map(json.loads, lines))


@pytest.mark.parametrize("case", CASES)
def test_with_a_real_open_clip(outcomes, case):
    assert outcomes.keys() == set(CASES)
    assert not outcomes[case], outcomes[case]


def hugging_face(seed=0, heads=1):
    """A state_dict of its CLIPModel for SQUARE, and what it computes: written from its modules' description, in plain
    torch, with queries, keys and values apart."""
    c, generator = SQUARE, torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(*shape, generator=generator) * 0.1 + (len(shape) == 1) * 0.5

    state = {"logit_scale": torch.tensor(2.0)}
    for tower, width, layers, out in (
        ("vision", c.image_width, c.image_layers, "visual_projection"),
        ("text", c.text_width, c.text_layers, "text_projection"),
    ):
        for layer in range(layers):
            prefix = f"{tower}_model.encoder.layers.{layer}."
            for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
                state[f"{prefix}self_attn.{name}.weight"] = random(width, width)
                state[f"{prefix}self_attn.{name}.bias"] = random(width)
            for name, shape in (("fc1", (4 * width, width)), ("fc2", (width, 4 * width))):
                state[f"{prefix}mlp.{name}.weight"], state[f"{prefix}mlp.{name}.bias"] = (
                    random(*shape),
                    random(shape[0]),
                )
            for name in ("layer_norm1", "layer_norm2"):
                state[f"{prefix}{name}.weight"], state[f"{prefix}{name}.bias"] = random(width), random(width)
        state[f"{out}.weight"] = random(c.d, width)
    state["vision_model.embeddings.class_embedding"] = random(c.image_width)
    state["vision_model.embeddings.patch_embedding.weight"] = random(c.image_width, 3, *c.patch_size)
    state["vision_model.embeddings.position_embedding.weight"] = random(c.memory_tokens, c.image_width)
    state["text_model.embeddings.token_embedding.weight"] = random(c.vocabulary, c.text_width)
    state["text_model.embeddings.position_embedding.weight"] = random(c.text_positions, c.text_width)
    for name in ("vision_model.pre_layrnorm", "vision_model.post_layernorm", "text_model.final_layer_norm"):
        width = c.text_width if "text" in name else c.image_width
        state[f"{name}.weight"], state[f"{name}.bias"] = random(width), random(width)
    state["vision_model.embeddings.position_ids"] = torch.arange(c.memory_tokens)[None]
    state["text_model.embeddings.position_ids"] = torch.arange(c.text_positions)[None]
    return state


def of_hugging_face(state, pixels, tokens):
    def linear(x, name):
        return F.linear(x, state[f"{name}.weight"], state.get(f"{name}.bias"))

    def norm(x, name):
        return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])

    def encoder(x, tower, layers, mask):
        for layer in range(layers):
            prefix = f"{tower}_model.encoder.layers.{layer}"
            y = norm(x, f"{prefix}.layer_norm1")
            q, k, v = (linear(y, f"{prefix}.self_attn.{name}_proj") for name in "qkv")  # one head of 64
            scores = q @ k.mT / 8 + mask
            x = x + linear(scores.softmax(-1) @ v, f"{prefix}.self_attn.out_proj")
            y = linear(norm(x, f"{prefix}.layer_norm2"), f"{prefix}.mlp.fc1")
            x = x + linear(y * torch.sigmoid(1.702 * y), f"{prefix}.mlp.fc2")
        return x

    patches = F.conv2d(pixels, state["vision_model.embeddings.patch_embedding.weight"], stride=8).flatten(2).mT
    first = state["vision_model.embeddings.class_embedding"].expand(len(pixels), 1, -1)
    x = torch.cat((first, patches), 1) + state["vision_model.embeddings.position_embedding.weight"]
    x = encoder(norm(x, "vision_model.pre_layrnorm"), "vision", SQUARE.image_layers, 0)
    image = linear(norm(x, "vision_model.post_layernorm"), "visual_projection")
    length = tokens.shape[1]
    x = state["text_model.embeddings.token_embedding.weight"][tokens]
    x = x + state["text_model.embeddings.position_embedding.weight"][:length]
    x = encoder(x, "text", SQUARE.text_layers, torch.full((length, length), -torch.inf).triu(1))
    return image, linear(norm(x, "text_model.final_layer_norm"), "text_projection")


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_hugging_faces_layout_computes_as_there(tmp_path, name):
    state, model = hugging_face(), Clip4Str(SQUARE).eval()
    (save_file if name.endswith("safetensors") else torch.save)(state, tmp_path / name)
    start.start_from(model, f"clip:{tmp_path / name}", "base16")
    pixels, tokens = torch.randn(2, 3, 32, 32), torch.randint(0, 600, (3, 16))
    image, text = of_hugging_face(state, pixels, tokens)
    with torch.inference_mode():
        torch.testing.assert_close(model.clip_model.visual(pixels), image, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(model.clip_model.encode_text(tokens), text, rtol=1e-4, atol=1e-4)


def openai(config=SQUARE):
    """OpenAI's state_dict: half precision, and three numbers beside it."""
    state = {k: v.half() for k, v in Clip4Str(config).clip_model.state_dict().items()}
    sizes = {"input_resolution": 32, "context_length": 77, "vocab_size": 600}
    return {**state, **{name: torch.tensor(value) for name, value in sizes.items()}}


def test_openais_layout_and_other_patches(tmp_path):
    state = openai()
    torch.save(state, tmp_path / "ViT.pt")
    model = Clip4Str(SQUARE)
    start.start_from(model, f"clip:{tmp_path / 'ViT.pt'}", "base16")
    assert all(torch.equal(v, state[k].float()) for k, v in model.clip_model.state_dict().items())
    wide = Clip4Str(replace(SQUARE, image_size=(16, 64), patch_size=(16, 4)))
    start.start_from(wide, f"clip:{tmp_path / 'ViT.pt'}", "base16")
    pixels = torch.ones(1, 3, 16, 16)
    with torch.inference_mode():  # a plain of one colour looks the same to every kernel
        seen = [m.clip_model.visual.conv1(pixels).flatten(2)[..., :1] for m in (model, wide)]
    torch.testing.assert_close(*seen, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"image_layers": 1}, "has more layers .visual.transformer.resblocks.1"),
        ({"image_layers": 3}, "has no visual.transformer.resblocks.2"),
        ({"text_width": 128}, "is .77, 64., not .77, 128.; choose --size"),
        ({"vocabulary": 700}, "token_embedding.weight is .600, 64., not .700, 64."),
    ],
)
def test_a_clip_of_another_size_is_refused_whole(tmp_path, config, message):
    torch.save(openai(), tmp_path / "ViT.pt")
    model = Clip4Str(replace(SQUARE, **config))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(UsageError, match=message):
        start.start_from(model, f"clip:{tmp_path / 'ViT.pt'}", "base16")
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_files_that_are_no_clip(tmp_path):
    with zipfile.ZipFile(tmp_path / "ViT-B-16.pt", "w") as archive:
        archive.writestr("ViT-B-16/code/__torch__.py", "class A: pass")
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7), "layer1.0.conv1.weight": torch.zeros(2)}, tmp_path / "net.pt")
    save_checkpoint(Clip4Str(SQUARE), tmp_path / "whole.safetensors")
    for name, message in {
        "ViT-B-16.pt": "TorchScript archive.*torch.save.torch.jit.load.FILE.*state_dict",
        "net.pt": "no CLIP of a vision transformer",
        "whole.safetensors": "a whole CLIP4STR. then --init FILE",
    }.items():
        with pytest.raises(CheckpointError, match=message) as caught:
            start.start_from(Clip4Str(SQUARE), f"clip:{tmp_path / name}", "base16")
        assert name in str(caught.value) and "\n" not in str(caught.value)
