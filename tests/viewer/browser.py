"""Headless Chromium with one page of OHIF: what a radiologist would see, as text and as pixels.

Nothing here sleeps for a fixed time: the browser tells when a text is there, and pixels are looked at until they hold.
"""

from __future__ import annotations

import io
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.pacs.peers import need
from tests.patience import PATIENCE_S

SIZE = {"width": 1600, "height": 950}
FLAGS = (
    "--no-sandbox",  # root in a container has none
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
    "--use-gl=angle",  # WebGL without a graphics card
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
    "--force-color-profile=srgb",
)
CRASHED = "Something went wrong"
PANE = '[data-cy="viewport-pane"]'
THUMBNAIL = '[data-cy^="study-browser-thumbnail"]'
CINE_PLAYER = '[data-cy="cine-player-close"] >> xpath=..'

Pixels = NDArray[np.uint8]


class Viewer:
    """One page; `errors` holds what the console and the page complained about since the last `open`."""

    def __init__(self, page: Any, address: str, version: str) -> None:
        self.page, self.address, self.version = page, address, version
        self.errors: list[str] = []
        self._listen()

    def open(self, study_instance_uid: str, series_instance_uid: str) -> None:
        """Open a study with one of its series in the viewport; once more where OHIF hangs before it lists a series."""
        query = f"StudyInstanceUIDs={study_instance_uid}&initialSeriesInstanceUID={series_instance_uid}"
        for is_last in (False, True):
            self.page.goto("about:blank")
            self.errors.clear()
            most_ms = PATIENCE_S * (1000 if is_last else 500)
            try:
                self.page.goto(f"{self.address}/viewer?{query}", wait_until="load", timeout=most_ms)
                self.page.locator(THUMBNAIL).first.wait_for(timeout=most_ms)
                return
            except need_playwright().TimeoutError:
                assert not is_last, f"OHIF lists no series, and says {self.errors}"
                hung, self.page = self.page, self.page.context.browser.new_page(viewport=SIZE)
                hung.close()
                self._listen()

    def _listen(self) -> None:
        self.page.set_default_timeout(PATIENCE_S * 1000)
        self.page.add_init_script("localStorage.setItem('shownTours', JSON.stringify(['basicViewerTour']))")
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)

    def wait_for_text(self, text: str) -> str:
        """All text of the viewport, once it shows `text`."""
        self.page.locator(PANE).get_by_text(text).first.wait_for()
        return str(self.page.locator(PANE).first.inner_text())

    def wait_for_pixels(self, shows: Callable[[Pixels], object]) -> Pixels:
        """RGB of the viewport, shape (rows, cols, 3), once it holds what is asked."""
        deadline = time.monotonic() + PATIENCE_S
        while not shows(seen := self.pixels()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"never in the viewport: {shows.__name__}")
            self.page.wait_for_timeout(250)  # lets the page's own events run, as sleep would not
        return seen

    def pixels(self) -> Pixels:
        """RGB of the viewport as it is now."""
        return _decoded(self.page.locator(PANE).first.screenshot())

    def screenshot(self) -> Image.Image:
        """Take the whole window."""
        return Image.fromarray(_decoded(self.page.screenshot()))

    def crashed(self) -> bool:
        return bool(self.page.get_by_text(CRASHED).count() > 0)

    def has_player(self) -> bool:
        """Whether the cine player is there, which OHIF opens by itself over a Modality of OT."""
        return bool(self.page.locator(CINE_PLAYER).count() > 0)

    def tidy(self) -> None:
        """Close OHIF's question about tracking and wait for both thumbnails: for a screenshot, not for a test."""
        for answer in self.page.get_by_role("button", name="No", exact=True).all():
            answer.click()
        self.page.locator(f"{THUMBNAIL} img").nth(1).wait_for()

    def series_list(self) -> list[str]:
        """What the study browser says of each series."""
        return [str(text).replace("\n", " ") for text in self.page.locator(THUMBNAIL).all_inner_texts()]


def need_browser() -> Any:
    """Playwright; skips, naming the package, where it or the browser is missing."""
    need("chromium")
    return need_playwright()


def need_playwright() -> Any:
    """Playwright; skips where it is missing."""
    return pytest.importorskip("playwright.sync_api", reason="playwright is missing: pip install -e '.[test]'")


@contextmanager
def chromium() -> Iterator[Any]:
    """Start a browser."""
    with need_browser().sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


def _decoded(png: bytes) -> Pixels:
    with Image.open(io.BytesIO(png)) as picture:
        return np.asarray(picture.convert("RGB"))
