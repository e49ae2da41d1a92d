"""No test picture may be in the training data: a search for copies, by hash and by likeness.

The contact sheet holds pictures of the data sets and the JSON holds none, nor a path.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from clip4str.core.console import Parser, one_line, run_script
from clip4str.core.errors import ImageError, UsageError
from clip4str.core.output_files import check_apart, check_output, write_json, write_whole
from clip4str.data.duplicate_search import LEAST, Finding, Search, Side
from clip4str.runtime.images import load_image

PROGRAM = "data/near_duplicates.py"
THRESHOLD, STRETCH = 0.95, 1.25
_EPILOG = f"""\
example:
  python data/near_duplicates.py --train data/train --test data/test/SVT \\
    --output duplicates.json --picture closest.png --write-exclusions leave-out.tsv

Found are: equal files, equal pixels in other files, and pictures as alike as
--threshold or more. Likeness is the normalised cross correlation, up to 1, of
grey thumbnails with local contrast levelled, of the parts where the two fit best:
scaling, JPEG, brightness, contrast and crops of up to some 10 % a side hardly
change it, and {THRESHOLD} is what 98 of 100 such copies reach. Every run makes such
copies of some test pictures, and states how many it would have missed and how
many pairs of other words it took for copies.

It cannot tell another photograph of the same lettering from a copy, nor two long
words that differ in a letter, but by their likeness: look at --picture. Not
looked for: turned, mirrored or inverted copies, other crops, other shapes
(--stretch). A million pairs take some ten seconds.

exit code: 0 nothing found, 1 something found, 2 bad input
"""


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=PROGRAM,
        description="Search the training data for copies of test pictures, exact or altered.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--train", type=Path, nargs="+", required=True, metavar="DIR", help="folders with LMDB sets at any depth")
    add("--test", type=Path, nargs="+", required=True, metavar="DIR", help="the same, of test sets")
    add("--output", type=Path, metavar="FILE", help="write what was found, and how sure that is, as JSON")
    add("--picture", type=Path, metavar="FILE", help="draw the closest pairs, train beside test (.png)")
    add("--write-exclusions", type=Path, metavar="FILE",
        help="write set, row and SHA-256 of the training pictures found, tab-separated")  # fmt: skip
    add("--threshold", type=float, default=THRESHOLD, metavar="L",
        help=f"likeness of a near-duplicate, {LEAST} to 1 (default: %(default)s)")  # fmt: skip
    add("--stretch", type=float, default=STRETCH, metavar="S",
        help="pairs whose shapes differ by more than this factor are listed, not counted (default: %(default)s)"
        )  # fmt: skip
    add("--pairs", type=int, default=40, metavar="N", help="closest pairs to list and draw (default: %(default)s)")
    add("--copies", type=int, default=300, metavar="N",
        help="test pictures to try altered copies of (default: %(default)s; 0: none)")  # fmt: skip
    add("--same-label", action="store_true",
        help="compare pictures with the same word only: a thousandth of the pairs, for large training data; an altered "
             "copy under another label is then not found")  # fmt: skip
    add("--quiet", action="store_true", help="no progress bar")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """0 if nothing was found, else 1. Raises UsageError for wrong options, DataError for folders that are no LMDBs."""
    args = build_parser().parse_args(argv)
    _check(args)
    with closing(Side(args.train)) as train, closing(Side(args.test)) as test:
        return _search(args, train, test)


def _search(args: argparse.Namespace, train: Side, test: Side) -> int:
    search = Search(train, test, args.threshold, args.stretch, args.pairs, args.same_label)
    search.run(not args.quiet)
    report = search.report(args.copies)
    if args.output:
        write_json(args.output, report)
    if args.picture:
        buffer = io.BytesIO()
        contact_sheet(search.shown(), train, test).save(buffer, "PNG")
        write_whole(args.picture, buffer.getvalue())
    if args.write_exclusions:
        write_whole(args.write_exclusions, exclusions(search.found, train))
    print_summary(report)
    if not search.found:
        print(f"nothing found: no test picture has a copy in the training data (likeness below {args.threshold:g})")
        return 0
    tests, trains = ({getattr(pair, side) for pair in search.found} for side in ("test", "train"))
    print(f"found: {len(tests)} test pictures have {len(trains)} copies or near-duplicates in the training data")
    return 1


def _check(args: argparse.Namespace) -> None:
    if not LEAST <= args.threshold <= 1:
        raise UsageError(f"--threshold lies within {LEAST} and 1, not {args.threshold:g}")
    if not args.stretch >= 1:
        raise UsageError(f"--stretch is a factor, 1 or more, not {args.stretch:g}")
    if not 1 <= args.pairs <= 1000:
        raise UsageError(f"--pairs is 1 to 1000, not {args.pairs}")
    if args.copies < 0:
        raise UsageError(f"--copies is 0 or more, not {args.copies}")
    check_output(args.output)
    check_output(args.picture, (".png",))
    check_output(args.write_exclusions)
    check_apart({"--output": args.output, "--picture": args.picture, "--write-exclusions": args.write_exclusions})


def print_summary(report: dict[str, Any]) -> None:
    for side in ("train", "test"):
        sets = report[side]
        parts = (f"{one_line(name)} {counts['pictures']}" for name, counts in sets.items())
        bad = sum(counts["unreadable"] for counts in sets.values())
        print(f"{side}: {', '.join(parts)}" + (f"; {bad} unreadable, compared by their bytes alone" if bad else ""))
    found, others, copies = report["found"], report["other_labels"], report["altered_copies"]
    print(f"equal files {found['bytes']}, equal pixels {found['pixels']}, near-duplicates {found['near']}")
    print(f"of {others['pairs']} pairs with different labels {others['at_threshold']} reach the threshold")
    if report["stretched"]:
        print(f"as alike, but of another shape and not counted: {len(report['stretched'])} pairs")
    if copies["copies"]:
        print(f"of {copies['copies']} altered copies {copies['missed']} stay below it")
    for pair in report["found"]["pairs"][:10]:
        print("found:   " + _line(pair))
    for pair in report["closest"][: max(0, 10 - len(found["pairs"]))]:
        print("closest: " + _line(pair))


def _line(pair: dict[str, Any]) -> str:
    places = (f"{pair[side]['set']} {pair[side]['row']} {pair[side]['label']!r}" for side in ("train", "test"))
    score = "" if pair["likeness"] is None else f" {pair['likeness']:.3f}"
    return one_line(f"{pair['kind']}{score} {' - '.join(places)}")


def exclusions(found: Sequence[Finding], train: Side) -> str:
    """The training pictures found, a line each: set, row in it, SHA-256 of the encoded picture."""
    entries = (train.describe(place) for place in sorted({pair.train for pair in found}))
    lines = (f"{one_line(entry['set'])}\t{entry['row']}\t{entry['sha256']}\n" for entry in entries)
    return "set\trow\tsha256\n" + "".join(lines)


def contact_sheet(pairs: Sequence[Finding], train: Side, test: Side, columns: int = 2) -> Image.Image:
    """Every pair with its likeness and labels, train on the left; red: found."""
    wide, high, text = 300, 110, 30
    rows = max(1, -(-len(pairs) // columns))
    sheet = Image.new("RGB", (columns * 2 * wide, rows * (high + text)), "white")
    pen = ImageDraw.Draw(sheet)
    for k, pair in enumerate(pairs):
        x, y = k % columns * 2 * wide, k // columns * (high + text)
        colour = "#777777" if pair.kind in ("below", "stretched") else "#bb0000"
        for side, place in ((train, pair.train), (test, pair.test)):
            try:
                picture = load_image(side.image(place))
                scale = min((wide - 8) / picture.width, (high - 8) / picture.height)
                size = max(1, int(picture.width * scale)), max(1, int(picture.height * scale))
                sheet.paste(picture.resize(size, Image.Resampling.BICUBIC), (x + 4, y + 4))
            except ImageError:
                pen.text((x + 4, y + 4), "unreadable", fill="#777777")
            entry, which = side.describe(place), "train" if side is train else "test"
            line = f"{which} {entry['set']} {entry['row']}\n{one_line(entry['label'])[:40]}"
            pen.text((x + 4, y + high), line.encode("ascii", "replace").decode(), fill=colour)
            x += wide
        score = "" if pair.likeness is None else f" {pair.likeness:.3f}"
        pen.text((x - wide - 90, y + high), f"{pair.kind}{score}", fill=colour)
    return sheet


if __name__ == "__main__":
    sys.exit(run_script(PROGRAM, main))
