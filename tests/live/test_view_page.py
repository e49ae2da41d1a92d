"""The page to watch in a real browser."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("selenium", reason="needs selenium: pip install 'clip4str[dev]'")
from browser import PACKAGES, Browser

sys.path.append(str(Path(__file__).resolve().parents[1] / "video"))
from selenium.webdriver.common.keys import Keys
from viewing import QUAD, ended, found, frame, get, page, shown

from clip4str.video.events import Statistics
from clip4str.video.view import health

pytestmark = pytest.mark.debian(*PACKAGES)
WORDS = "#words tbody .word"
HOSTILE = [
    "<script>document.title = 'broken'</script>",
    "<img src=x onerror=\"document.title = 'broken'\">",
    "'\"><svg onload=document.title='broken'>",
    "${document.title = 'broken'}{{1+1}}",
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("downloads")) as browser:
        yield browser


@pytest.fixture
def open_page(browser):
    """open_page(view) -> the browser, on its page and connected; at the end nothing may have broken a policy."""

    def opened(view):
        browser.complaints()
        browser.look(1280, 900)
        browser.get(view.link)
        browser.until("#connection", "connected")
        return browser

    yield opened
    assert browser.complaints() == []


def test_words_appear_the_newest_first_with_the_picture_and_their_quads(open_page):
    with page() as view:
        view.show(0, frame(0), shown(1, "first"))
        view.write(found(1, "first"))
        browser = open_page(view)
        browser.until(WORDS, "first")
        view.write(ended(2, "second"))
        browser.until(WORDS, "second", "first")
        assert browser.texts("#words .until")[1] == "in view"
        browser.wait("document.querySelector('canvas').width === 80")
        browser.until("#labels span", "first")
        points = browser.find("polygon").get_attribute("points")
        assert [float(n) for n in re.split("[ ,]", points)] == QUAD.ravel().tolist()
        browser.wait("[...document.querySelectorAll('#words img')].every((image) => image.naturalWidth === 40)")
        for number in range(1, 4):  # pictures follow
            view.show(0, frame(number), shown(7, f"word {number}"))
            browser.until("#labels span", f"word {number}")


def test_words_are_filtered_by_text_by_source_and_by_what_is_in_view(open_page):
    with page("north", "south") as view:
        view.write(ended(1, "Market", 0))
        view.write(found(2, "Supermarket", 1))
        view.write(ended(3, "Hotel", 1))
        browser = open_page(view)
        browser.until(WORDS, "Hotel", "Supermarket", "Market")
        search = browser.find("#text")
        search.send_keys("MARK")
        browser.until(WORDS, "Supermarket", "Market")
        browser.until("#count", "2 of 3 words")
        view.write(found(4, "marks", 0))
        view.write(found(5, "other", 0))
        browser.until(WORDS, "marks", "Supermarket", "Market")
        browser.find("#source option[value='1']").click()
        browser.until(WORDS, "Supermarket")
        search.clear()
        search.send_keys("")
        browser.until(WORDS, "Hotel", "Supermarket")
        browser.find("#present").click()
        browser.until(WORDS, "Supermarket")
        search.send_keys("nothing such")
        browser.until(WORDS)
        assert browser.find("#empty").is_displayed()


def test_a_dead_stream_is_shown_as_dead_and_lives_again(open_page, monkeypatch):
    monkeypatch.setattr(health, "DEAD", 1.0)
    with page("north", "south") as view:
        view.show(0, frame(0), shown())
        browser = open_page(view)
        browser.wait("document.querySelector('#stage').dataset.state === 'dead'")
        assert browser.find("#notice").text.startswith("no picture for")
        assert browser.texts("#sources .badge")[0].startswith("dead for") and not browser.find("polygon").is_displayed()
        assert "grayscale" in browser.find("canvas").value_of_css_property("filter")
        assert browser.texts("#sources .badge")[1] == "waiting"
        monkeypatch.setattr(health, "DEAD", 60.0)
        view.show(0, frame(1), shown())
        browser.until("#sources .badge", "live", "waiting")
        browser.until("#notice", "")
        assert browser.find("canvas").value_of_css_property("filter") == "none"
        view.write(Statistics(0, ended=True))
        browser.until("#notice", "this source has ended")


def test_the_end_of_the_program_is_shown_and_its_next_start_is_noticed(open_page):
    view = page("north")
    view.show(0, frame(0), shown())
    view.write(ended(1, "before"))
    browser = open_page(view)
    browser.until(WORDS, "before")
    view.close()
    browser.until("#connection", "the program has ended")
    browser.until("#notice", "the program has ended")
    assert browser.find("#download").get_attribute("inert") is not None
    browser.until(WORDS, "before")
    with page("south", address=str(view.server.port)) as again:
        again.show(0, frame(0), shown(1, "after"))
        again.write(ended(1, "after"))
        browser.until("#connection", "connected")
        browser.until(WORDS, "after")
        browser.until("#labels span", "after")
        browser.until("#sources .name", "south")


def test_a_connection_that_breaks_goes_on_where_it_was(open_page):
    with page() as view:
        view.write(ended(1, "before"))
        browser = open_page(view)
        browser.until(WORDS, "before")
        browser.execute_script("document.querySelector('#words tbody tr').dataset.same = 'yes'")
        view.server._cut(lambda *_: True)  # as a router does
        view.write(ended(2, "meanwhile"))
        browser.until(WORDS, "meanwhile", "before")
        browser.until("#connection", "connected")
        assert browser.find("#words tbody tr:last-child").get_attribute("data-same") == "yes"  # not told anew


def test_hostile_words_stay_text(open_page):
    with page("<b onclick=x>north", "<script>document.title = 'broken'</script>") as view:
        for track, text in enumerate(HOSTILE, 1):
            view.write(found(track, text))
        view.show(0, frame(0), [shown(track, text)[0] for track, text in enumerate(HOSTILE, 1)])
        browser = open_page(view)
        browser.until(WORDS, *HOSTILE[::-1])
        browser.until("#labels span", *HOSTILE)
        browser.until("#sources .name", *view.board.names)
        assert browser.title == "clip4str"
        assert len(browser.find_elements("css selector", "script")) == 1
        assert not browser.find_elements("css selector", "b, td svg, [onerror], [onload], [onclick], [src=x]")


def test_the_policy_is_on(open_page):
    """What the tests above would have noticed."""
    with page() as view:
        browser = open_page(view)
        code = """const made = document.createElement('script'); made.textContent = "document.title = 'broken'";
                  document.body.append(made)"""
        refused = False
        try:
            browser.execute_script(code)
        except Exception:
            refused = True
        assert browser.title == "clip4str" and (refused or browser.complaints())
        browser.complaints()


def test_the_table_is_downloaded_as_csv(browser, open_page, tmp_path):
    with page() as view:
        view.write(ended(1, "=HYPERLINK(1)"))
        browser = open_page(view)
        browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
        browser.find("#download").click()
        file = tmp_path / "words.csv"
        while not file.exists():
            browser.wait("true")
        assert file.read_bytes() == get(view, "/words.csv")[2] and b"'=HYPERLINK" in file.read_bytes()


def test_the_token_lets_in_and_does_not_stay_in_the_address(open_page, browser):
    with page(address="0.0.0.0:0") as view:
        view.write(ended(1, "secret"))
        home = f"http://127.0.0.1:{view.server.port}/"
        for address in (home, f"{home}?token=wrong", f"{home}?token="):
            browser.get(address)
            assert "asks for its token" in browser.find("body").text and not browser.find_elements(
                "css selector", "main"
            )
        browser.get(home + "?" + view.link.partition("?")[2])
        assert browser.current_url == home
        browser.until(WORDS, "secret")
        browser.get(home)
        browser.until(WORDS, "secret")
        assert browser.execute_script("return document.cookie") == ""
    browser.until("#connection", "the program has ended")
    with page(address=f"0.0.0.0:{view.server.port}"):  # with another token
        browser.until("#connection", "not let in: open the address that clip4str printed")


def test_everything_can_be_reached_with_the_keyboard(open_page):
    with page("north", "south") as view:
        view.write(found(1, "one", 1))
        view.show(1, frame(0), shown(1, "one"))
        browser = open_page(view)
        browser.until(WORDS, "one")
        reached = []
        for _ in range(8):
            browser.switch_to.active_element.send_keys(Keys.TAB)
            active = browser.switch_to.active_element
            reached.append(active.get_attribute("id") or active.get_attribute("name") or active.text)
            if reached[-1] == "one":
                active.send_keys(Keys.ENTER)
                break
        assert reached == ["watched", "text", "source", "present", "download", "one"]
        browser.until("#labels span", "one")  # of the other source, which it has turned to
        browser.wait("document.querySelector('polygon').classList.contains('marked')")


def test_a_word_is_marked_in_the_picture_and_in_the_table(open_page):
    with page() as view:
        view.write(found(1, "same"))
        view.write(found(2, "same"))
        view.show(0, frame(0), shown(1, "same"))
        browser = open_page(view)
        browser.until("#labels span", "same")
        browser.execute_script("document.querySelector('polygon').dispatchEvent(new PointerEvent('pointerenter'))")
        marked = (
            "[...document.querySelectorAll('#words tbody tr')].map((row) => row.classList.contains('marked')).join()"
        )
        browser.wait(f"{marked} === 'false,true'")


@pytest.mark.parametrize("width", [320, 390, 768, 1280, 1920])
@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_phones_and_screens_by_day_and_by_night(open_page, width, dark):
    with page("rtsp://a-camera-with-a-long-name.example/streams/of/the/northern/gate/1", "south") as view:
        view.show(0, frame(0), shown())
        view.write(ended(1, "x" * 60))
        view.write(found(2, "word", 1))
        browser = open_page(view)
        browser.look(width, 800, dark)
        browser.until(WORDS, "word", "x" * 60)
        assert browser.execute_script("return document.scrollingElement.scrollWidth") <= width
        for colour in ("--ink", "--faint", "--good", "--fair", "--bad"):
            for ground in ("--panel", "--hover", "--ground"):
                assert contrast(browser, colour, ground) >= 4.5, (colour, ground)


def contrast(browser, *names):
    """Of two of the page's colours, as WCAG has it."""
    code = "return getComputedStyle(document.documentElement).getPropertyValue(arguments[0]).trim()"
    lights = []
    for name in names:
        value = browser.execute_script(code, name)
        parts = [int(value[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        lights.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(lights) + 0.05) / (min(lights) + 0.05)


def test_a_video_is_watched_while_it_is_read(browser, tmp_path):
    from street import film

    words = film(tmp_path / "street.avi", seconds=30)
    command = [sys.executable, "-m", "clip4str.core.cli", "video", "street.avi", "--live", "--view", "0", "--quiet",
               "--threads", "1"]  # fmt: skip
    browser.look(1280, 900)
    with subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as program:
        try:
            link = next(line.split()[-1] for line in program.stderr if line.startswith("watch at "))
            browser.get(link)
            browser.wait("document.querySelectorAll('#words tbody tr').length >= 3")
            browser.wait("document.querySelectorAll('polygon').length >= 3")
            browser.until("#sources .badge", "live")
            seen = {text.lower() for text in browser.texts(WORDS)}
            assert len(seen & words) >= 0.6 * len(seen)
            program.terminate()
            browser.until("#connection", "the program has ended")
            assert program.wait(30) == 143
        finally:
            program.kill()
        assert "Traceback" not in program.stderr.read()
