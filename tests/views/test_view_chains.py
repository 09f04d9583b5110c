"""Chains of augmentations: ours beside kornia's own, blur and solarise, views that differ."""

import kornia.augmentation
import pytest
import torch

from ssl_adapt.views import (
    ImagewiseColorJitter,
    RandomResizedCropFlip,
    ResizedCropSettings,
    View,
    Views,
    resized_crop_view,
)

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
PLAIN = {"size_px": 32, "crop_scale": (1.0, 1.0), "crop_ratio": (1.0, 1.0), "antialias": True, "flip_p": 0.0,
    "jitter": (0.0, 0.0, 0.0, 0.0), "jitter_p": 0.0, "grayscale_p": 0.0, "mean": MEAN, "std": STD}  # fmt: skip


def pixels_of(view: torch.Tensor) -> torch.Tensor:
    return view * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)


@pytest.fixture
def images() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randint(256, (64, 3, 32, 32), dtype=torch.uint8)


def test_solarise_inverts_what_is_bright_in_its_share_of_the_images(images: torch.Tensor) -> None:
    [view] = Views([resized_crop_view(ResizedCropSettings(**PLAIN, solarize_p=0.5))])(images)
    pixels = images.float() / 255
    expected = torch.where(pixels < 0.5, pixels, 1 - pixels)
    same, inverted = ((pixels_of(view) - other).abs().amax((1, 2, 3)) < 1e-5 for other in (pixels, expected))
    assert (same | inverted).all()
    assert 10 < inverted.sum() < 54


def test_blur_smooths_and_keeps_the_mean(images: torch.Tensor) -> None:
    [view] = Views([resized_crop_view(ResizedCropSettings(**PLAIN, blur_p=1.0, blur_sigma=(1.0, 2.0)))])(images)
    pixels, blurred = images.float() / 255, pixels_of(view)
    assert (blurred.std((1, 2, 3)) < 0.6 * pixels.std((1, 2, 3))).all()
    torch.testing.assert_close(blurred.mean((1, 2, 3)), pixels.mean((1, 2, 3)), atol=0.02, rtol=0)


def test_views_may_differ_in_size_and_are_drawn_one_after_the_other(images: torch.Tensor) -> None:
    large, small = (resized_crop_view(ResizedCropSettings(**{**PLAIN, "size_px": px})) for px in (32, 12))
    assert [tuple(view.shape) for view in Views([large, large, small])(images)] == [
        (64, 3, 32, 32), (64, 3, 32, 32), (64, 3, 12, 12)
    ]  # fmt: skip
    with pytest.raises(ValueError, match="at least one view"):
        Views([])


@pytest.mark.parametrize("contained", [False, True])
def test_ours_stand_beside_kornias_own(images: torch.Tensor, contained: bool) -> None:
    augmentations = [
        RandomResizedCropFlip(16, (0.2, 1.0), (0.75, 1.33), 0.5, True),
        kornia.augmentation.RandomGaussianBlur((3, 3), (0.1, 2.0), p=0.5),
        ImagewiseColorJitter((0.4, 0.4, 0.4, 0.1), p=0.8),
        kornia.augmentation.RandomEqualize(p=0.2),
    ]
    chain = [kornia.augmentation.AugmentationSequential(*augmentations)] if contained else augmentations
    views = Views([View(chain, mean=MEAN, std=STD)] * 2)
    torch.manual_seed(1)
    first, second = views(images)
    torch.manual_seed(1)
    again, _ = views(images)
    assert first.shape == (64, 3, 16, 16)
    assert torch.equal(first, again)
    assert (first - second).abs().amax((1, 2, 3)).min() > 1e-3
    assert "ImagewiseColorJitter" in repr(views)


def test_wrong_settings_name_the_field_and_the_value() -> None:
    wrong = {
        "size_px": [0, -3],
        "crop_scale": [(0.0, 1.0), (0.5, 0.2), (0.5, 1.1)],
        "crop_ratio": [(-1.0, 1.0), (1.0,)],
        "jitter": [(0.4, 0.4, 0.4), (0.4, -0.4, 0.4, 0.1), (0.4, 0.4, 0.4, 0.6)],
        "std": [(0.2, 0.0, 0.2), (0.2,)],
        "blur_sigma": [(0.0, 1.0), (2.0, 1.0)],
        **{
            "mean": [(0.5,)],
            "flip_p": [1.5],
            "jitter_p": [-0.1],
            "grayscale_p": [2],
            "blur_p": [2],
            "solarize_p": [-1],
        },
    }
    assert wrong.keys() == {field for field in ResizedCropSettings.__dataclass_fields__ if field != "antialias"}
    for field, value in [(field, value) for field, values in wrong.items() for value in values]:
        with pytest.raises(ValueError, match=rf"^{field} must be .*, got ") as raised:
            ResizedCropSettings(**{**PLAIN, field: value})
        assert str(raised.value).endswith(repr(value))
