"""Headless Chromium for tests of pages."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
NEEDS_CHROMIUM = pytest.mark.skipif(
    not (CHROMIUM and DRIVER) and os.environ.get("OPENLUMIERE_REQUIRE_BROWSER") != "1",
    reason="needs Chromium and chromedriver, e.g.: apt-get install chromium chromium-driver",
)


def start_chromium(profile: Path, *more_flags: str, **logs: str) -> webdriver.Chrome:
    """Start a browser of its own.

    Args:
        more_flags: of its command line, beside `FLAGS`.
        logs: levels, by name, of the logs that are kept beside the console's.
    """
    assert CHROMIUM, "no Chromium; install it: apt-get install chromium chromium-driver"
    assert DRIVER, "no chromedriver; install it: apt-get install chromium chromium-driver"
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", **logs})
    for flag in (*FLAGS, *more_flags, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    return webdriver.Chrome(options=options, service=Service(DRIVER))
