"""What clip_weights makes of a real open_clip: a program of its own, since the torchvision that open_clip imports may
break others beside a CPU's torch. Prints a line of JSON per case."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch

from clip4str.core.errors import UsageError
from clip4str.model.clip4str import Clip4Str
from clip4str.model.sizes import SIZES
from clip4str.training import clip_weights
from clip4str.training.start import start_from

open_clip = clip_weights.import_open_clip()

VOCABULARY = 600


def network(size: str) -> Clip4Str:
    """Of a published size, but of two layers and few tokens."""
    config = replace(SIZES[size], image_layers=2, text_layers=2, vocabulary=VOCABULARY)
    return Clip4Str(config).eval()


def towers(size: str, head_width: int = 64, quick_gelu: bool = True) -> torch.nn.Module:
    """open_clip's own, of random weights."""
    c = network(size).config
    torch.manual_seed(3)
    clip = open_clip.model.CLIP(
        c.d,
        {
            "image_size": 224,
            "layers": 2,
            "width": c.image_width,
            "head_width": head_width,
            "patch_size": c.patch_size[0],
        },
        {"context_length": 77, "vocab_size": VOCABULARY, "width": c.text_width, "heads": c.text_heads, "layers": 2},
        quick_gelu=quick_gelu,
    )
    for parameter in clip.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    return clip.eval().requires_grad_(False)


def outputs(clip: torch.nn.Module, pixels: torch.Tensor, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of every patch and every token, by open_clip's modules."""
    clip.visual.output_tokens = True
    pooled, patches = clip.visual(pixels)
    image = torch.cat((pooled[:, None], patches @ clip.visual.proj), dim=1)
    length = tokens.shape[1]
    x = clip.token_embedding(tokens) + clip.positional_embedding[:length]
    x = clip.transformer(x, attn_mask=clip.attn_mask[:length, :length])
    return image, clip.ln_final(x) @ clip.text_projection


def towers_equal_open_clips(size: str, folder: Path) -> None:
    clip, model = towers(size), network(size)
    torch.save(clip.state_dict(), folder / f"{size}.pt")
    start_from(model, f"clip:{folder / size}.pt", size)
    pixels, tokens = torch.randn(2, 3, 224, 224), torch.randint(0, VOCABULARY, (3, 16))
    with torch.inference_mode():
        image, text = outputs(clip, pixels, tokens)
        torch.testing.assert_close(model.clip_model.visual(pixels), image, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(model.clip_model.encode_text(tokens), text, rtol=1e-4, atol=1e-4)


def other_heads_and_gelu_are_taken_as_they_are(folder: Path) -> None:
    """open_clip's own ViT-H-14 has 16 heads of 80, and LAION's have GELU."""
    clip, model = towers("huge", head_width=80, quick_gelu=False), network("huge")
    torch.save(clip.state_dict(), folder / "heads.pt")
    start_from(model, f"clip:{folder / 'heads.pt'}", "huge")
    state = clip.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in model.clip_model.state_dict().items())


def a_model_that_open_clip_makes(folder: Path) -> None:
    """By its name and a tag; a file in the tag's place here, for want of a network."""
    config = {
        "embed_dim": 512,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 224, "layers": 2, "width": 768, "patch_size": 16},
        "text_cfg": {"context_length": 77, "vocab_size": VOCABULARY, "width": 512, "heads": 8, "layers": 2},
    }
    (folder / "tiny-16.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder / "tiny-16.json")
    clip, model = towers("base16"), network("base16")
    torch.save(clip.state_dict(), folder / "base.pt")
    state = clip_weights._open_clip_state("tiny-16", str(folder / "base.pt"))
    clip_weights.fill_towers(model, state, "tiny-16")
    assert torch.equal(model.clip_model.visual.proj, clip.visual.proj)
    assert torch.equal(model.clip_model.token_embedding.weight, clip.token_embedding.weight)


def a_text_tower_of_its_own(folder: Path) -> None:
    """open_clip's CustomTextCLIP puts "text." before its names."""
    state = {}
    for name, value in towers("base16").state_dict().items():
        own = name.startswith("visual.") or name == "logit_scale"
        state[name if own else f"text.{name}"] = value
    torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, folder / "custom.pt")
    model = network("base16")
    start_from(model, f"clip:ViT-B-16:{folder / 'custom.pt'}", "base16")
    assert torch.equal(model.clip_model.text_projection, state["text.text_projection"])


def what_open_clip_lacks_is_one_line(folder: Path) -> None:
    for source, said in {
        "clip:ViT-B-16:no_such_tag": "open_clip could not provide ViT-B-16 (no_such_tag): ",
        "clip:ViT-Z-99:openai": "open_clip could not provide ViT-Z-99 (openai): ",
        "clip:no-such-file": "no-such-file is no file; else it is clip:NAME:TAG",
        "clip:ViT-B-16:no-such-file.pt": "there is no file no-such-file.pt",
    }.items():
        try:
            start_from(network("base16"), source, "base16")
        except UsageError as error:
            assert said in str(error) and "\n" not in str(error), error
        else:
            raise AssertionError(source)


def lightning_still_imports(folder: Path) -> None:
    import lightning  # noqa: F401


CASES: dict[str, Callable[[Path], None]] = {
    **{f"towers equal open_clip's, {size}": lambda folder, size=size: towers_equal_open_clips(size, folder)
       for size in ("base16", "base32", "large", "huge")},
    **{case.__name__.replace("_", " "): case for case in (
        other_heads_and_gelu_are_taken_as_they_are, a_model_that_open_clip_makes, a_text_tower_of_its_own,
        what_open_clip_lacks_is_one_line, lightning_still_imports)},
}  # fmt: skip


def results(folder: Path) -> Iterator[tuple[str, str]]:
    for name, case in CASES.items():
        try:
            case(folder)
            yield name, ""
        except Exception:
            yield name, traceback.format_exc()


if __name__ == "__main__":
    for outcome in results(Path(sys.argv[1])):
        print(json.dumps(outcome), flush=True)
