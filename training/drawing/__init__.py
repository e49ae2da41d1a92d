"""Words drawn in batches, in torch, from a glyph atlas; training/render.py draws them one by one from font files."""
