"""Crops on which nothing is to be read: what teaches, and what measures, that nothing there means nothing read."""
