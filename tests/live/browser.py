"""A headless Chromium of Debian's, driven by its chromedriver."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.support.ui import WebDriverWait

PACKAGES = ("chromium", "chromium-driver")


class Browser(webdriver.Chrome):
    """downloads: the folder that files are saved to. more: options of Chromium's."""

    def __init__(self, downloads: Path | None = None, *more: str) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or "chromium"
        for option in ("--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--force-device-scale-factor=1",
                       *more):  # fmt: skip
            options.add_argument(option)
        if os.geteuid() == 0:
            options.add_argument("--no-sandbox")  # Chromium has none for root
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        super().__init__(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
        if downloads is not None:
            how = {"behavior": "allow", "downloadPath": str(downloads)}
            self.execute_cdp_cmd("Browser.setDownloadBehavior", how)

    def __exit__(self, *_: object) -> None:
        self.quit()

    def look(self, width: int, height: int, dark: bool = False) -> None:
        """A screen of that size."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})

    def find(self, selector: str) -> webdriver.remote.webelement.WebElement:
        return self.find_element("css selector", selector)

    def texts(self, selector: str) -> list[str]:
        """Of all that are there, hidden ones too, at one moment."""
        code = "return [...document.querySelectorAll(arguments[0])].map((each) => each.textContent)"
        return list(self.execute_script(code, selector))

    def until(self, selector: str, *texts: str) -> None:
        """Waits until those are the texts that the selector finds."""
        try:
            WebDriverWait(self, 30, 0.05).until(lambda _: self.texts(selector) == list(texts))
        except Exception:
            raise AssertionError(f"{selector}: {self.texts(selector)}, not {list(texts)}") from None

    def wait(self, code: str) -> None:
        """Until that JavaScript is true."""
        WebDriverWait(self, 30, 0.05).until(lambda _: self.execute_script(f"return {code}"))

    def complaints(self) -> list[str]:
        """What the console says of policies and scripts since the last call; not of a server that is gone."""
        said = [entry["message"] for entry in self.get_log("browser")]
        return [line for line in said if "Failed to load resource" not in line and "net::ERR" not in line]
