"""Draws docs/web.png: python tests/examples/web_screenshot.py docs/web.png, after make test-examples."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "live"))
from examples_run import FOLDER
from PIL import Image
from test_web_example import CARD, Served, browser_or_skip, ready, wait

from clip4str.core.console import Parser, run_script
from clip4str.core.output_files import check_output

ROWS = 3


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="tests/examples/web_screenshot.py", description=__doc__)
    parser.add_argument("output", type=Path)
    o = parser.parse_args(argv)
    check_output(o.output)
    server = Served(FOLDER / "web")
    with browser_or_skip() as browser:
        browser.look(1160, 1000)
        browser.execute_cdp_cmd("Emulation.setScrollbarsHidden", {"hidden": True})
        browser.get(server.link)
        ready(browser)
        browser.find("#samples").click()
        wait(browser, f"document.querySelectorAll('{CARD}').length === 32")
        browser.execute_script("document.activeElement.blur()")
        browser.find("h1").click()  # the pointer away from the buttons
        bottom = browser.execute_script(
            "return document.querySelectorAll('.card')[arguments[0]].getBoundingClientRect().bottom", 4 * ROWS - 1
        )
        picture = Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")
    server.shutdown()
    picture.crop((0, 0, picture.width, round(bottom) + 14)).save(o.output, optimize=True)
    return 0


if __name__ == "__main__":
    sys.exit(run_script("tests/examples/web_screenshot.py", main))
