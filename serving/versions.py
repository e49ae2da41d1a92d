"""Which network answered: what servers put into every answer, so that a change of bundle shows in each."""

from __future__ import annotations

import hashlib

from clip4str.runtime.manifest import Manifest

_DIGITS = 12


def bundle_version(manifest: Manifest) -> str:
    """For instance "clip4str-small-fp32@1f0c3b9a7e52": name, precision, and a digest of the manifest, which holds the
    sha256 of every file. Equal for equal bundles, wherever they lie."""
    digest = hashlib.sha256(manifest.to_json().encode()).hexdigest()
    return f"{manifest.name}-{manifest.precision}@{digest[:_DIGITS]}"
