"""The recipe's keys of the objectives: one section for each, which `objective.name` chooses."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from ssl_adapt.recipe.section import Section
from ssl_adapt.recipe.values import Count, Fraction, Positive, PositiveOrZero


class SimclrSection(Section):
    """NT-Xent on two views of every image."""

    views_per_image: ClassVar[int] = 2

    name: Literal["simclr"] = Field(description="NT-Xent on two views of every image; evaluated by kNN")
    temperature: Positive = Field(description="divides the cosines in NT-Xent")
    projector_hidden: Count = Field(description="width of the projector's hidden layer")
    projector_out: Count = Field(description="width of the projection")
    view_forward: Literal["separate", "joint"] = Field(
        description="separate: BatchNorm statistics per view, as the public reference; "
        "joint: one forward over both views"
    )


class ByolSection(Section):
    """Prediction of the projection of one view, by a moving average of the network, from the other view."""

    views_per_image: ClassVar[int] = 2

    name: Literal["byol"] = Field(description="predict the teacher's projection of the other view; evaluated by kNN")
    projector_hidden: Count = Field(description="width of the projector's hidden layer")
    projector_out: Count = Field(description="width of the projection and of the prediction")
    predictor_hidden: Count = Field(description="width of the predictor's hidden layer")
    momentum: Fraction = Field(
        description="share of itself that the teacher keeps at the first step; it rises to 1 by a cosine"
    )


class VicregSection(Section):
    """Variance, invariance and covariance of the projections of two views."""

    views_per_image: ClassVar[int] = 2

    name: Literal["vicreg"] = Field(description="variance, invariance and covariance of two views; evaluated by kNN")
    projector_hidden: Count = Field(description="width of the projector's two hidden layers")
    projector_out: Count = Field(description="width of the projection")
    invariance_weight: PositiveOrZero = Field(description="of the mean squared difference between the views")
    variance_weight: PositiveOrZero = Field(description="of how far the standard deviations are below 1")
    covariance_weight: PositiveOrZero = Field(description="of the squared covariances")


class SupervisedSection(Section):
    """Cross-entropy on labels."""

    views_per_image: ClassVar[int] = 1

    name: Literal["supervised"] = Field(description="cross-entropy on labels; evaluated by accuracy")
    label_smoothing: Fraction = Field(description="share of the target that is spread over all classes")
    mixup_alpha: PositiveOrZero = Field(description="Beta(alpha, alpha) draws how two images are mixed; 0: no mixup")
    auxiliary_weight: PositiveOrZero = Field(
        description="weight of the loss of an auxiliary head, where the network has one"
    )


ObjectiveSection = Annotated[
    SimclrSection | ByolSection | VicregSection | SupervisedSection, Field(discriminator="name")
]
