"""What ran, on what, how it ended, and what it gave."""

from collections.abc import Mapping
from typing import Any

from ssl_adapt.page.page_section import PageSection
from ssl_adapt.recipe import recipe_text
from ssl_adapt.runs.log import short_time
from ssl_adapt.runs.run_record import RunRecord


def overview_section(run: RunRecord) -> PageSection:
    """The first section: tiles of the main numbers, tables of facts, and the recipe."""
    return PageSection(
        "overview", "What ran", {"tiles": _tiles(run), "facts": _facts(run), "recipe": recipe_text(run.recipe)}
    )


def _tiles(run: RunRecord) -> list[tuple[str, str, str]]:
    """Name, value and a remark of the main numbers."""
    scores: Mapping[str, Any] = run.result.get(run.score_key) or {}
    name = "accuracy" if run.recipe.knn is None else "kNN top-1"
    tiles = []
    if run.score is not None:
        before = scores.get("untrained", scores.get("loaded"))
        tiles.append((name, f"{run.score:.2%}", f"{before:.2%} before" if before is not None else ""))
    return tiles


def _facts(run: RunRecord) -> list[tuple[str, str]]:
    """Name and value of what is worth knowing."""
    recipe, epochs = run.recipe, run.of("epoch")
    seconds = sum(event["seconds"] for event in epochs)
    facts = [
        ("State", " ".join(str(run.status.get(key) or "") for key in ("state", "reason"))),
        ("Objective", recipe.objective.name),
        ("Images", f"{recipe.data.name}, {recipe.data.image_px} px"),
        ("Network", recipe.model.name),
        ("Epochs", f"{len(epochs)} of {recipe.train.epochs}, {short_time(seconds)}"),
    ]
    return [(name, value) for name, value in facts if value.strip()]
