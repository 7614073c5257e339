"""A picture of a page of `vtc run --html` or `vtc compare --html`, taken by Debian's chromium.

Run: python docs/page_picture.py page.html docs/page.png
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

CHROMIUM, DRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"
SIZE = 1280, 1360
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--hide-scrollbars",
    f"--window-size={SIZE[0]},{SIZE[1]}",
)


def main() -> None:
    """Open the page, point at the middle patch of a run and save what is seen."""
    page, picture = map(Path, sys.argv[1:3])
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    with tempfile.TemporaryDirectory() as profile:
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        driver = webdriver.Chrome(options=options, service=Service(DRIVER))
        try:
            driver.set_window_rect(width=SIZE[0], height=SIZE[1])
            driver.get(page.resolve().as_uri())
            for grid in driver.find_elements(By.CSS_SELECTOR, "[role=grid]"):  # of a run
                grid.click()
            driver.save_screenshot(str(picture))
        finally:
            driver.quit()


if __name__ == "__main__":
    main()
