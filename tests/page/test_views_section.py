"""The views on the page of a run: those that its recipe draws, and how they are drawn in words."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_adapt import load_recipe
from ssl_adapt.page.draw_views import draw_views
from ssl_adapt.page.picture import LOSSLESS, picture_uri
from ssl_adapt.page.view_words import describe_view
from ssl_adapt.page.views_section import views_section
from ssl_adapt.recipe import save_recipe
from ssl_adapt.runs.run_record import RunRecord, read_run

SUPERVISED = [
    "recipe=supervised_resnet20", "data.name=digits", "data.image_px=8", "model.args={width: 4, layers: [1, 2]}",
    "data.workers=0", "data.mean=[0.3, 0.4, 0.5]", "data.std=[0.2, 0.3, 0.4]",
]  # fmt: skip


def record(folder: Path, *arguments: str) -> RunRecord:
    """A run that has not begun."""
    folder.mkdir()
    save_recipe(load_recipe([*arguments, f"run.dir={folder}"]), folder / "recipe.yaml")
    return read_run(folder)


def test_views_that_change_nothing_are_the_images(tmp_path: Path) -> None:
    run = record(tmp_path / "a", *SUPERVISED, "views.pad_px=0", "views.flip_p=0", "views.cutout_px=0")
    drawn = draw_views(run)
    assert drawn.images.shape == (8, 3, 8, 8)
    assert len(drawn.views) == 4
    assert all(torch.equal(view, drawn.images) for view in drawn.views)


def test_views_are_drawn_anew_and_always_the_same(tmp_path: Path) -> None:
    run = record(tmp_path / "a", *SUPERVISED, "views.pad_px=2")
    state = torch.get_rng_state()
    first, second = draw_views(run), draw_views(run)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(first.views, second.views, strict=True))
    assert not torch.equal(first.views[0], first.views[1])


def test_mixup_is_seen(tmp_path: Path) -> None:
    fixed = ["views.pad_px=0", "views.flip_p=0", "views.cutout_px=0"]
    run = record(tmp_path / "a", *SUPERVISED, *fixed, "objective.mixup_alpha=1")
    drawn = draw_views(run)
    images, mixed = drawn.images.double(), drawn.views[0].double()
    # the mixture of an image and its mirror in the batch has their sum
    assert (mixed + mixed.flip(0) - images - images.flip(0)).abs().max() <= 1.0
    assert not torch.equal(drawn.views[0], drawn.images)
    assert views_section(run).values["mixup"].startswith("Mixup: each image is mixed with another one")


@pytest.mark.parametrize("recipe", ["debug", "byol_resnet20"])
def test_the_section_has_a_row_for_each_image(tmp_path: Path, recipe: str) -> None:
    run = record(tmp_path / "a", f"recipe={recipe}", "data.name=digits", "data.image_px=8", "data.workers=0")
    values = views_section(run).values
    assert values["columns"] == [
        "view 1, one epoch", "view 2, one epoch", "view 1, another epoch", "view 2, another epoch"
    ]  # fmt: skip
    assert [len(row) for row in values["rows"]] == [5] * 8
    assert values["rows"][0][0][1].startswith("training image 1, of class ")
    assert values["rows"][0][3][1] == "image 1, view 1, another epoch"
    assert len(values["chains"]) == len(run.recipe.views)


def test_the_steps_are_told_with_their_ranges() -> None:
    [section] = load_recipe(["recipe=debug", "views.flip_p=0.5", "views.blur_p=0.25"]).views
    assert describe_view(section, 16) == [
        "a crop of 40% to 100% of the image's area, 0.75 to 1.33 times as wide as high, resized to 16 x 16 px",
        "mirrored, with probability 0.5",
        "colours changed in random order, with probability 0.8: brightness by a factor of 0.8 to 1.2, contrast by a "
        "factor of 0.8 to 1.2, saturation by a factor of 0.8 to 1.2, hue by up to 0.05 of a turn",
        "Gaussian blur, with probability 0.25: standard deviation 0.1 to 2 px, its kernel 10% of the side",
    ]
    [padded] = load_recipe([*SUPERVISED, "views.pad_px=4", "views.flip_p=1", "views.cutout_px=0"]).views
    assert describe_view(padded, 8) == [
        "moved by up to 4 px in each direction, black where the image ends",
        "mirrored, always",
    ]


def test_a_small_picture_keeps_every_pixel() -> None:
    pixels = torch.randint(256, (3, 9, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    head, _, data = picture_uri(pixels, LOSSLESS).partition(",")
    assert head == "data:image/webp;base64"
    found = np.array(Image.open(io.BytesIO(base64.b64decode(data))))
    assert np.array_equal(found, pixels.permute(1, 2, 0).numpy())
