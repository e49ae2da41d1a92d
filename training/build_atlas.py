#!/usr/bin/env python3
"""Draws the glyphs of this machine's fonts into one file, the glyph atlas that training/render.py draws words from.

python training/build_atlas.py --output atlas.safetensors
"""

from clip4str.training.drawing.atlas_build import main

if __name__ == "__main__":
    raise SystemExit(main())
