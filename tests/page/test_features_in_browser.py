"""The features on a page in a browser: filters, pictures under the pointer, hostile names, screen readers, phones."""

from pathlib import Path
from typing import Any

import pytest
from page_browser import OpenPage, opened
from page_runs import ALERT, QUOTED, hostile_run
from short_runs import run

from ssl_adapt.page.features_section import features_section
from ssl_adapt.page.views_section import views_section
from ssl_adapt.page.write_page import render_page
from ssl_adapt.runs.run_record import read_run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def page_file(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    run(folder / "a", "train.epochs=1", "adapt=null", "data.batch_size=640", "knn.k=20")
    record = read_run(hostile_run(folder / "a", folder)[1])
    sections = [features_section(record), views_section(record)]
    (folder / "report.html").write_text(render_page(QUOTED, sections), encoding="utf-8")
    return folder / "report.html"


def points(page: OpenPage) -> list[str]:
    """Where the points are that have pictures, as transforms."""
    page.settle()
    shown = page.show("feature-map").locator("g.mark-symbol.role-mark").last.locator("path")
    return [str(one.get_attribute("transform")) for one in shown.all()]


def test_the_map_is_switched_and_filtered(browser: Any, page_file: Path) -> None:
    with opened(browser, page_file) as page:
        tsne = points(page)
        assert len(tsne) == 8
        page.tab.get_by_label("PCA").check()
        assert points(page) != tsne
        page.tab.get_by_label("t-SNE").check()
        assert points(page) == tsne
        classes = page.tab.locator("select[name=shown_class]")
        assert classes.locator("option").all_inner_texts() == ["all", *sorted([ALERT, QUOTED])]
        classes.select_option(label=ALERT)
        shown = points(page)
        assert len(shown) == 4
        assert set(shown) < set(tsne)
        counts = []
        for verdict in ("right", "wrong", "all"):
            page.tab.locator("select[name=shown_verdict]").select_option(label=verdict)
            counts.append(len(points(page)))
        assert counts[0] + counts[1] == counts[2] == 4


def test_the_pointer_shows_an_image_and_its_names_as_text(browser: Any, page_file: Path) -> None:
    with opened(browser, page_file) as page:
        page.tab.on("dialog", lambda dialog: page.complaints.append(dialog.message))
        page.tab.locator("select[name=shown_class]").select_option(label=ALERT)
        page.settle()
        marks = page.show("feature-map").locator("g.mark-symbol.role-mark").last.locator("path")
        marks.first.hover(force=True)
        tooltip = page.tab.locator("#vg-tooltip-element.visible")
        tooltip.wait_for()
        assert ALERT in tooltip.inner_text()
        assert f"{QUOTED}.png" in tooltip.inner_text()
        assert tooltip.locator("script, b").count() == 0
        assert page.tab.evaluate("document.querySelector('#vg-tooltip-element img').naturalWidth") == 8
        assert page.violations() == []


@pytest.mark.parametrize(("width_px", "theme"), [(400, "light"), (1300, "dark")])
def test_it_is_accessible_and_fits(browser: Any, page_file: Path, width_px: int, theme: str) -> None:
    with opened(browser, page_file, width_px=width_px, theme=theme) as page:
        page.draw_all()
        assert page.violations() == []
        assert page.overflow_px() <= 0
