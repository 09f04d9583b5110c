"""The keys of what is minimised, and of the random augmentation that goes with it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ssl_adapt.recipe.section import Section
from ssl_adapt.recipe.values import (
    Count,
    CountOrZero,
    CropRatio,
    CropScale,
    Fraction,
    Jitter,
    Positive,
    PositiveOrZero,
    Probability,
)

_SIMCLR = ("temperature", "projector_hidden", "projector_out", "view_forward")
_SUPERVISED = ("label_smoothing", "mixup_alpha", "auxiliary_weight")


class ViewsSection(Section):
    """The random augmentation that turns an image into a view."""

    crop_scale: CropScale = Field(description="smallest and largest area of the crop, as a share of the image")
    crop_ratio: CropRatio = Field(description="smallest and largest width / height of the crop")
    antialias: bool = Field(description="low-pass filter where a crop is made smaller, as PIL does")
    flip_p: Probability = Field(description="probability of a horizontal flip")
    jitter: Jitter = Field(description="strength of brightness, contrast, saturation and hue jitter")
    jitter_p: Probability = Field(description="probability of the colour jitter")
    grayscale_p: Probability = Field(description="probability of dropping the colours")


class AugmentSection(Section):
    """The random augmentation of supervised training."""

    pad_px: CountOrZero = Field(description="zeros around the image, from which a crop of its size is taken")
    flip_p: Probability = Field(description="probability of a horizontal flip")
    cutout_px: CountOrZero = Field(description="side of the square that is set to the mean; 0: no cutout")


class ObjectiveSection(Section):
    """What is minimised."""

    name: Literal["simclr", "supervised"] = Field(
        description="simclr: NT-Xent on two views; supervised: cross-entropy on labels"
    )
    temperature: Positive | None = Field(default=None, description="simclr: divides the cosines in NT-Xent")
    projector_hidden: Count | None = Field(default=None, description="simclr: width of the projector's hidden layer")
    projector_out: Count | None = Field(default=None, description="simclr: width of the projection")
    view_forward: Literal["separate", "joint"] | None = Field(
        default=None,
        description="simclr: separate: BatchNorm statistics per view, as the public reference; "
        "joint: one forward over both views",
    )
    label_smoothing: Fraction | None = Field(
        default=None, description="supervised: share of the target that is spread over all classes"
    )
    mixup_alpha: PositiveOrZero | None = Field(
        default=None, description="supervised: Beta(alpha, alpha) draws how two images are mixed; 0: no mixup"
    )
    auxiliary_weight: PositiveOrZero | None = Field(
        default=None, description="supervised: weight of the loss of an auxiliary head, where the network has one"
    )

    @model_validator(mode="after")
    def _keys_of_its_name_alone(self) -> ObjectiveSection:
        own, foreign = (_SIMCLR, _SUPERVISED) if self.name == "simclr" else (_SUPERVISED, _SIMCLR)
        problems = [
            f"objective.name={self.name} needs objective.{key}: add objective.{key}=VALUE"
            for key in own
            if getattr(self, key) is None
        ]
        problems += [
            f"objective.{key} has no meaning for objective.name={self.name}: leave it out"
            for key in foreign
            if getattr(self, key) is not None
        ]
        if problems:
            raise ValueError("\n".join(problems))
        return self
