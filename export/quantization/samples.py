"""Word crops that an eight-bit build calibrates on, and others that its gate reads."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFont

from clip4str.core.errors import ImageError, UsageError
from clip4str.export.parity_images import BUNDLED_CROPS, label_in
from clip4str.model.config import Config
from clip4str.runtime.images import load_image
from clip4str.runtime.read_command import IMAGE_SUFFIXES

FEWEST = 8
CALIBRATED, GATED = 128, 1000
GATED_IF_LARGE, LARGE = 500, 30e9  # multiplications of an image tower for one crop, above which reading takes long
SEED = "clip4str int8"


class Sample(NamedTuple):
    """A crop, and what it says if that is known."""

    image: Image.Image
    label: str | None


class Samples(NamedTuple):
    """calibration and gate have no crop in common. source: where they are from, in words."""

    calibration: list[Sample]
    gate: list[Sample]
    source: str


def load_samples(folder: Path | None, config: Config) -> Samples:
    """Crops for a build: those of `folder`, images or an LMDB, else the bundled ones and rendered words.

    Labels are the LMDB's, or in file names of the form NUMBER-LABEL.SUFFIX. The same folder gives the same split.
    Raises UsageError (no folder, too few), ImageError (a crop that cannot be read, by name), DataError (an LMDB that is
    damaged).
    """
    gated = GATED_IF_LARGE if multiplications(config) > LARGE else GATED
    most = CALIBRATED + gated
    if folder is None:
        bundled = _from_files(sorted(BUNDLED_CROPS.iterdir()), most)
        rendered = rendered_words(most - len(bundled))
        samples, source = bundled + rendered, f"{len(bundled)} bundled crops and {len(rendered)} rendered words"
    else:
        samples = _from_folder(folder, most)
        source = f"{len(samples)} crops of {folder.name}"
        if len(samples) < FEWEST:
            raise UsageError(
                f"{folder}: {len(samples) or 'no'} image{'s' if len(samples) > 1 else ''} in it, at least {FEWEST} are "
                f"needed and {most} are used: name a larger folder with --calib-data, or leave it out"
            )
    order = np.random.default_rng(0).permutation(len(samples))
    first = min(CALIBRATED, max(FEWEST // 2, len(samples) // 4))
    return Samples([samples[i] for i in order[:first]], [samples[i] for i in order[first:]], source)


def multiplications(config: Config) -> float:
    """Of an image tower's products, for one crop."""
    return 12.0 * config.image_width**2 * config.image_layers * config.memory_tokens


def _from_folder(folder: Path, most: int) -> list[Sample]:
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder of word crops; name one with --calib-data")
    if (folder / "data.mdb").is_file():
        return _from_lmdb(folder, most)
    return _from_files(sorted(folder.iterdir()), most)


def _from_files(paths: Sequence[Path], most: int) -> list[Sample]:
    paths = [path for path in paths if path.suffix.lower() in IMAGE_SUFFIXES]
    return [Sample(load_image(paths[i]), label_in(paths[i].stem)) for i in _spread(len(paths), most)]


def _from_lmdb(folder: Path, most: int) -> list[Sample]:
    from clip4str.data.word_lmdb import LmdbWords

    samples = []
    with LmdbWords(folder) as words:
        for i in _spread(len(words), most):
            try:
                samples.append(Sample(load_image(words.image(i + 1)), words.label(i + 1)))
            except ImageError as error:
                raise ImageError(f"{folder}: image-{i + 1:09d}: {str(error).partition(': ')[2]}") from None
    return samples


def _spread(count: int, most: int) -> list[int]:
    """At most `most` of `count` places, evenly."""
    return sorted({int(i) for i in np.linspace(0, count - 1, min(count, most)).round()}) if count else []


def rendered_words(count: int) -> list[Sample]:
    """Words drawn as training draws them, with the faces that come with Pillow and, if it is there, matplotlib.

    No font of the machine is asked: the words are the same everywhere.
    """
    from clip4str.training.drawing.atlas_build import build
    from clip4str.training.drawing.order import Orders
    from clip4str.training.drawing.renderer import Renderer
    from clip4str.training.fonts import inspect_font

    with tempfile.TemporaryDirectory() as folder:
        fonts = [font for path in _font_files(Path(folder)) if (font := inspect_font(path)) is not None]
        # how legible a face is found depends on what others the machine has
        atlas = build([replace(font, legibility=1.0) for font in fonts])
    renderer = Renderer(atlas, Orders(atlas, extra=()), seed=SEED)
    pictures: list[Image.Image] = []
    labels: list[str] = []
    while len(labels) < count:
        pixels, texts = renderer.batch(256)
        pictures += [Image.fromarray(picture) for picture in pixels.numpy()]
        labels += texts
    return [Sample(*pair) for pair in zip(pictures[:count], labels)]


def _font_files(folder: Path) -> list[str]:
    """Pillow's own face, written into the folder, and matplotlib's."""
    face = ImageFont.load_default(20)
    if not isinstance(face, ImageFont.FreeTypeFont):
        raise UsageError("this Pillow draws no TrueType fonts: name a folder of word crops with --calib-data")
    own = folder / "default.ttf"
    own.write_bytes(face.font_bytes)
    try:
        import matplotlib
    except ImportError:
        return [str(own)]
    others = (Path(matplotlib.get_data_path()) / "fonts" / "ttf").glob("DejaVu*.ttf")
    return [str(own), *sorted(str(path) for path in others)]
