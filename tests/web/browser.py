"""A headless Chromium, with what tests look for on a page."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self, TypeVar

import pytest
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver import Chrome, ChromeOptions, Keys
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

__all__ = ["Browser", "chromium"]

NEEDED = "POSTHOUSE_NEEDS_CHROMIUM"

_SECONDS = 60.0
"""The longest that a page may take on a loaded machine."""

T = TypeVar("T")


def _programs() -> tuple[str, str]:
    found = shutil.which("chromium"), shutil.which("chromedriver")
    if found[0] is None or found[1] is None:
        assert NEEDED not in os.environ, "chromium or chromedriver is missing"
        pytest.skip("chromium and chromium-driver, Debian's packages, are not installed")
    return found[0], found[1]


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run a browser within a block; without one, the test is skipped."""
    binary, driver = _programs()
    options = ChromeOptions()
    options.binary_location = binary
    for argument in (
        "headless=new",
        "no-sandbox",
        "disable-gpu",
        "disable-dev-shm-usage",
        "hide-scrollbars",
        "disable-lcd-text",
    ):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    options.set_capability("unhandledPromptBehavior", "ignore")
    chrome = Chrome(options=options, service=Service(driver))
    try:
        yield Browser(chrome)
    finally:
        chrome.quit()


class Browser:
    """One window."""

    def __init__(self, chrome: Chrome) -> None:
        self.chrome = chrome
        self.size()

    def size(self, width: int = 1100, height: int = 800) -> Self:
        """Let pages have a size, as on a screen of that size."""
        self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )
        return self

    def command(self, name: str, **parameters: Any) -> Any:
        """Send a command of Chrome's DevTools protocol."""
        return self.chrome.execute_cdp_cmd(name, parameters)

    def open(self, address: str) -> Self:
        """Open a page, and wait until it is there."""
        self.chrome.get(address)
        return self

    def wait(self, look: Callable[[], T]) -> T:
        """Wait until something is true; an element may be replaced by a live page meanwhile."""
        waiting = WebDriverWait(self.chrome, _SECONDS, 0.05, [StaleElementReferenceException])
        return waiting.until(lambda _: look())

    def all(self, selector: str) -> list[WebElement]:
        """Return the elements that a selector means."""
        return self.chrome.find_elements("css selector", selector)

    def one(self, selector: str) -> WebElement:
        """Wait for an element, and return it."""
        return self.wait(lambda: next(iter(self.all(selector)), None))  # type: ignore[return-value]

    def text(self, selector: str = "main") -> str:
        """Return the text that a person sees in an element."""
        return self.wait(lambda: self.one(selector).text or " ").strip()

    def see(self, text: str, selector: str = "main") -> None:
        """Wait until a person sees a text."""
        self.wait(lambda: text in self.one(selector).text)

    def click(self, selector: str) -> None:
        """Click on an element."""

        def clicked() -> bool:
            self.one(selector).click()
            return True

        self.wait(clicked)

    def row(self, text: str) -> str:
        """Wait for the row of a table with a text, and return all of it."""
        return self.wait(lambda: next((each.text for each in self.all("tr, li") if text in each.text), ""))

    def fact(self, name: str) -> int:
        """Return a number that the page shows by its name."""
        [found] = [each for each in self.all(".facts div") if each.text.startswith(f"{name}\n")]
        return int(found.text.partition("\n")[2].replace(",", ""))

    def press(self, *keys: str) -> None:
        """Press keys, one after another."""
        for key in keys:
            self.chrome.switch_to.active_element.send_keys(key)

    def focused(self) -> str:
        """Return the text of what has the focus."""
        return self.chrome.switch_to.active_element.text

    def live(self) -> None:
        """Wait until the page is kept up to date."""
        self.see("This page is live.", "footer")

    def script(self, text: str) -> Any:
        """Run a script of the test's."""
        return self.chrome.execute_script(text)

    def faults(self) -> list[str]:
        """Return what the browser complained of since the last look, as scripts that were not allowed."""
        return [entry["message"] for entry in self.chrome.get_log("browser")]  # type: ignore[no-untyped-call]


TAB = Keys.TAB
