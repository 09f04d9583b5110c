"""How views are drawn, in words."""

from collections.abc import Sequence

from ssl_adapt.recipe import PaddedCropSection, ResizedCropSection, ViewSection
from ssl_adapt.views.resized_crop import BLUR_SHARE, SOLARIZE_ABOVE


def describe_view(section: ViewSection, image_px: int) -> list[str]:
    """The steps of a view in their order; what never happens is left out."""
    return _padded_crop(section) if isinstance(section, PaddedCropSection) else _resized_crop(section, image_px)


def describe_mixup(alpha: float) -> str:
    """What mixup does to a batch, after its views."""
    return (
        "Mixup: each image is mixed with another one of its batch, and so are their labels; how much is of which is "
        f"drawn from Beta({alpha:g}, {alpha:g}) for each batch."
    )


def _resized_crop(section: ResizedCropSection, image_px: int) -> list[str]:
    (small, large), (narrow, wide) = section.crop_scale, section.crop_ratio
    steps = [
        f"a crop of {small:.0%} to {large:.0%} of the image's area, {narrow:.3g} to {wide:.3g} times as wide as high, "
        f"resized to {image_px} x {image_px} px"
    ]
    steps += _flip(section.flip_p)
    jitter = _jitter(section.jitter)
    if section.jitter_p > 0 and jitter:
        steps.append(f"colours changed in random order, {_probability(section.jitter_p)}: {', '.join(jitter)}")
    if section.grayscale_p > 0:
        steps.append(f"turned gray, {_probability(section.grayscale_p)}")
    if section.blur_p > 0:
        low, high = section.blur_sigma
        steps.append(
            f"Gaussian blur, {_probability(section.blur_p)}: standard deviation {low:g} to {high:g} px, its kernel "
            f"{BLUR_SHARE:.0%} of the side"
        )
    if section.solarize_p > 0:
        steps.append(f"solarised, {_probability(section.solarize_p)}: pixels above {SOLARIZE_ABOVE:g} inverted")
    return steps


def _padded_crop(section: PaddedCropSection) -> list[str]:
    steps = []
    if section.pad_px:
        steps.append(f"moved by up to {section.pad_px} px in each direction, black where the image ends")
    steps += _flip(section.flip_p)
    if section.cutout_px:
        side = section.cutout_px
        steps.append(f"cutout: a square of {side} x {side} px set to the mean colour, at a place anywhere in the image")
    return steps or ["the image as it is"]


def _flip(probability: float) -> list[str]:
    return [f"mirrored, {_probability(probability)}"] if probability > 0 else []


def _jitter(strengths: Sequence[float]) -> list[str]:
    """What the jitter does with each of brightness, contrast, saturation and hue."""
    names = ("brightness", "contrast", "saturation")
    words = [
        f"{name} by a factor of {max(0, 1 - strength):.3g} to {1 + strength:.3g}"
        for name, strength in zip(names, strengths, strict=False)
        if strength > 0
    ]
    hue = strengths[3]
    return [*words, f"hue by up to {hue:g} of a turn"] if hue > 0 else words


def _probability(value: float) -> str:
    return "always" if value == 1 else f"with probability {value:g}"
