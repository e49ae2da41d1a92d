"""examples/web in a real Chromium: the words, what is loaded, what is sent (nothing), names that are markup, keys."""

from __future__ import annotations

import functools
import http.server
import json
import os
import shutil
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip("selenium", reason="needs selenium: pip install 'clip4str[dev]'")
sys.path.append(str(Path(__file__).resolve().parents[1] / "live"))
from browser import Browser
from examples_run import REQUIRED
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

MOST = 20_000_000  # bytes that a visitor loads
CARD = "#words .card[data-state]"
HOSTILE = "<img src=x onerror=\"document.title='broken'\">.png"


class Served(http.server.ThreadingHTTPServer):
    """A folder; `sent` counts bytes by path, heads included, and `asked` who wanted what."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
        self.sent: Counter[str] = Counter()
        self.asked: list[str] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def link(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"


class Handler(http.server.SimpleHTTPRequestHandler):
    server: Served

    def do_GET(self) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        out, path, sent = self.wfile, self.path, self.server.sent

        class Counting:
            def write(self, data: bytes) -> int:
                sent[path] += len(data)
                return out.write(data)

            flush = out.flush

        self.wfile = Counting()
        super().do_GET()
        self.wfile = out

    do_POST = do_PUT = do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def served(needs):
    server = Served(needs("web"))
    yield server
    server.shutdown()


def browser_or_skip(*options: str) -> Browser:
    if shutil.which("chromium") is None or shutil.which("chromedriver") is None:
        (pytest.fail if REQUIRED else pytest.skip)("needs Chromium: apt-get install chromium chromium-driver")
    return Browser(None, *options)


@pytest.fixture(scope="module")
def browser():
    with browser_or_skip() as browser:
        browser.look(1240, 900)
        yield browser


@pytest.fixture
def page(browser, served):
    """The page, ready. At the end nothing may have broken the policy."""
    browser.complaints()
    browser.get(served.link)
    ready(browser)
    yield browser
    assert browser.complaints() == []


def ready(browser: Browser) -> None:
    wait(browser, "document.getElementById('status').textContent.startsWith('Ready')")


def wait(browser: Browser, code: str, seconds: float = 120) -> None:
    try:
        WebDriverWait(browser, seconds, 0.1).until(lambda _: browser.execute_script(f"return {code}"))
    except Exception:
        raise AssertionError(f"never {code}; {browser.texts('#status')}, {browser.complaints()}") from None


def give(browser: Browser, *paths: Path) -> None:
    browser.find("#files").send_keys("\n".join(map(str, paths)))


def drop(browser: Browser, content: bytes, name: str) -> None:
    code = """
        const [bytes, name] = arguments;
        const transfer = new DataTransfer();
        transfer.items.add(new File([new Uint8Array(bytes)], name));
        document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
    """
    browser.execute_script(code, list(content), name)


def cards(browser: Browser, count: int) -> list[str]:
    """Their words, once there are so many."""
    wait(browser, f"document.querySelectorAll('{CARD}').length === {count}")
    return browser.texts(f"{CARD} .word")


def test_sample_words_are_recognizers_and_little_is_loaded(browser, served, crops, words):
    served.sent.clear()
    browser.execute_cdp_cmd("Network.setCacheDisabled", {"cacheDisabled": True})
    browser.get(served.link)
    ready(browser)
    network = sum(served.sent.values())
    browser.find("#samples").click()
    found = cards(browser, len(crops))
    assert dict(zip(browser.texts(f"{CARD} .name"), found)) == {c.name: w.text for c, w in zip(crops, words)}
    percent = [float(text.split()[0]) for text in browser.texts(f"{CARD} .percent")]
    by_name = dict(zip(browser.texts(f"{CARD} .name"), percent))
    for crop, word in zip(crops, words):
        assert by_name[crop.name] == pytest.approx(100 * word.confidence, abs=1)
    print(f"\nloaded: {network:,} bytes before a picture, {sum(served.sent.values()):,} with the sample words")
    assert 5_000_000 < network < sum(served.sent.values()) < MOST
    assert browser.complaints() == []


def test_files_are_read_and_nothing_leaves(page, served, crops, words):
    asked = len(served.asked)
    give(page, crops[0], crops[3])
    assert sorted(cards(page, 2)) == sorted([words[0].text, words[3].text])
    assert served.asked[asked:] == []
    origins = "performance.getEntriesByType('resource').map((entry) => new URL(entry.name).origin)"
    assert set(page.execute_script(f"return {origins}")) == {served.link.rstrip("/")}
    shown = "document.querySelector('.card canvas').width"
    with Image.open(crops[0]) as crop:
        assert page.execute_script(f"return {shown}") in {crop.width, Image.open(crops[3]).width}


def test_neither_the_page_nor_its_worker_reaches_another_place(browser, served, tmp_path):
    elsewhere = Served(tmp_path)
    browser.get(served.link)
    ready(browser)
    code = """
        const [link, done] = arguments;
        const worker = new Worker(URL.createObjectURL(new Blob([
            `fetch("${link}worker").then(() => postMessage("sent"), () => postMessage("refused"))`
        ]), { type: "module" }));
        worker.onmessage = async ({ data }) =>
            done([data, await fetch(link + "page").then(() => "sent", () => "refused")]);
    """
    assert browser.execute_async_script(code, elsewhere.link) == ["refused", "refused"]
    assert elsewhere.asked == []
    assert any("Content Security Policy" in line for line in browser.complaints())
    elsewhere.shutdown()


def test_names_and_words_stay_text(page, crops, words, tmp_path):
    path = tmp_path / HOSTILE
    shutil.copyfile(crops[0], path)
    give(page, path)
    assert cards(page, 1) == [words[0].text] and page.texts(f"{CARD} .name") == [HOSTILE]
    drop(page, b"no picture", HOSTILE)
    wait(page, "document.getElementById('status').classList.contains('bad')")
    assert HOSTILE in page.texts("#status")[0] and page.title.startswith("clip4str")
    assert page.execute_script("return document.querySelectorAll('img').length") == 0


def test_a_word_that_is_markup_stays_text(browser, served, crops):
    """Charsets have < and >. The worker is made to answer so."""
    code = f"""
        const Real = Worker, word = {json.dumps(HOSTILE)};
        window.Worker = class extends Real {{
            set onmessage(then) {{
                super.onmessage = ({{ data }}) => {{
                    if (data.found?.word !== undefined) data.found.word = word;
                    then({{ data }});
                }};
            }}
        }};
    """
    script = browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": code})
    browser.get(served.link)
    ready(browser)
    give(browser, crops[0])
    assert cards(browser, 1) == [HOSTILE]
    assert browser.execute_script("return document.querySelectorAll('img').length") == 0
    assert browser.title.startswith("clip4str") and browser.complaints() == []
    browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)


def test_a_dropped_picture_is_read(page, crops, words):
    drop(page, crops[1].read_bytes(), "b.jpg")
    assert cards(page, 1) == [words[1].text]


def photo(crop: Path, folder: Path) -> Path:
    """A crop within a picture too large to be one, where the box is at first."""
    with Image.open(crop) as image:
        word = image.convert("RGB").resize((720, 216))
    whole = Image.new("RGB", (1200, 720), "#888888")
    whole.paste(word, (240, 252))
    whole.save(folder / "photo.png")
    return folder / "photo.png"


def test_a_word_in_a_photo_is_marked_by_keys(page, crops, words, tmp_path):
    give(page, photo(crops[0], tmp_path))
    wait(page, "document.getElementById('marking').open")
    assert page.execute_script("return document.activeElement.id") == "box"
    box = page.find("#box")
    before = page.execute_script("return document.getElementById('box').style.left")
    box.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_LEFT, Keys.SHIFT + Keys.ARROW_DOWN)
    box.send_keys(Keys.SHIFT + Keys.ARROW_UP)
    assert page.execute_script("return document.getElementById('box').style.left") == before
    box.send_keys(Keys.ENTER)
    assert cards(page, 1) == [words[0].text]
    size = "return [document.querySelector('.card canvas').width, document.querySelector('.card canvas').height]"
    assert page.execute_script(size) == [720, 216]


def test_everything_is_reached_by_keys(page):
    page.execute_script("document.activeElement.blur()")
    seen = []
    for _ in range(6):
        ActionChains(page).send_keys(Keys.TAB).perform()  # to the page: a file input takes keys for a path
        seen.append(page.execute_script("return document.activeElement.id"))
    assert [name for name in seen if name][:3] == ["files", "camera", "samples"]
    page.find("#samples").send_keys(Keys.ENTER)
    wait(page, f"document.querySelectorAll('{CARD}').length > 0")


def test_a_camera_is_read(served, crops, words, tmp_path):
    """Chromium's stand-in for a camera, showing a crop."""
    film = tmp_path / "film.mjpeg"
    with Image.open(photo(crops[0], tmp_path)) as picture:
        picture.save(tmp_path / "frame.jpg", quality=95)
    film.write_bytes((tmp_path / "frame.jpg").read_bytes() * 4)
    options = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
               f"--use-file-for-fake-video-capture={film}")  # fmt: skip
    with browser_or_skip(*options) as browser:
        browser.get(served.link)
        ready(browser)
        browser.find("#camera").click()
        wait(browser, "document.getElementById('video').videoWidth > 0")
        asked = len(served.asked)
        browser.find("#shoot").click()
        browser.find("#read").click()
        assert cards(browser, 1) == [words[0].text] and served.asked[asked:] == []
        wait(browser, "document.getElementById('video').srcObject === null")
        assert browser.complaints() == []


@pytest.mark.skipif(not os.environ.get("CLIP4STR_WEBGPU"), reason="minutes on a processor: CLIP4STR_WEBGPU=1")
def test_webgpu_reads_the_same_word(served, crops, words):
    """On SwiftShader, which has no GPU: slow, but WebGPU's own path."""
    options = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan,WebGPU",
               "--use-vulkan=swiftshader")  # fmt: skip
    with browser_or_skip(*options) as browser:
        browser.get(served.link)
        ready(browser)
        browser.find("#gpu").click()
        wait(browser, "document.getElementById('status').textContent.includes('the GPU')", 300)
        give(browser, crops[0])
        wait(browser, f"document.querySelectorAll('{CARD}').length === 1", 500)
        assert browser.texts(f"{CARD} .word") == [words[0].text]
