"""The sizes of networks by name: the published four, and the small one in the package."""

from __future__ import annotations

from .config import Config

SIZES = {
    "small": Config(
        image_size=(32, 128), patch_size=(32, 4), image_width=192, image_layers=9,
        text_width=128, text_layers=3, text_positions=16, vocabulary=2562, d=192, decoder_mlp=768,
    ),
    "base16": Config(),
    "base32": Config(patch_size=(32, 32)),
    "large": Config(patch_size=(14, 14), image_width=1024, image_layers=24, text_width=768, d=768, decoder_mlp=3072),
    "huge": Config(patch_size=(14, 14), image_width=1280, image_layers=32, text_width=1024, text_layers=24, d=1024,
                   decoder_mlp=4096),
}  # fmt: skip
TITLES = {"small": "small", "base16": "B/16", "base32": "B/32", "large": "L/14", "huge": "H/14"}
_SPELLINGS = {"b16": "base16", "b32": "base32", "l14": "large", "h14": "huge"}


def size_name(text: str) -> str:
    """Our name of a size, however it is spelled (B/16, b16, base16); any other text unchanged."""
    plain = text.lower().replace("/", "").replace("-", "")
    return _SPELLINGS.get(plain, plain if plain in SIZES else text)
