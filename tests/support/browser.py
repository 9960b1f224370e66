"""A headless Chromium that looks at the status page; Debian's, nothing is downloaded."""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from tests.support.oracle import wait_until

DESKTOP = (1280, 900)
PHONE = (360, 740)


class Browser:
    """A page in Chromium, by the ids of its elements."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, url: str, size: tuple[int, int] = DESKTOP, scheme: str = "light") -> None:
        """Load a page, as on a screen of this size in CSS pixels, with the user's choice of a colour scheme."""
        self.resize(size)
        self.prefer(scheme)
        self.driver.get(url)

    def resize(self, size: tuple[int, int]) -> None:
        """Change the size of the screen."""
        metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size == PHONE}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def prefer(self, scheme: str) -> None:
        """Have the user prefer `light` or `dark`, and little motion."""
        features = [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def element(self, name: str) -> WebElement:
        """Return the element with an id."""
        return self.driver.find_element(By.ID, name)

    def text(self, name: str) -> str:
        """Return the text of an element, hidden or not."""
        return self.script("return document.getElementById(arguments[0]).textContent", name)

    def script(self, text: str, *arguments: Any) -> Any:
        """Run a script in the page, and return what it returns."""
        return self.driver.execute_script(text, *arguments)

    def wait_for_text(self, name: str, wanted: str, seconds: float = 60.0) -> None:
        """Wait until an element has a text in it."""
        try:
            wait_until(lambda: wanted in self.text(name), f"{wanted!r} in #{name}", seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}; it has {self.text(name)!r}") from None

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """Write what is seen, or the whole page, as PNG."""
        options = {"format": "png", "captureBeyondViewport": whole, "optimizeForSpeed": False}
        if whole:
            size = self.driver.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
            options["clip"] = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        path.write_bytes(base64.b64decode(self.driver.execute_cdp_cmd("Page.captureScreenshot", options)["data"]))


@contextlib.contextmanager
def chromium(directory: Path) -> Iterator[Browser]:
    """Run Chromium with a profile in the directory; the test is skipped where it is not installed."""
    program, driver_program = shutil.which("chromium"), shutil.which("chromedriver")
    if program is None or driver_program is None:
        pytest.skip("chromium and its driver are not installed; `make brokers` installs them on Debian")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in (
        "--headless=new",
        "--no-sandbox",  # root, as in a container, cannot have one; the pages are our own
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--hide-scrollbars",
        "--disable-background-networking",
        "--disable-component-update",
        "--no-first-run",
        f"--user-data-dir={directory / 'profile'}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = Service(
        driver_program, log_output=str(directory / "chromedriver.log"), env={**os.environ, "SE_OFFLINE": "true"}
    )
    driver = webdriver.Chrome(options, service)
    try:
        yield Browser(driver)
    finally:
        driver.quit()
