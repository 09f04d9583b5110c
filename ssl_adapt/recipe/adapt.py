"""The recipe's keys of adaptation."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ssl_adapt.errors import UserError
from ssl_adapt.recipe.section import Section
from ssl_adapt.recipe.values import Betas, EdgeChoices, Length, LengthOrZero, Number, Positive, PositiveOrZero, Text


class AdaptSection(Section):
    """How the architecture is adapted while the weights train."""

    sharing: Literal["full", "cell"] = Field(
        description="full: each edge has its own theta; cell: edges at the same place of cells of one type share theirs"
    )
    epochs: Length = Field(description="length of the architecture stage; 0.5 is half an epoch; assumed")
    theta_lr: Positive = Field(description="learning rate of theta's Adam; assumed")
    theta_betas: Betas = Field(description="betas of theta's Adam; assumed")
    theta_weight_decay: PositiveOrZero = Field(description="weight decay of theta's Adam; assumed")
    theta_batch: Literal["same", "next"] = Field(
        description="theta step on the batch of the weights' step or on the next one; assumed"
    )
    theta_updates_bn: bool = Field(description="whether the theta pass moves BatchNorm's running statistics; assumed")
    shape_change: Literal["pad", "project", "forbid"] = Field(
        description="the identity where an edge changes the shape: pad: subsample and zero-pad or slice, "
        "no parameters; project: learnt; forbid: no such candidate; assumed"
    )
    none_rule: Literal["literal", "threshold"] = Field(
        description="a none edge becomes the identity where: literal: theta_id is the largest, by eq. 1; "
        "threshold: theta_id > adapt.none_threshold"
    )
    none_threshold: Number = Field(
        description="theta_id above which a none edge becomes the identity under adapt.none_rule=threshold"
    )
    mode: Literal["hard", "anneal"] = Field(
        description="hard: fix at the end of the stage; anneal: theta first moves linearly to its one-hot target"
    )
    anneal_epochs: LengthOrZero = Field(description="epochs of annealing after the stage; 0 with adapt.mode=hard")
    scale: Literal["one", "fold"] = Field(
        description="scale of a kept operation: one: theta is dropped; fold: theta goes into its BatchNorm; assumed"
    )

    none_start: Number = Field(
        default=0.0, description="theta_id of none edges at the start; the original network starts with 0"
    )
    on_dead: Literal["error", "warn", "allow"] = Field(
        default="warn",
        description="what to do at the fix about a node that gets no input, as only none edges lead to it",
    )
    choices: EdgeChoices | None = Field(
        default=None,
        description="choice for each edge by name instead of theta's, edges that are not named stay: for controls; "
        "only with adapt.sharing=full; null: theta chooses",
    )
    edges: Text | None = Field(
        default=None,
        description="modules that become edges of a timm model that declares none, such as blocks.*; "
        "null: the usual ones of its family; only for such models",
    )

    @model_validator(mode="after")
    def _choices_need_full(self) -> AdaptSection:
        if self.choices is not None and self.sharing != "full":
            raise UserError("adapt.choices names single edges: set adapt.sharing=full")
        return self

    @model_validator(mode="after")
    def _annealing_has_epochs(self) -> AdaptSection:
        if self.mode == "hard" and self.anneal_epochs > 0:
            raise UserError(
                f"adapt.anneal_epochs={self.anneal_epochs} has no meaning for adapt.mode=hard: "
                "set adapt.anneal_epochs=0 or adapt.mode=anneal"
            )
        if self.mode == "anneal" and self.anneal_epochs == 0:
            raise UserError(
                "adapt.mode=anneal needs epochs to anneal in: set adapt.anneal_epochs=1 or more, or adapt.mode=hard"
            )
        return self
