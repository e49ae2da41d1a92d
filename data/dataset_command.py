"""clip4str dataset: a folder of pictures and a label file -> the LMDB that training and evaluation read."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from clip4str.core.console import Parser, one_line
from clip4str.core.errors import DataError, UsageError
from clip4str.core.output_files import check_apart, check_output, write_whole
from clip4str.data.conversion import LEFT_OUT, NOTED, Findings, sidecars, usable, write
from clip4str.data.label_formats import FORMATS, Row, detect, name_label, parse
from clip4str.data.label_text import read_text
from clip4str.export.atomic_folder import atomic_folder
from clip4str.runtime.read_command import IMAGE_SUFFIXES, expand

_FOLDERS = {
    "beside": "beside each picture a text file with its label: NAME.gt.txt or NAME.txt (Tesseract)",
    "names": "the pictures' names hold their labels: label_NUMBER.png or NUMBER_label_NUMBER.png",
}
_SUFFIXES = (".txt", ".tsv", ".csv", ".json", ".jsonl")
FEW, SHOWN = 5, 200  # times that a character is seen; characters shown
_LARGEST_SIDECAR = 1 << 16  # bytes
_EPILOG = f"""\
examples:
  clip4str dataset crops/ --output sets/mine                    labels.txt, gt.txt, labels.csv ... is in crops/
  clip4str dataset rec_gt_train.txt --pictures train_data/rec --output sets/mine
  clip4str dataset crops/ --output sets/mine --validation 0.05 --write-charset charset.txt

Which format the labels are in is found out and said; --format says it:
{chr(10).join(f"  {name:8} {what}" for name, what in (FORMATS | _FOLDERS).items())}

Written is an LMDB folder (num-samples, image-%09d, label-%09d) with the pictures'
files as they are and the labels without blanks at their ends; with --validation two,
OUTPUT/train and OUTPUT/validation. All of it appears, or nothing.

Left out and counted: lines without a label, empty labels, missing files, files that
are no pictures, pictures named twice. Counted and kept: long labels, labels with
spaces, equal pictures, photos. A path that leads out of the folder ends the command.
"""


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="clip4str dataset",
        description="Turn pictures of words and a label file into a data set to train on or to evaluate with.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("source", type=Path, metavar="SOURCE", help="label file, or folder with pictures and one label file")
    add("--output", type=Path, required=True, metavar="DIR", help="folder to write, a new one")
    add("--pictures", type=Path, metavar="DIR", help="folder that the labels' paths start from (default: their own)")
    add("--format", choices=(*FORMATS, *_FOLDERS), help="of the labels (default: found out)")
    add("--encoding", metavar="NAME", help="of the label file (default: UTF-8, or what its byte order mark says)")
    add("--validation", type=float, default=0.0, metavar="SHARE",
        help="about this share of the pictures to hold out, by their hashes: at most 0.5 (default: none)")  # fmt: skip
    add("--write-charset", type=Path, metavar="FILE", help="write the characters of the labels, for train --charset")
    add("--report", type=Path, metavar="FILE", help="write every line with something to it, tab-separated")
    add("--quiet", action="store_true", help="no progress bar")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    if not 0 <= args.validation <= 0.5:
        raise UsageError(f"--validation is above 0 and at most 0.5, not {args.validation:g}")
    check_output(args.write_charset)
    check_output(args.report)
    check_apart({"--write-charset": args.write_charset, "--report": args.report}, _labels_of(args))
    if args.output.exists() and (not args.output.is_dir() or any(args.output.iterdir())):
        raise UsageError(f"{args.output}: exists; choose another --output")
    rows, pictures, said = read_labels(args)
    print(said)
    findings = Findings(every=args.report is not None)
    try:
        words = usable(rows, pictures, findings)
        with atomic_folder(args.output, force=False) as folder:
            write(words, folder, args.validation, findings, not args.quiet)
            if args.write_charset:
                write_whole(args.write_charset, charset(findings))
    except DataError as error:
        raise DataError(f"{args.source}: {error}") from None
    finally:
        if args.report:
            write_whole(args.report, report(findings))
    print_summary(args, findings, len(rows))
    return 0


def _labels_of(args: argparse.Namespace) -> list[Path]:
    """What no report may replace: the label file, or whatever of that name is in the folder already."""
    source: Path = args.source
    reports = [file for file in (args.write_charset, args.report) if file is not None and file.exists()]
    return [source, *(file for file in reports if source.is_dir() and file.resolve().parent == source.resolve())]


def read_labels(args: argparse.Namespace) -> tuple[list[Row], Path, str]:
    """Rows, the folder that their paths start from, and what was found, in a line."""
    source: Path = args.source
    if not source.exists():
        raise DataError(f"{source}: no such file or folder")
    pictures: Path = args.pictures or (source if source.is_dir() else source.parent)
    if not pictures.is_dir():
        raise UsageError(f"--pictures {pictures}: not a folder")
    labels = None if source.is_dir() else source
    if labels is None and args.format not in _FOLDERS:
        labels = _only_label_file(source, args.format)
    if labels is None:
        return _of_folder(source, pictures, args.format or "beside", args.encoding)
    text = read_text(labels, args.encoding)
    try:
        name = args.format or detect(text, labels.suffix.lower())
        if name in _FOLDERS:
            raise UsageError(f"--format {name} takes a folder")
        rows = parse(text, name)
    except DataError as error:
        raise DataError(f"{labels}: {error}") from None
    return rows, pictures, f"{labels}: {FORMATS[name]}; {text.encoding}, {len(rows):,} lines"


def _only_label_file(folder: Path, wanted: str | None) -> Path | None:
    """None where each picture has its own. Raises DataError where there are several, or none."""
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES and path.is_file())
    beside = {label for _, label in sidecars(folder, tuple(IMAGE_SUFFIXES))}
    found = [path for path in found if path not in beside]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(path.name for path in found[:6])
        raise DataError(f"{folder}: several label files ({names}); give one instead of the folder")
    if beside and wanted is None:
        return None
    raise DataError(
        f"{folder}: no label file in it ({', '.join(_SUFFIXES)}); give one instead, and its pictures by --pictures, or "
        "--format names if the pictures' names hold the labels"
    )


def _of_folder(source: Path, pictures: Path, name: str, encoding: str | None) -> tuple[list[Row], Path, str]:
    rows = []
    if name == "beside":
        for number, (path, beside) in enumerate(sidecars(source, tuple(IMAGE_SUFFIXES)), 1):
            small = beside.is_file() and beside.stat().st_size <= _LARGEST_SIDECAR
            blank = small and not beside.read_bytes().strip()
            label = "" if blank else read_text(beside, encoding).content if small else None
            rows.append(Row(number, path.relative_to(source).as_posix(), label))
    else:
        for number, (found, _) in enumerate(expand([str(source)]), 1):
            rows.append(Row(number, Path(found).relative_to(source).as_posix(), name_label(found)))
        if len({row.label for row in rows}) < 2 < len(rows):
            raise DataError(f"{source}: the names of its {len(rows):,} pictures all hold the same label, or none")
    if not rows:
        raise DataError(f"{source}: no picture with a label in it ({_FOLDERS[name]})")
    return rows, source, f"{source}: {_FOLDERS[name]}; {len(rows):,} pictures"


def charset(findings: Findings) -> str:
    """The labels' characters by code point, on one line; of blanks the space, if there is one."""
    blank = " " * any(c.isspace() for c in findings.characters)
    return blank + "".join(sorted(c for c in findings.characters if not c.isspace())) + "\n"


def report(findings: Findings) -> str:
    found = sorted(findings.found, key=lambda entry: entry[1])
    lines = (f"{line}\t{one_line(file)}\t{kind}\t{one_line(more)}\n" for kind, line, file, more in found)
    return "line\tpicture\twhat\tmore\n" + "".join(lines)


def print_summary(args: argparse.Namespace, findings: Findings, rows: int) -> None:
    parts = ", ".join(f"{count:,} words{name and f' in {name}'}" for name, count in findings.words.items())
    print(f"{args.output}: {parts}")
    for title, kinds in ((f"left out, of {rows:,}", LEFT_OUT), ("kept, but look", NOTED)):
        for kind in (kind for kind in kinds if findings.counts[kind]):
            print(f"{title}: {kind}: {findings.counts[kind]:,}; {'; '.join(findings.examples(kind))}")
    all_of_them = charset(findings)[:-1]
    rare = [c for c in all_of_them if findings.characters[c] < FEW]
    for what, found in (("characters", all_of_them), (f"of them seen fewer than {FEW} times, too few to learn", rare)):
        if found:
            shown = "".join(found[:SHOWN]) + ("..." if len(found) > SHOWN else "")
            print(one_line(f"{len(found):,} {what}: {shown}"))
    if args.write_charset:
        print(f"{args.write_charset}: these characters, for clip4str train --charset")


if __name__ == "__main__":
    from clip4str.core.cli import main as run_command

    sys.exit(run_command(["dataset", *sys.argv[1:]]))
