"""The recipe's keys of the random augmentation: one section for each kind of view, which `views.name` chooses."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer

from ssl_adapt.recipe.section import Section
from ssl_adapt.recipe.values import BlurSigma, CountOrZero, CropRatio, CropScale, EvenOrZero, Jitter, Probability


class ResizedCropSection(Section):
    """A random part of the image at the size of a view, its colours changed."""

    name: Literal["resized_crop"] = Field(description="resized crop, flip, colour jitter, grayscale, blur, solarise")
    crop_scale: CropScale = Field(description="smallest and largest area of the crop, as a share of the image")
    crop_ratio: CropRatio = Field(description="smallest and largest width / height of the crop")
    antialias: bool = Field(description="low-pass filter where a crop is made smaller, as PIL does")
    flip_p: Probability = Field(description="probability of a horizontal flip")
    jitter: Jitter = Field(description="strength of brightness, contrast, saturation and hue jitter")
    jitter_p: Probability = Field(description="probability of the colour jitter")
    grayscale_p: Probability = Field(description="probability of dropping the colours")
    blur_p: Probability = Field(
        default=0.0, description="probability of a Gaussian blur, with a kernel of a tenth of the view's side"
    )
    blur_sigma: BlurSigma = Field(
        default=(0.1, 2.0), description="smallest and largest standard deviation of the blur, in pixels"
    )
    solarize_p: Probability = Field(default=0.0, description="probability of inverting the pixels above 0.5")


class PaddedCropSection(Section):
    """The image moved by a few pixels, with a square cut out."""

    name: Literal["padded_crop"] = Field(description="padded crop, flip, cutout; keeps the size of the images")
    pad_px: CountOrZero = Field(description="zeros around the image, from which a crop of its size is taken")
    flip_p: Probability = Field(description="probability of a horizontal flip")
    cutout_px: EvenOrZero = Field(description="side of the square that is set to the mean; 0: no cutout")


ViewSection = Annotated[ResizedCropSection | PaddedCropSection, Field(discriminator="name")]


def _one_or_list(value: object) -> object:
    """A tuple, also of a single section, which is used for all views of an image."""
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _dump(views: tuple[Section, ...]) -> Any:
    """As it may be typed: one section as it is, several as a list."""
    dumped = [view.model_dump() for view in views]
    return dumped[0] if len(dumped) == 1 else dumped


ViewSections = Annotated[tuple[ViewSection, ...], BeforeValidator(_one_or_list), PlainSerializer(_dump)]
