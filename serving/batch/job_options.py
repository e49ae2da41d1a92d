"""What a job's words depend on beside its inputs: by it one job is told from another, and a worker from a wrong one."""

from __future__ import annotations

import argparse
from pathlib import Path

from clip4str.core.charset_file import read_charset
from clip4str.core.errors import BundleError
from clip4str.runtime.bundle import Bundle, file_sha256

from ..versions import bundle_version


def word_options(args: argparse.Namespace) -> dict[str, str | None]:
    """Contents, not the names of files, of add_recognizer_options' arguments, where --bundle is known. Raises
    Clip4StrError."""
    return {
        "bundle": _bundle(Path(args.bundle)), "decoding": f"{args.decode}, {args.refine} rounds, {args.branch}",
        "charset test": _characters(args.charset_test), "charset": _characters(args.charset),
        "image size": None if args.image_size is None else "x".join(map(str, args.image_size)),
        "backend": args.backend, "dtype": args.dtype,
    }  # fmt: skip


def _bundle(path: Path) -> str:
    if not path.is_file():
        return bundle_version(Bundle.open(path, verify=False).manifest)
    try:
        return f"{path.name}@{file_sha256(path)}"
    except OSError as error:
        raise BundleError(f"{path}: {error.strerror or error}") from None


def _characters(given: str | None) -> str | None:
    return None if given is None else read_charset(given).characters
