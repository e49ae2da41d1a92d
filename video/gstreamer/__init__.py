"""The GStreamer element `clip4strreader`: video passes through it untouched, and what is read in it is told on the bus.

Two ways to have it: `python -m clip4str.video.gstreamer` prints what gst-launch-1.0 and other programs need in their
environment; `register()` is for Python programs, which need neither that nor the plugin loader. Importing this needs
no GStreamer.
"""

from __future__ import annotations

import os
import shlex
import site
import sys
from pathlib import Path

NAME = "clip4strreader"
FOLDER = Path(__file__).parent  # the loader of Python plugins looks into its folder python/


def register() -> None:
    """Makes clip4strreader an element of this process, and initializes GStreamer. Raises ImportError without gi."""
    from .introspection import Gst

    Gst.init(None)  # what the element is made of needs it
    from .element import Clip4StrReader

    Gst.Element.register(None, NAME, Gst.Rank.NONE, Clip4StrReader)


def environment() -> dict[str, list[str]]:
    """Variables by name, and the folders that stand first in each: the plugin's, and where its Python finds this
    package and what that needs."""
    plugins = (
        "GST_PLUGIN_PATH_1_0" if os.environ.get("GST_PLUGIN_PATH_1_0") else "GST_PLUGIN_PATH"
    )  # the one that counts
    packages = [str(FOLDER.parents[2])]
    if sys.prefix != sys.base_prefix:  # elsewhere GStreamer's Python finds them by itself
        packages += [path for path in site.getsitepackages() if path not in packages]
    return {plugins: [str(FOLDER)], "PYTHONPATH": packages}


def exports() -> str:
    """Lines for a shell."""
    lines = []
    for name, folders in environment().items():
        lines.append(f"export {name}={shlex.quote(os.pathsep.join(folders))}${{{name}:+:${name}}}")
    return "\n".join(lines)
