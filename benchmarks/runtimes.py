"""Which runtimes run a single file (clip4str export), in which forms, and whether they read the bundle's words."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from clip4str.benchmarks.bundle_options import bundle_parser
from clip4str.benchmarks.figures import markdown
from clip4str.core.console import run_script
from clip4str.core.errors import BackendError, UsageError
from clip4str.core.machine_info import machine_info
from clip4str.core.output_files import check_output, write_json
from clip4str.data.word_images import word_images
from clip4str.export.single_file.write import Options, write_graph
from clip4str.runtime import Recognizer
from clip4str.runtime.bundle import Bundle
from clip4str.runtime.default_bundle import default_bundle
from clip4str.runtime.images import load_image

PROGRAM = "benchmarks/runtimes.py"
ROOT = Path(__file__).resolve().parents[1]
FORMS = {"exact": Options(resize=True), "exact, static": Options(resize=True, static=True),
         "fixed": Options(resize=True, passes=(3, 2))}  # fmt: skip
_SECONDS = 500
_EPILOG = """\
examples:
  make test-examples; python benchmarks/runtimes.py --bundle model/bundled/clip4str-small

Runtimes are those that make test-examples puts into build/examples, and this
environment's ONNX Runtime. Each reads every crop by itself, pictures of any size
as bytes, which the file resizes. Equal: of the words that are settled; what is
not settled says so, and counts for neither.
"""

Found = list[dict[str, Any]]


def runtimes(folder: Path) -> dict[str, tuple[str, Path | None]]:
    """What is there: name -> (kind, folder of its packages, None for this environment's)."""
    found: dict[str, tuple[str, Path | None]] = {}
    found["ONNX Runtime"] = "onnxruntime", None
    for path in sorted(folder.glob("onnxruntime-*")):
        found[f"ONNX Runtime {path.name.rpartition('-')[2]}"] = "onnxruntime", path
    if (folder / "openvino" / "openvino").is_dir():
        found["OpenVINO"] = "openvino", folder / "openvino"
    if (folder / "node" / "node_modules" / "onnxruntime-node").is_dir() and shutil.which("node"):
        found["onnxruntime-node"] = "node", folder / "node"
    return found


def read_with(kind: str, packages: Path | None, file: Path, pictures: Sequence[Image.Image], scratch: Path) -> Found:
    """word, confidence, settled and the runtime's version, of each RGB picture. `file` takes bytes of any size, and for
    node gives strings. Raises BackendError with what the runtime says."""
    environment = dict(os.environ)
    if kind == "node":
        assert packages is not None
        paths = [scratch / f"{i:04}.png" for i in range(len(pictures))]
        for picture, path in zip(pictures, paths):
            picture.save(path)
        command = ["node", str(packages / "read.mjs"), str(file), *map(str, paths)]
    else:
        np.savez(scratch / "crops.npz", *(np.asarray(picture) for picture in pictures))
        if packages is not None:
            environment["PYTHONPATH"] = str(packages)
        command = [sys.executable, str(ROOT / "benchmarks" / "runtimes_child.py"), kind, str(file),
                   str(scratch / "crops.npz")]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, env=environment)
    if done.returncode:
        raise BackendError(f"{kind}: {(done.stderr.strip() or 'it says nothing').splitlines()[-1]}")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    if kind == "node" and packages is not None:
        package = packages / "node_modules" / "onnxruntime-node" / "package.json"
        version = json.loads(package.read_text(encoding="utf-8"))["version"]
        found = [{**each, "version": version} for each in found]
    return found


def main(argv: Sequence[str] | None = None) -> int:
    parser = bundle_parser(PROGRAM, __doc__, _EPILOG, words=True)
    add = parser.add_argument
    add("--folder", type=Path, default=ROOT / "build" / "examples", metavar="DIR", help="default: build/examples")
    o = parser.parse_args(argv)
    check_output(o.json)
    if not o.folder.is_dir():
        raise UsageError(f"{o.folder}: there are no runtimes; make test-examples puts them there")
    bundle = Bundle.open(o.bundle or default_bundle())
    pictures = [load_image(source) for source in word_images(o.words)]
    with Recognizer.load(bundle.folder, "onnxruntime", cache_size=0, batch_size=1) as recognizer:
        words = [recognizer.read([picture])[0].text for picture in pictures]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        for form, options in FORMS.items():
            for strings in (False, True):
                write_graph(bundle, scratch / f"{form}{strings}.onnx", replace(options, strings=strings))
        for name, (kind, packages) in runtimes(o.folder).items():
            for form in FORMS:
                row: dict[str, Any] = {"runtime": name, "form": form, "words": len(words)}
                try:
                    found = read_with(kind, packages, scratch / f"{form}{kind == 'node'}.onnx", pictures, scratch)
                    settled = [(each["word"], word) for each, word in zip(found, words) if each["settled"]]
                    row |= {"settled": len(settled), "equal": sum(a == b for a, b in settled),
                            "version": found[0]["version"]}  # fmt: skip
                except BackendError as error:
                    row["error"] = str(error)
                rows.append(row)
                print(f"{name}, {form}: {row.get('error') or _said(row)}", file=sys.stderr)
    names = {row["runtime"]: row.get("version", "") for row in rows}
    table = []
    for name, version in names.items():
        cells = [_said(row) for row in rows if row["runtime"] == name]
        table.append([name if version in name else f"{name} {version}", *cells])
    print(markdown(("equal of settled words", *FORMS), table))
    if o.json:
        write_json(o.json, {"rows": rows, "bundle": bundle.manifest.name, "machine": machine_info(None)})
    return 0


def _said(row: dict[str, Any]) -> str:
    return "no" if "error" in row else f"{row['equal']} of {row['settled']}"


if __name__ == "__main__":
    sys.exit(run_script(PROGRAM, main))
