"""The tiny golden network as a bundle for eight images at once."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_bundle(golden_checkpoint, few_crops, tmp_path_factory) -> Path:
    from clip4str.export.bundles import build_bundle

    folder = tmp_path_factory.mktemp("bundles") / "tiny"
    return build_bundle(golden_checkpoint("tiny"), folder, max_batch=8, sample_folder=few_crops)


@pytest.fixture(scope="session")
def atlas_file(tmp_path_factory) -> Path:
    """A glyph atlas of the one typeface that comes with matplotlib."""
    import matplotlib

    from clip4str.training.drawing import atlas_build
    from clip4str.training.drawing.atlas import save_atlas
    from clip4str.training.fonts import inspect_font

    font = inspect_font(str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")))
    drawn = atlas_build.draw_face(font)
    face = atlas_build.Face("DejaVu Sans", "DejaVu Sans", "free", False, 1.0, 0.4)
    path = tmp_path_factory.mktemp("atlas") / "atlas.safetensors"
    save_atlas(atlas_build.assemble([face], drawn.glyphs[None], drawn.kerning[None], drawn.texels), path)
    return path
