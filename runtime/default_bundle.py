"""The bundle that is read with where none is named."""

from __future__ import annotations

import os
from pathlib import Path

from clip4str.core.packaged import PACKAGED

BUNDLE_VARIABLE = "CLIP4STR_BUNDLE"


def default_bundle() -> Path:
    """$CLIP4STR_BUNDLE, else the bundle built last under ./bundles, else the packaged one."""
    named = os.environ.get(BUNDLE_VARIABLE)
    if named:
        return Path(named)
    built = sorted(
        # a hidden folder is a build in progress
        (p for p in Path("bundles").glob("*/manifest.json") if not p.parent.name.startswith(".")),
        key=lambda p: p.stat().st_mtime,
    )
    return built[-1].parent if built else PACKAGED
