#!/usr/bin/env python3
"""Draws words in batches from a glyph atlas: words per second, a contact sheet, figures beside real crops.

python training/gpu_render.py --atlas atlas.safetensors --sheet sheet.png --real words/train/real
python training/gpu_render.py --atlas atlas.safetensors --seconds 20 --device cuda
"""

from clip4str.training.drawing.command import main

if __name__ == "__main__":
    raise SystemExit(main())
