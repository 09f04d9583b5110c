"""The views: training images beside what the network saw of them, and how views are drawn."""

from typing import Any

from ssl_adapt.errors import UserError
from ssl_adapt.page.features_section import missing_sentence
from ssl_adapt.page.page_section import PageSection
from ssl_adapt.page.view_words import describe_mixup, describe_view
from ssl_adapt.recipe import SupervisedSection
from ssl_adapt.runs.run_record import RunRecord

EPOCHS = ("one epoch", "another epoch", "a third", "a fourth")


def views_section(run: RunRecord) -> PageSection:
    """The section; where the images are missing it still says how views are drawn."""
    values: dict[str, Any] = {**_words(run), "problem": "", "columns": [], "rows": []}
    try:
        values |= _pictures(run)
    except (UserError, OSError) as error:
        values["problem"] = missing_sentence(run, error)
    return PageSection("views", "Views", values)


def _words(run: RunRecord) -> dict[str, Any]:
    """Each view's name and steps, and what mixup does."""
    sections, objective = run.recipe.views, run.recipe.objective
    names = ["Each view"] if len(sections) == 1 else [f"View {number}" for number in range(1, len(sections) + 1)]
    chains = [describe_view(section, run.recipe.data.image_px) for section in sections]
    alpha = objective.mixup_alpha if isinstance(objective, SupervisedSection) else 0.0
    return {
        "chains": list(zip(names, chains, strict=True)),
        "mixup": describe_mixup(alpha) if alpha else "",
        "per_image": objective.views_per_image,
    }


def _pictures(run: RunRecord) -> dict[str, Any]:
    """A name for each column of views, and rows of pictures: the image, then its views, each with its text."""
    from ssl_adapt.page.draw_views import draw_views  # here, as they need torch
    from ssl_adapt.page.picture import LOSSLESS, picture_uri

    drawn, count = draw_views(run), run.recipe.objective.views_per_image
    columns = [
        EPOCHS[number] if count == 1 else f"view {number % count + 1}, {EPOCHS[number // count]}"
        for number in range(len(drawn.views))
    ]
    rows = []
    for row, name in enumerate(drawn.classes):
        label = f"training image {row + 1}" + (f", of class {name}" if name else "")
        alts = [label, *(f"image {row + 1}, {column}" for column in columns)]
        images = [drawn.images[row], *(view[row] for view in drawn.views)]
        rows.append([(picture_uri(pixels, LOSSLESS), alt) for pixels, alt in zip(images, alts, strict=True)])
    return {"columns": columns, "rows": rows}
