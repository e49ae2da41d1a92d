"""Synthetic words, drawn in batches, in torch, from a glyph atlas."""
