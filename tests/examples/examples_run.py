"""make test-examples: installs what examples/ run on from npm, PyPI and Debian into build/examples, where it can, and
tests them. What cannot be had is said and its tests are skipped; with CLIP4STR_REQUIRE_EXAMPLES=1 that is a failure.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FOLDER = ROOT / "build" / "examples"
DEBIAN = ["chromium", "chromium-driver", "cmake", "g++", "nodejs", "npm"]
COMMANDS = {"chromium": "chromium", "chromium-driver": "chromedriver", "nodejs": "node"}
# the oldest that setup.py allows, with its numpy, one between, and the newest; constraints.txt has this environment's
OTHER_RUNTIMES = {
    "onnxruntime-1.17.3": ["onnxruntime==1.17.3", "numpy==1.26.4"],
    "onnxruntime-1.20.1": ["onnxruntime==1.20.1"],
    "onnxruntime-1.32.0": ["onnxruntime==1.32.0"],
}
REQUIRED = os.environ.get("CLIP4STR_REQUIRE_EXAMPLES", "") not in {"", "0"}

sys.path.insert(0, str(HERE.parent / "live"))
from run import install, missing  # noqa: E402


def done(command: list[str], folder: Path = ROOT) -> str:
    """ "" or the end of what it says."""
    try:
        said = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=500)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error).splitlines()[0]
    return "" if said.returncode == 0 else " ".join((said.stderr or said.stdout).split())[-300:]


def pip(folder: Path, *packages: str) -> str:
    pins = [] if any("==" in package for package in packages) else ["-c", str(ROOT / "constraints.txt")]
    return done([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder), *pins, *packages])


def node(folder: Path) -> str:
    for name in ("package.json", "read.mjs"):
        shutil.copyfile(ROOT / "examples" / "node" / name, folder / name)
    # its install script would fetch libraries for GPUs
    return done(["npm", "install", "--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund"], folder)


def web(folder: Path) -> str:
    return done([sys.executable, str(ROOT / "examples" / "web" / "build.py"), str(folder)])


PARTS: dict[str, tuple[str, Callable[[Path], str]]] = {
    "openvino": ("openvino", lambda folder: pip(folder, "openvino")),
    "node": ("onnxruntime-node", node),
    "web": ("onnxruntime-web", web),
    **{
        name: (name, lambda folder, packages=packages: pip(folder, *packages))
        for name, packages in OTHER_RUNTIMES.items()
    },
}


def provide() -> list[str]:
    """What cannot be had, a line each. What is there already stays, but the page, which is built anew."""
    lacking = [name for name in missing(DEBIAN) if shutil.which(COMMANDS.get(name, name)) is None]
    if lacking:
        install(lacking)
    trouble = [f"not installed: {name}" for name in lacking if shutil.which(COMMANDS.get(name, name)) is None]
    for name, (what, put) in PARTS.items():
        folder = FOLDER / name
        stamp = folder / ".ready"
        if stamp.exists() and name != "web":
            continue
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        print(f"test-examples: getting {what}", flush=True)
        if why := put(folder):
            shutil.rmtree(folder)
            trouble.append(f"{what} cannot be had: {why}")
        else:
            stamp.touch()
    return trouble


def main(arguments: list[str]) -> int:
    trouble = provide()
    for line in trouble:
        print(f"test-examples: {line}", file=sys.stderr)
    if trouble and REQUIRED:
        print("test-examples: CLIP4STR_REQUIRE_EXAMPLES is set, and this cannot be tested", file=sys.stderr)
        return 1
    if trouble:
        print("test-examples: tests that need it are skipped", file=sys.stderr)
    return int(pytest.main(["-rs", *(arguments or [str(HERE)])]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
