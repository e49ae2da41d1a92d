"""Text in photos that their lists of words do not name: where a text detector finds some, no crop is without text.

Writes training/textless/unlabelled.tsv, which training and benchmarks/textless.py keep away from as from the words.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from clip4str.core.console import Parser, run_script
from clip4str.core.errors import UsageError
from clip4str.core.output_files import check_output, write_whole
from clip4str.runtime.images import load_image
from clip4str.training.textless.photos import Photos

PROGRAM = "training/textless/unlabelled_text.py"
SIDE = 800  # pixels that the shorter side is scaled to: small text counts, too
SURE = 0.3  # half the detector's own threshold: a wall that is left out costs nothing, a word that is not, does
COVERED = 0.5  # share of a box that lies in a labelled word's, from which on it is no news
Box = tuple[float, float, float, float]  # left, top, right, bottom


def news(found: Sequence[Box], words: np.ndarray) -> list[Box]:
    """Those of the boxes found that no labelled word's box (of [n, 4]) covers by half or more."""
    kept = []
    for left, top, right, bottom in found:
        wide = np.minimum(right, words[:, 2]) - np.maximum(left, words[:, 0])
        high = np.minimum(bottom, words[:, 3]) - np.maximum(top, words[:, 1])
        common = np.clip(wide, 0, None) * np.clip(high, 0, None)
        if not (common >= COVERED * (right - left) * (bottom - top)).any():
            kept.append((left, top, right, bottom))
    return kept


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog=PROGRAM, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, metavar="DIR", help="photos with their words' places")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="the list to write (.tsv)")
    args = parser.parse_args(argv)
    check_output(args.output, (".tsv",))
    try:
        from rapidocr import RapidOCR
    except ImportError as error:
        raise UsageError(f"needs a text detector: pip install 'clip4str[peers]' ({error})") from None
    detector = RapidOCR(params={
        "Global.use_cls": False, "Global.use_rec": False, "Global.log_level": "error", "Det.box_thresh": SURE,
        "Det.limit_type": "min", "Det.limit_side_len": SIDE,
    })  # fmt: skip
    rows = ["photo\tleft\ttop\tright\tbottom"]
    for part in (Photos(args.photos, measured, unlabelled=False) for measured in (False, True)):
        for path, words in zip(part.paths, tqdm(part.words, unit="photo", disable=None)):
            answer = detector(np.asarray(load_image(path))[:, :, ::-1], use_cls=False, use_rec=False)
            found = getattr(answer, "boxes", None)  # none where nothing was found
            boxes = [(*quad.min(0), *quad.max(0)) for quad in (found if found is not None else ())]
            rows += ["\t".join([path.name, *(f"{v:.0f}" for v in box)]) for box in news(boxes, words)]
    write_whole(args.output, "\n".join([rows[0], *sorted(rows[1:])]) + "\n")
    print(f"{args.output}: {len(rows) - 1} places")
    return 0


if __name__ == "__main__":
    sys.exit(run_script(PROGRAM, main))
