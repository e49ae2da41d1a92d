"""Reading stage by stage where the compiled kernels would be quicker: is it chosen, what is said where it is not."""

from __future__ import annotations

import os
from pathlib import Path

from clip4str.core.errors import BackendError
from clip4str.kernels import loader
from clip4str.kernels.shared.variants import network_of

from ...bundle import KERNELS, Bundle, Manifest, stage_shapes

VARIABLE = "CLIP4STR_ONE_LAUNCH"  # 0: stage by stage


def chosen() -> bool:
    """Does the environment ask for it?"""
    return os.environ.get(VARIABLE) == "0"


def lacks_decoders(manifest: Manifest) -> bool:
    """Are there compiled kernels for this network and precision, but no decoders packed for them?"""
    if KERNELS in manifest.stages or manifest.precision == "fp32":
        return False
    c, classes = manifest.config, len(manifest.charset) + 1
    memory = stage_shapes(manifest)["image"]["visual_kv"][3]
    sizes = {"heads": c["decoder_heads"], "text": c["context"], "mlp": c["decoder_mlp"]}
    return network_of(d=c["d"], memory=int(memory), steps=c["steps"], classes=classes, **sizes) is not None


def without_decoders(folder: Path | str, manifest: Manifest) -> str:
    """What is to be said of a bundle that lacks them."""
    return (
        f"{folder} has no decoders for the compiled kernels (decoders.npz): its engines decode stage by stage, slower; "
        f"its checkpoint, built again with --{manifest.precision} --target tensorrt, has them"
    )


def why(bundle: Bundle) -> str:
    """Why a bundle's own making keeps the compiled kernels from decoding, and what else does; "" if nothing of that, or
    if it is chosen."""
    if chosen() or not lacks_decoders(bundle.manifest):
        return ""
    try:
        loader.find_library()
    except BackendError as error:
        return f"{without_decoders(bundle.folder, bundle.manifest)}; besides, {error}"
    return without_decoders(bundle.folder, bundle.manifest)
