"""The page as a folder that any web server can serve: python examples/web/build.py [FOLDER]

Copies the page, exports the network (the packaged one, or --bundle), and takes ONNX Runtime's files from npm, which
must be installed. Says what a visitor will load.
"""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from clip4str.core.console import Parser, run_script
from clip4str.core.errors import BackendError
from clip4str.core.packaged import PACKAGED
from clip4str.export.parity_images import BUNDLED_CROPS
from clip4str.export.single_file.export_command import export_bundle
from clip4str.export.single_file.write import Options

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PAGE = ("index.html", "style.css", "page.js", "marking.js", "reader.js", "worker.js")
LIBRARY = {"": "ort.wasm.min.mjs", ".jspi": "ort.jspi.min.mjs"}  # without and with WebGPU
WASM = "ort-wasm-simd-threaded"


def build(folder: Path, bundle: Path = PACKAGED) -> None:
    """Writes into `folder`, over what an earlier call has written. Raises BackendError without npm."""
    (folder / "ort").mkdir(parents=True, exist_ok=True)
    (folder / "samples").mkdir(exist_ok=True)
    for name in PAGE:
        shutil.copyfile(HERE / name, folder / name)
    with tempfile.TemporaryDirectory() as scratch:
        dist = installed(Path(scratch)) / "dist"
        for kind, library in LIBRARY.items():
            shutil.copyfile(dist / library, folder / "ort" / library)
            shutil.copyfile(dist / f"{WASM}{kind}.mjs", folder / "ort" / f"{WASM}{kind}.mjs")
            pack(dist / f"{WASM}{kind}.wasm", folder / "ort" / f"{WASM}{kind}.wasm.gz")
        network = Path(scratch) / "word.onnx"
        export_bundle(bundle, network, Options(resize=True, strings=True, half_storage=True))
        pack(network, folder / "word.onnx.gz")
    crops = sorted(BUNDLED_CROPS.iterdir())
    for crop in crops:
        shutil.copyfile(crop, folder / "samples" / crop.name)
    (folder / "samples" / "samples.json").write_text(json.dumps([crop.name for crop in crops]), encoding="utf-8")


def installed(folder: Path) -> Path:
    """onnxruntime-web of package.json's version, in a folder under `folder`."""
    npm = shutil.which("npm")
    if npm is None:
        raise BackendError("npm is not installed, which has ONNX Runtime for browsers: https://nodejs.org")
    shutil.copyfile(HERE / "package.json", folder / "package.json")
    command = [npm, "install", "--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise BackendError(f"npm install failed: {(done.stderr or done.stdout).strip()[-300:]}")
    return folder / "node_modules" / "onnxruntime-web"


def pack(source: Path, target: Path) -> None:
    """Compressed the same every time. The page unpacks it, so that servers need not know how."""
    target.write_bytes(gzip.compress(source.read_bytes(), 9, mtime=0))


def loaded(folder: Path) -> int:
    """Bytes that a visitor's browser loads to read a picture, without WebGPU."""
    names = [*PAGE, "word.onnx.gz", f"ort/{LIBRARY['']}", f"ort/{WASM}.mjs", f"ort/{WASM}.wasm.gz"]
    return sum((folder / name).stat().st_size for name in names)


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="examples/web/build.py", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "build" / "web", help="default: build/web")
    parser.add_argument("--bundle", type=Path, default=PACKAGED, metavar="DIR", help="default: the packaged network")
    o = parser.parse_args(argv)
    build(o.folder, o.bundle)
    print(f"{o.folder} is ready; a visitor loads {loaded(o.folder):,} bytes")
    print(f"python -m http.server --bind 127.0.0.1 --directory {o.folder} 8000")
    return 0


if __name__ == "__main__":
    sys.exit(run_script("examples/web/build.py", main))
