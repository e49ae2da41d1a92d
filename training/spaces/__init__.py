"""Learns where the words of a line begin and end: the splitter of video/detect."""
