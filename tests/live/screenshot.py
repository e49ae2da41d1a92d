"""A picture of the page to watch, on a screen and on a phone, for the docs:

python tests/live/screenshot.py --picture docs/view.png

Two generated streets are read as if they were live, and the page is looked at with Chromium.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from browser import Browser
from PIL import Image, ImageOps
from street import film

from clip4str.core.console import Parser, run_script
from clip4str.core.output_files import check_output, write_whole

SCREEN, PHONE, EDGE = (1320, 760), (360, 760), "#8a8d91"  # pixels, width and height


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="tests/live/screenshot.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--picture", type=Path, required=True, metavar="FILE.png")
    parser.add_argument("--seconds", type=int, default=14, metavar="N", help="of reading before (default: %(default)s)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    check_output(args.picture, (".png",))
    with tempfile.TemporaryDirectory() as folder:
        names = ["north-gate.avi", "south-gate.avi"]
        for seed, name in enumerate(names):
            film(Path(folder, name), 4 * args.seconds, (720, 1280), seed=seed + 5)
        command = [sys.executable, "-m", "clip4str.core.cli", "video", *names, "--live", "--view", "0", "--quiet"]
        with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as it:
            link = next(line.split()[-1] for line in it.stderr or [] if line.startswith("watch at "))
            time.sleep(args.seconds)
            with Browser() as browser:
                pictures = [looked(browser, link, SCREEN, False), looked(browser, link, PHONE, True)]
            it.terminate()
    pictures = [ImageOps.expand(picture, 1, EDGE) for picture in pictures]
    both = Image.new("RGB", (sum(p.width for p in pictures) + 16, pictures[0].height), "white")
    both.paste(pictures[0], (0, 0))
    both.paste(pictures[1], (pictures[0].width + 16, 0))
    out = io.BytesIO()
    both.quantize(256, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
    write_whole(args.picture, out.getvalue())
    print(f"{args.picture}: {both.width} x {both.height}, {len(out.getvalue()):,} bytes")
    return 0


def looked(browser: Browser, link: str, size: tuple[int, int], dark: bool) -> Image.Image:
    browser.look(*size, dark)
    browser.execute_cdp_cmd("Emulation.setScrollbarsHidden", {"hidden": True})
    browser.get(link)
    browser.wait("document.querySelectorAll('#words tbody tr').length > 9 && document.querySelector('polygon')")
    browser.wait("[...document.querySelectorAll('#words img')].slice(0, 12).every((image) => image.complete)")
    return Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")


if __name__ == "__main__":
    sys.exit(run_script("tests/live/screenshot.py", main))
