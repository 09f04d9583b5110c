"""A page in a headless browser: Debian's Chromium, driven by Playwright, without a network.

Where no Chromium is installed the tests that need one are skipped: `chromium()` says so.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@dataclass
class OpenPage:
    """A page that is open, and what it did that it should not.

    Attributes:
        tab: Playwright's page.
        complaints: errors and warnings of the console, and exceptions.
        requests: what was asked for beside files and data.
    """

    tab: Any
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def show(self, figure: str) -> Any:
        """The drawing of a figure, scrolled to and drawn."""
        drawing = self.tab.locator(f"#figure-{figure} svg.marks")
        self.tab.locator(f"#figure-{figure}").scroll_into_view_if_needed()
        drawing.wait_for()
        return drawing

    def path(self, figure: str, line: int = -1) -> str:
        """The path of a line of a figure, the last one where nothing is said."""
        paths = self.show(figure).locator("g.mark-line path").all()
        return str(paths[line].get_attribute("d"))

    def slide(self, signal: str, value: float) -> None:
        """Move the slider of a signal, as a user does who drags it."""
        slider = self.tab.locator(f"input[data-signal={signal}]")
        slider.fill(str(value))
        self.settle()

    def settle(self) -> None:
        """Wait until the figures that are drawn are up to date."""
        self.tab.evaluate("Promise.all(Object.values(views).map((view) => view.runAsync())).then(() => null)")

    def draw_all(self) -> None:
        """Draw every figure, as scrolling through the page would."""
        for figure in self.tab.locator("figure[id]").all():
            self.show(str(figure.get_attribute("id")).removeprefix("figure-"))
        self.settle()

    def violations(self) -> list[str]:
        """What axe-core finds of impact serious or critical."""
        from axe_playwright_python.sync_playwright import Axe

        found = Axe().run(self.tab).response["violations"]
        return [
            f"{one['id']}: {one['help']}: {one['nodes'][0]['html'][:200]}"
            for one in found
            if one["impact"] in ("serious", "critical")
        ]

    def overflow_px(self) -> int:
        """By how much the page is wider than the window."""
        return int(self.tab.evaluate("document.documentElement.scrollWidth - innerWidth"))


@contextmanager
def chromium() -> Iterator[Any]:
    """A headless browser, or the reason to skip the test."""
    playwright = pytest.importorskip("playwright.sync_api")
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"none of {', '.join(NAMES)} is installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=OPTIONS)
        yield browser
        browser.close()


@contextmanager
def opened(browser: Any, file: Path, *, width_px: int = 1300, theme: str = "light") -> Iterator[OpenPage]:
    """The file as a page of that width; at the end it must have neither complained nor asked for anything."""
    context = browser.new_context(
        viewport={"width": width_px, "height": 900}, color_scheme=theme, reduced_motion="reduce", offline=True
    )
    tab = context.new_page()
    page = OpenPage(tab)
    tab.on("console", lambda message: message.type in ("error", "warning") and page.complaints.append(message.text))
    tab.on("pageerror", lambda error: page.complaints.append(str(error)))
    tab.on("request", lambda one: one.url.startswith(("file:", "data:")) or page.requests.append(one.url))
    tab.goto(file.resolve().as_uri())
    yield page
    context.close()
    assert page.complaints == []
    assert page.requests == []
