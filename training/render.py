#!/usr/bin/env python3
"""Draws synthetic words from a glyph atlas: a pool of them for training, a contact sheet, figures beside real crops.

clip4str atlas --output atlas.safetensors
python training/render.py --sheet sheet.png --real words/train/real
python training/render.py --output pool --count 100000 --words words.txt --real words/train/real
"""

from clip4str.training.drawing.command import main

if __name__ == "__main__":
    raise SystemExit(main())
