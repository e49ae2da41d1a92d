"""A newly trained network becomes the one that comes with the package: `python export/ship.py CHECKPOINT`.

Its weights are stored in half precision, as training writes them; what their file says beside them (temperature, words
seen) comes along. Without a checkpoint the packaged network is built anew, for a newer clip4str. The bundle that was
there stays until the new one reads the sample crops as its network does. Then the model card is to be written.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from clip4str.core.console import Parser, run_script
from clip4str.core.packaged import PACKAGED
from clip4str.core.safetensors_metadata import read_metadata, write_metadata
from clip4str.export.bundles import build_bundle
from clip4str.export.half_storage import is_half
from clip4str.export.torch_weights import WEIGHTS_FILE
from clip4str.model.checkpoint import BUNDLED, is_safetensors, load_checkpoint, save_checkpoint

PROGRAM = "ship"


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog=PROGRAM, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", nargs="?", type=Path, default=BUNDLED, metavar="CHECKPOINT",
                        help=".ckpt, .pt or .safetensors (default: the packaged network's own weights)")  # fmt: skip
    parser.add_argument("--output", type=Path, default=PACKAGED, metavar="DIR", help=f"default: {PACKAGED}")
    args = parser.parse_args(argv)
    folder = ship(args.checkpoint, args.output)
    size = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    print(f"{folder} is ready, {size:.1f} MB; {folder.parent / 'MODEL_CARD.md'} says what it reads: is it true?")
    return 0


def ship(checkpoint: Path, output: Path) -> Path:
    """Raises what load_checkpoint and build_bundle raise."""
    with tempfile.TemporaryDirectory() as scratch:
        weights = Path(scratch) / WEIGHTS_FILE
        model, described = load_checkpoint(checkpoint), is_safetensors(checkpoint)
        if described and is_half(checkpoint):
            shutil.copyfile(checkpoint, weights)
        else:
            save_checkpoint(model, weights, torch.float16)
            said = read_metadata(checkpoint) if described else {}
            write_metadata(weights, weights, {**said, **read_metadata(weights)})
        return build_bundle(weights, output, half_storage=True, force=True, say=print)


if __name__ == "__main__":
    sys.exit(run_script(PROGRAM, main))
