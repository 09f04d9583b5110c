"""The page of a run in a browser: sliders, theme, keyboard, tooltips, phones, screen readers, and no network."""

from pathlib import Path
from typing import Any

import pytest
import short_runs
from page_browser import opened

from ssl_adapt.page.write_page import write_report


@pytest.fixture(scope="module")
def page_file(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a run with both stages; after `browser`, so that nothing runs where there is none."""
    folder = tmp_path_factory.mktemp("pages") / "a run"
    short_runs.run(
        folder, "train.epochs=4", "adapt.epochs=1", "data.train_images=384", "run.log_every_steps=1",
        "run.online_probe=true", "knn.every_epochs=2", "knn.k=20",
    )  # fmt: skip
    write_report(str(folder))
    return folder / "report.html"


def test_the_slider_smooths_every_curve_that_has_a_smooth_line(browser: Any, page_file: Path) -> None:
    with opened(browser, page_file) as page:
        before = {name: page.path(name) for name in ("loss", "gradient-norm", "scores")}
        raw = page.path("loss", 0)
        page.slide("smoothing", 0)
        assert page.path("loss") == raw, "no smoothing is the raw line"
        page.slide("smoothing", 25)
        after = {name: page.path(name) for name in before}
        assert page.path("loss", 0) == raw
        assert [before[name] != after[name] for name in before] == [True, True, False]
        assert page.tab.locator(".controls output").inner_text() == "means over 25 % of the run"


@pytest.mark.slow
def test_figures_far_below_are_drawn_later_and_as_smooth_as_the_others(browser: Any, page_file: Path) -> None:
    with opened(browser, page_file, width_px=400) as page:
        name = "images-per-second"
        page.tab.evaluate("scrollTo(0, 0)")
        assert page.tab.locator(f"#figure-{name} svg").count() == 0
        page.slide("smoothing", 25)
        page.tab.locator(f"#figure-{name} svg.marks").wait_for(state="attached")  # without scrolling to it
        assert page.path(name) != page.path(name, 0)


def test_the_theme_follows_the_system_until_the_button_is_pressed(browser: Any, page_file: Path) -> None:
    with opened(browser, page_file, theme="dark") as page:
        page.show("loss")
        button = page.tab.locator("#theme")

        def colours() -> tuple[str, str]:
            return page.tab.evaluate(
                "[getComputedStyle(document.body).backgroundColor, "
                "getComputedStyle(document.querySelector('#figure-loss text')).fill]"
            )

        dark = colours()
        assert button.inner_text() == "Light"
        button.click()
        light = colours()
        assert light[0] == "rgb(255, 255, 255)"
        assert all(a != b for a, b in zip(dark, light, strict=True)), "the text of figures too"
        assert button.inner_text() == "Dark"


@pytest.mark.slow
def test_it_is_printed_on_white_from_a_dark_page_too(browser: Any, page_file: Path) -> None:
    with opened(browser, page_file, theme="dark") as page:
        drawing = page.show("loss")
        page.tab.emulate_media(media="print")
        assert page.tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert not page.tab.locator("[data-signal=smoothing]").is_visible()
        assert drawing.evaluate("(one) => getComputedStyle(one).maxWidth") == "100%", "paper is narrower than a screen"


@pytest.mark.slow
def test_everything_is_reached_by_the_keyboard(browser: Any, page_file: Path) -> None:
    with opened(browser, page_file) as page:
        press, focused = page.tab.keyboard.press, "document.activeElement"
        press("Tab")
        assert page.tab.evaluate(f"{focused}.className") == "skip"
        assert page.tab.locator(".skip").bounding_box()["x"] >= 0, "seen when it has the focus"
        press("Enter")
        assert page.tab.evaluate(f"{focused}.id") == "main"
        before = page.path("loss")
        page.tab.locator("[data-signal=smoothing]").focus()
        assert page.tab.evaluate(f"getComputedStyle({focused}).outlineStyle") == "solid"
        press("End")
        page.settle()
        assert page.path("loss") != before


@pytest.mark.slow
def test_the_pointer_finds_the_nearest_step(browser: Any, page_file: Path) -> None:
    with opened(browser, page_file) as page:
        box = page.show("loss").bounding_box()
        page.tab.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        tooltip = page.tab.locator("#vg-tooltip-element.visible")
        tooltip.wait_for()
        assert [word for word in ("step", "loss", "smoothed") if word in tooltip.inner_text()] == [
            "step", "loss", "smoothed",
        ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("width_px", [400, 1300])
def test_it_is_accessible_in_light_and_dark_and_fits(browser: Any, page_file: Path, width_px: int) -> None:
    with opened(browser, page_file, width_px=width_px) as page:
        page.draw_all()
        page.tab.evaluate("document.querySelectorAll('details').forEach((one) => one.open = true)")
        assert page.violations() == []
        page.tab.locator("#theme").click()
        assert page.violations() == []
        assert page.overflow_px() <= 0
