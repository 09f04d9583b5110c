"""The slider over time, in a browser: by the keyboard alone, without errors, requests or barriers."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from architecture_runs import CONV, theta_run
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, sync_playwright

from ssl_adapt.page.cells_section import cells_section
from ssl_adapt.page.write_page import render_page

CHROMIUM = Path("/usr/bin/chromium")
pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Debian's Chromium")


pytestmark = pytest.mark.slow  # a browser; test_page_in_browser.py has the fast ones


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """The page of a run in a narrow window; what it complains about is collected in `page.complaints`."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "report.html").write_text(render_page("a run", [cells_section(theta_run(folder / "run"))]))
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        page = browser.new_page(viewport={"width": 420, "height": 900})
        page.complaints = []  # type: ignore[attr-defined]
        page.on("console", lambda message: page.complaints.append(message.text))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.on(
            "request", lambda request: request.url.startswith(("file:", "data:")) or page.complaints.append(request.url)
        )
        page.goto((folder / "report.html").as_uri())
        for chart in page.query_selector_all("[data-chart]"):
            chart.scroll_into_view_if_needed()
        page.wait_for_function("document.querySelectorAll('[data-chart]:empty').length === 0")
        page.wait_for_function("Object.keys(views).length === document.querySelectorAll('[data-chart]').length")
        yield page
        browser.close()


def test_arrow_keys_walk_through_time_and_the_menu_through_cells(page: Page) -> None:
    texts = "() => [...document.querySelectorAll('#figure-edges-theta svg text')].map((text) => text.textContent)"
    slider = page.locator("#figure-edges-theta input[type=range]")
    menu = page.locator("#figure-edges-theta select")
    assert "none  +0.40" in page.evaluate(texts)
    slider.press("ArrowLeft")
    assert slider.input_value() == "30"
    page.wait_for_function(f"({texts})().includes('none  +0.30')")
    slider.press("End")
    page.wait_for_function(f"({texts})().includes('none → identity')")
    menu.select_option(CONV.rpartition(".")[0])
    page.wait_for_function(f"({texts})().includes('conv_3x3 → none')")
    assert page.complaints == []  # type: ignore[attr-defined]


def test_no_serious_barrier_and_no_sideways_scrolling(page: Page) -> None:
    found = Axe().run(page).response["violations"]
    serious = [
        f"{rule['id']}: {rule['nodes'][0]['html'][:200]}" for rule in found if rule["impact"] in ("serious", "critical")
    ]
    assert serious == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate("document.querySelectorAll('.chart[tabindex=\"0\"]').length") > 0, (
        "wide charts scroll by keyboard"
    )
