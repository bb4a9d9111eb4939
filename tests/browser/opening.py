"""Pages opened from the disk in headless Chromium: what they look like, what they ask for, what they complain of."""

from __future__ import annotations

import base64
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

WINDOW = (1280, 1000)


def lacking() -> str:
    """What is not here that these tests need, with the mend; "" where all is."""
    missing = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    return f"needs {' and '.join(missing)}: apt-get install chromium chromium-driver" if missing else ""


@contextmanager
def open_browser(profile: Path, downloads: Path | None = None) -> Iterator[Browser]:
    """A browser of its own. profile: an empty folder; downloads: where files are saved without asking."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "hide-scrollbars", "disable-extensions",
                 "disable-background-networking", "disable-component-update", "disable-sync", "no-first-run",
                 f"user-data-dir={profile}", f"window-size={WINDOW[0]},{WINDOW[1]}"):  # fmt: skip
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    if downloads is not None:
        options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    driver = webdriver.Chrome(options, service)
    try:
        yield Browser(driver, downloads)
    finally:
        driver.quit()


class Browser:
    """driver: selenium's. downloads: where it saves files."""

    def __init__(self, driver: Any, downloads: Path | None = None) -> None:
        self.driver = driver
        self.downloads = downloads

    def open(self, page: Path, fragment: str = "") -> None:
        self.said()
        self.asked()
        self.driver.get(page.resolve().as_uri() + fragment)

    def said(self) -> list[str]:
        """What the console holds since the last look: errors of scripts, refusals of the page's policy."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def asked(self) -> list[str]:
        """Every address that was asked for since the last look."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def texts(self, selector: str) -> list[str]:
        return list(self.run("return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent)", selector))

    def choose(self, selector: str, value: str) -> None:
        """As if somebody had set the field of a form."""
        told = "const e = document.querySelector(arguments[0]); e.value = arguments[1];"
        told += "e.dispatchEvent(new Event('input', {bubbles: true}))"
        self.run(told, selector, value)

    def press(self, *keys: str) -> None:
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def look(self, width: int = WINDOW[0], *, dark: bool = False, printed: bool = False) -> None:
        """Show the page so, from now on."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print" if printed else "", "features": [scheme]})
        size = {"width": width, "height": WINDOW[1], "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def shoot(self, file: Path, most: int = 4000) -> None:
        """The whole page as a PNG, at most so many pixels of it."""
        height = self.run("return document.documentElement.scrollHeight")
        width = self.run("return document.documentElement.clientWidth")
        clip = {"x": 0, "y": 0, "width": width, "height": min(height, most), "scale": 1}
        told = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"clip": clip, "captureBeyondViewport": True})
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(base64.b64decode(told["data"]))


def screenshots() -> Path | None:
    """Where pictures are kept: HARNESS_SCREENSHOTS; None: nowhere."""
    named = os.environ.get("HARNESS_SCREENSHOTS")
    return Path(named) if named else None


def wait_for(found: Any, seconds: float = 5.0) -> Any:
    """What `found()` gives, as soon as it gives something."""
    end = time.monotonic() + seconds
    while not (value := found()) and time.monotonic() < end:
        time.sleep(0.05)
    return value
