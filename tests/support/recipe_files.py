"""The shipped recipes, files of recipes, and what is said of wrong ones."""

from pathlib import Path

import pytest

from ssl_adapt.errors import UserError
from ssl_adapt.recipe import available_recipes, load_recipe

SHIPPED = (
    "debug",
    "quickstart",
    "byol_resnet20",
    "finetune_resnet20",
    "finetune_vit",
    "grow_resnet20",
    "quickstart_cifar10",
    "shrink_resnet20",
    "shrink_vit",
    "simclr_darts24",
    "simclr_resnet20",
    "simclr_resnet50",
    "simclr_resnet50_224",
    "supervised_darts",
    "supervised_mobilenetv2",
    "supervised_proxyless",
    "supervised_resnet20",
    "supervised_resnet20_nat",
    "vicreg_resnet20",
)


def problems_of(*arguments: str) -> list[str]:
    """The lines of the error that these arguments give."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the callers look at every line)
        load_recipe(arguments)
    assert type(caught.value) is UserError, "pydantic's own error came through"
    return str(caught.value).split("\n")


def write_recipe(folder: Path, text: str, name: str = "mine.yaml") -> str:
    """The argument that selects a new file with that text."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return f"recipe={path}"


def debug_text() -> str:
    return available_recipes()["debug"].read_text(encoding="utf-8")
