"""The scan of the machine's fonts: keeps those that can draw words, remembers what it saw."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import pytest

from clip4str.training import fonts as fonts_module
from clip4str.training.fonts import Font, NoFontsError, find_fonts, font_files, font_weights, inspect_font, survey
from clip4str.training.vocabulary import CHARSET


def test_font_scan_keeps_text_fonts(few: list[Font]):
    for font in few:
        assert font.legibility > 0.5 and set("Hello123") <= set(font.chars) <= set(CHARSET)
    weights = font_weights(few)
    assert len(weights) == len(few) and min(weights) > 0


def test_font_scan_rejects_symbol_fonts(tmp_path: Path):
    builder_module = pytest.importorskip("fontTools.fontBuilder")
    pens = pytest.importorskip("fontTools.pens.ttGlyphPen")
    pen = pens.TTGlyphPen(None)
    for corner in ((100, 0), (100, 700), (600, 350)):
        (pen.moveTo if corner == (100, 0) else pen.lineTo)(corner)
    pen.closePath()
    triangle, names = pen.glyph(), [".notdef", "triangle"]
    builder = builder_module.FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap(dict.fromkeys(map(ord, CHARSET), "triangle"))
    builder.setupGlyf({".notdef": pens.TTGlyphPen(None).glyph(), "triangle": triangle})
    builder.setupHorizontalMetrics(dict.fromkeys(names, (700, 100)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Triangles", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(tmp_path / "triangles.ttf")
    (tmp_path / "broken.ttf").write_bytes(b"no font at all")
    assert inspect_font(str(tmp_path / "triangles.ttf")) is None
    assert inspect_font(str(tmp_path / "broken.ttf")) is None
    with pytest.raises(NoFontsError, match=r"font; 1 .*alike \(symbols\).*; on Debian: apt-get install"):
        find_fonts((str(tmp_path),), cache=False)


def test_symbol_fonts_are_rejected():
    """Those that come with matplotlib, and what else is installed."""
    symbols = ("STIXSiz", "STIXNonUni", "cmsy10", "cmex10", "D050000L", "OpenSymbol", "fontawesome",
               "StandardSymbolsPS", "Symbola")  # fmt: skip
    folder = Path(matplotlib.get_data_path(), "fonts", "ttf")
    paths = [p for p in (*map(str, folder.glob("*.ttf")), *font_files()) if Path(p).stem.startswith(symbols)]
    assert len(paths) >= 10
    for font in map(inspect_font, paths):
        assert font is None or font.legibility < fonts_module.LEGIBLE


def test_scan_is_remembered(tmp_path: Path, few: list[Font], monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "fonts"
    folder.mkdir()
    (folder / "copy.ttf").write_bytes(Path(few[0].path).read_bytes())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    first = survey.__wrapped__((str(folder),))
    monkeypatch.setattr(fonts_module, "examine", lambda path: pytest.fail("looked at the file again"))
    assert survey.__wrapped__((str(folder),)) == first
    (tmp_path / "cache" / "clip4str" / "fonts.json").write_text("[broken")
    with pytest.raises(pytest.fail.Exception, match="looked"):
        survey.__wrapped__((str(folder),))
