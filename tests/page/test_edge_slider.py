"""The slider over time, in a browser: by the keyboard alone, without errors, requests or barriers."""

from collections.abc import Iterator
from typing import Any

import pytest
from architecture_runs import CONV, theta_run
from page_browser import OpenPage, opened

from ssl_adapt.page.cells_section import cells_section
from ssl_adapt.page.write_page import render_page

pytestmark = pytest.mark.slow  # a browser; test_page_in_browser.py has the fast ones


@pytest.fixture(scope="module")
def page(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenPage]:
    """The page of a run in a narrow window, with its figures drawn."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "report.html").write_text(render_page("a run", [cells_section(theta_run(folder / "run"))]))
    with opened(browser, folder / "report.html", width_px=420) as page:
        page.draw_all()
        yield page


def test_arrow_keys_walk_through_time_and_the_menu_through_cells(page: OpenPage) -> None:
    texts = "() => [...document.querySelectorAll('#figure-edges-theta svg text')].map((text) => text.textContent)"
    tab = page.tab
    slider = tab.locator("#figure-edges-theta input[type=range]")
    menu = tab.locator("#figure-edges-theta select")
    assert "none  +0.40" in tab.evaluate(texts)
    slider.press("ArrowLeft")
    assert slider.input_value() == "30"
    tab.wait_for_function(f"({texts})().includes('none  +0.30')")
    slider.press("End")
    tab.wait_for_function(f"({texts})().includes('none → identity')")
    menu.select_option(CONV.rpartition(".")[0])
    tab.wait_for_function(f"({texts})().includes('conv_3x3 → none')")


def test_no_serious_barrier_and_no_sideways_scrolling(page: OpenPage) -> None:
    assert page.violations() == []
    assert page.overflow_px() == 0
    scrolled = page.tab.locator('.chart[tabindex="0"]')
    assert scrolled.count() > 0, "wide charts scroll by keyboard"
