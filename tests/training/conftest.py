"""Faces that come with matplotlib, so that no test needs fonts of the system, and a small atlas of one of them; words
to train on, and a network that is quickly trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny import TINY, WORDS, write_lmdb

from clip4str.training.drawing import atlas_build
from clip4str.training.drawing.atlas import Atlas, save_atlas
from clip4str.training.fonts import Font, _matplotlib_fonts, inspect_font
from clip4str.training.network.places import Places


@pytest.fixture(scope="session")
def few() -> list[Font]:
    """A handful of plain faces."""
    paths = sorted(path for path in _matplotlib_fonts() if Path(path).name.startswith("DejaVuSans"))
    return [font for font in map(inspect_font, paths[:4]) if font is not None]


@pytest.fixture(scope="session")
def font(few: list[Font]) -> Font:
    return few[0]


@pytest.fixture(scope="session")
def atlas(font: Font) -> Atlas:
    """The same face twice: whole, and without a few characters and said to be unicase."""
    poor = replace(font, chars=font.chars.replace("$", "").replace("#", ""), unicase=True)
    whole, less = (atlas_build.draw_face(f) for f in (font, poor))
    assert whole is not None and less is not None
    faces = [atlas_build.Face(n, n, "free", n == "less", 1.0, 0.4) for n in ("whole", "less")]
    parts = (np.stack([d.glyphs for d in (whole, less)]), np.stack([d.kerning for d in (whole, less)]))
    return atlas_build.assemble(faces, *parts, np.concatenate([whole.texels, less.texels]))


@pytest.fixture(scope="session")
def atlas_file(atlas: Atlas, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("atlas") / "atlas.safetensors"
    save_atlas(atlas, path)
    return path


@pytest.fixture
def small_is_tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    from clip4str.model.sizes import SIZES

    monkeypatch.setitem(SIZES, "small", replace(TINY))


@pytest.fixture(scope="session")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a set of four words, each drawn twelve times."""
    folder = tmp_path_factory.mktemp("data")
    write_lmdb(folder / "words", WORDS * 12)
    return folder


@pytest.fixture
def where(tmp_path: Path) -> Places:
    """A home of the long run that has a bundled network, tiny, and nothing else."""
    from network_home import home

    return home(tmp_path)
