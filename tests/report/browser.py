"""A headless Chromium that opens pages and says what it did; tests are skipped where it lacks."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
OWN_SCHEMES = ("file:", "data:", "chrome:")


@contextmanager
def started(profile: Path) -> Iterator[Browser]:
    """A browser with a fresh profile; skips if there is none."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip(
            "no browser: install chromium and chromedriver (Debian: chromium chromium-driver)"
        )
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(executable_path=driver)
    chrome = webdriver.Chrome(options=options, service=service)
    try:
        yield Browser(chrome)
    finally:
        chrome.quit()


class Browser:
    """What the tests ask of Chromium."""

    def __init__(self, chrome: Any) -> None:
        self.chrome = chrome

    def open(self, path: Path, width: int = 1280, height: int = 900, scheme: str = "light") -> None:
        """Show a page at this size and in this colour scheme, its logs emptied before."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1}
        phone = width < 500
        self.command("Emulation.setDeviceMetricsOverride", mobile=phone, **metrics)
        self.command("Emulation.setTouchEmulationEnabled", enabled=phone)
        self.emulate("", scheme)
        self.logs()
        self.chrome.get(path.as_uri())

    def emulate(self, media: str, scheme: str = "light") -> None:
        wanted = {"name": "prefers-color-scheme", "value": scheme}
        self.command("Emulation.setEmulatedMedia", media=media, features=[wanted])

    def command(self, name: str, **arguments: Any) -> Any:
        return self.chrome.execute_cdp_cmd(name, arguments)

    def run(self, script: str, *arguments: Any) -> Any:
        """The value of a script that returns."""
        return self.chrome.execute_script(script, *arguments)

    def text(self, selector: str) -> str:
        """Text of the first element that fits, blanks made one; empty if there is none."""
        found = self.run("return document.querySelector(arguments[0])?.textContent", selector)
        return " ".join((found or "").split())

    def texts(self, selector: str) -> list[str]:
        script = "return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent)"
        return [" ".join(text.split()) for text in self.run(script, selector)]

    def count(self, selector: str) -> int:
        script = "return document.querySelectorAll(arguments[0]).length"
        return int(self.run(script, selector))

    def middle(self, selector: str) -> tuple[float, float]:
        """The middle of an element in the window, after scrolling to it."""
        script = """const e = document.querySelector(arguments[0]);
            e.scrollIntoView({block: "center"});
            const b = e.getBoundingClientRect();
            return [b.left + b.width / 2, b.top + b.height / 2];"""
        x, y = self.run(script, selector)
        return x, y

    def hover(self, selector: str) -> None:
        x, y = self.middle(selector)
        self.command("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def click(self, selector: str) -> None:
        x, y = self.middle(selector)
        press = {"x": x, "y": y, "button": "left", "clickCount": 1}
        self.command("Input.dispatchMouseEvent", type="mousePressed", **press)
        self.command("Input.dispatchMouseEvent", type="mouseReleased", **press)

    def tap(self, selector: str) -> None:
        x, y = self.middle(selector)
        self.command("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": x, "y": y}])
        self.command("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
        # The click follows in the next frames.
        self.chrome.execute_async_script(
            "requestAnimationFrame(() => setTimeout(arguments[0], 80))"
        )

    def press(self, *keys: str) -> None:
        """Real key presses to whatever has the focus."""
        webdriver.ActionChains(self.chrome, duration=0).send_keys(*keys).perform()

    def logs(self) -> list[str]:
        """Everything the console said since last asked; also empties the other log."""
        self.requests()
        return [entry["message"] for entry in self.chrome.get_log("browser")]

    def requests(self) -> list[str]:
        """Addresses asked for since last asked."""
        asked = []
        for entry in self.chrome.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                asked.append(message["params"]["request"]["url"])
        return asked

    def foreign_requests(self) -> list[str]:
        return [url for url in self.requests() if not url.startswith(OWN_SCHEMES)]

    def screenshot(self) -> bytes:
        return base64.b64decode(self.command("Page.captureScreenshot", format="png")["data"])
