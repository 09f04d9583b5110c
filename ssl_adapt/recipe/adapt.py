"""The recipe's keys of adaptation."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ssl_adapt.errors import UserError
from ssl_adapt.recipe.section import Section
from ssl_adapt.recipe.values import (
    Betas,
    Count,
    EdgeChoices,
    Length,
    LengthOrZero,
    Number,
    Part,
    Positive,
    PositiveOrZero,
    Text,
)


class AdaptSection(Section):
    """How the architecture is adapted while the weights train."""

    sharing: Literal["full", "cell"] = Field(
        description="full: each edge has its own theta; cell: edges at the same place of cells of one type share theirs"
    )
    epochs: Length = Field(description="length of the architecture stage; 0.5 is half an epoch; assumed")
    score: Literal["theta", "removal", "taylor", "gradmax", "largest", "random", "uniform"] = Field(
        default="theta",
        description="what chooses: theta, as the paper has it; removal: the loss measured with each change made; "
        "taylor: the sum of (weight x gradient)^2 over the weights that go; gradmax: the "
        "gradient of branches that are not there yet, with adapt.start_share; and three controls, largest (what saves "
        "most goes first), random and uniform (spread evenly over the depth); taylor and they need a budget, or "
        "adapt.start_share",
    )
    budget_macs: Part | None = Field(
        default=None, description="share of the plain network's multiply-adds that the fixed network may have"
    )
    budget_parameters: Part | None = Field(
        default=None, description="share of the plain network's parameters that the fixed network may have"
    )
    budget_latency: Part | None = Field(
        default=None, description="share of the plain network's seconds for a batch, measured on the run's device"
    )
    start_share: Part | None = Field(
        default=None,
        description="share of the plain network's cost, in the budget's unit or in multiply-adds, with which the run "
        "starts; from there branches open up to the budget, or the whole network; null: it starts whole",
    )
    rounds: Count = Field(
        default=1,
        description="in how many rounds a budget is reached, evenly over the stage and annealing, each measured anew",
    )
    score_batches: Count = Field(
        default=16, description="batches on which a change is measured, with score=removal or taylor"
    )
    granularity: Literal["operation", "block", "branch"] | None = Field(
        default=None,
        description="what an edge is: operation, block, or branch: a residual branch, which may become zero; "
        "null: as the network declares it, and blocks for timm's other networks",
    )
    theta_pass: Literal["alternating", "joint"] = Field(
        default="alternating",
        description="alternating: theta has a pass of its own, as in the paper; joint: its gradients come from the "
        "weights' pass",
    )
    theta_lr: Positive = Field(default=3e-4, description="learning rate of theta's Adam; assumed")
    theta_betas: Betas = Field(default=(0.5, 0.999), description="betas of theta's Adam; assumed")
    theta_weight_decay: PositiveOrZero = Field(default=0.0, description="weight decay of theta's Adam; assumed")
    theta_batch: Literal["same", "next"] = Field(
        default="same", description="theta step on the batch of the weights' step or on the next one; assumed"
    )
    theta_updates_bn: bool = Field(
        default=False, description="whether the theta pass moves BatchNorm's running statistics; assumed"
    )
    shape_change: Literal["pad", "project", "forbid"] = Field(
        description="the identity where an edge changes the shape: pad: subsample and zero-pad or slice, "
        "no parameters; project: learnt; forbid: no such candidate; assumed"
    )
    none_rule: Literal["literal", "threshold"] = Field(
        default="literal",
        description="a none edge becomes the identity where: literal: theta_id is the largest, by eq. 1; "
        "threshold: theta_id > adapt.none_threshold",
    )
    none_threshold: Number = Field(
        default=0.0, description="theta_id above which a none edge becomes the identity under adapt.none_rule=threshold"
    )
    mode: Literal["hard", "anneal"] = Field(
        description="hard: fix at the end of the stage; anneal: theta first moves linearly to its one-hot target"
    )
    anneal_epochs: LengthOrZero = Field(description="epochs of annealing after the stage; 0 with adapt.mode=hard")
    scale: Literal["one", "fold"] = Field(
        description="scale of a kept operation: one: theta is dropped; fold: theta goes into its BatchNorm; assumed"
    )

    none_start: Number = Field(
        default=0.0,
        description="theta_id of none edges at the start; the original network starts with 0. With another score than "
        "theta, 1: the missing skips are there from the first step, and those that hurt are taken away; without a "
        "budget nothing else changes",
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

    @property
    def budget(self) -> tuple[Literal["macs", "parameters", "seconds"], float] | None:
        """What the fixed network may cost: the unit, and the share of the plain network's cost."""
        if self.budget_macs is not None:
            return "macs", self.budget_macs
        if self.budget_parameters is not None:
            return "parameters", self.budget_parameters
        if self.budget_latency is not None:
            return "seconds", self.budget_latency
        return None if self.start_share is None else ("macs", 1.0)  # it grows until it is whole

    @model_validator(mode="after")
    def _score_fits(self) -> AdaptSection:
        budgets = [name for name in ("macs", "parameters", "latency") if getattr(self, f"budget_{name}") is not None]
        if len(budgets) > 1:
            raise UserError(f"adapt.budget_{budgets[0]} and adapt.budget_{budgets[1]}: give one budget")
        if self.score in ("taylor", "largest", "random", "uniform") and self.budget is None:
            raise UserError(f"adapt.score={self.score} needs a budget: add adapt.budget_macs=0.7, or another share")
        if self.rounds > 1 and (self.score == "theta" or self.budget is None):
            raise UserError(
                f"adapt.rounds={self.rounds} is how a budget is reached by adapt.score=removal, taylor, largest, "
                "random or uniform: set adapt.rounds=1, or add a budget such as adapt.budget_macs=0.7 and one of these"
            )
        if self.score == "removal" and not budgets and self.score_batches == 1:
            raise UserError(
                "adapt.score_batches=1 gives no standard error, and adapt.score=removal without a budget needs it to "
                "tell what lowers the loss: set it to 2 or more, or add adapt.budget_macs=0.7"
            )
        if self.choices is not None and (self.score != "theta" or budgets):
            raise UserError("adapt.choices leave nothing to choose: take out adapt.score and adapt.budget_*")
        if self.score == "taylor" and self.none_start:
            raise UserError(
                f"adapt.none_start={self.none_start:g} adds skips, which have no weights, and adapt.score=taylor is "
                "made of the weights that go: set adapt.score=removal or adapt.none_start=0"
            )
        if self.score != "theta" and self.none_start not in (0, 1):
            raise UserError(f"adapt.none_start={self.none_start:g}: with adapt.score={self.score} it is 0 or 1")
        return self

    @model_validator(mode="after")
    def _growth_fits(self) -> AdaptSection:
        if self.start_share is None:
            if self.score == "gradmax":
                raise UserError(
                    "adapt.score=gradmax opens branches of a network that starts small: add adapt.start_share=0.3, or "
                    "another share"
                )
            return self
        told = f"adapt.start_share={self.start_share:g}"
        if self.score not in ("gradmax", "random", "uniform"):
            raise UserError(
                f"{told} and adapt.score={self.score}: a network grows by gradmax, random or uniform; set one of them"
            )
        if self.budget is not None and self.start_share >= self.budget[1]:
            raise UserError(f"{told} is not below the budget, {self.budget[1]:g}, to which the network grows: lower it")
        if self.mode != "hard" or self.sharing != "full" or self.none_start:
            raise UserError(
                f"{told}: branches open one by one, zero at first, so that nothing is annealed and no edges share: set "
                "adapt.mode=hard, adapt.anneal_epochs=0, adapt.sharing=full and adapt.none_start=0"
            )
        return self

    @model_validator(mode="after")
    def _joint_pass_fits(self) -> AdaptSection:
        is_own_pass = self.score != "theta" or self.theta_batch == "next" or self.theta_updates_bn
        if self.theta_pass == "joint" and is_own_pass:
            raise UserError(
                "adapt.theta_pass=joint takes theta's gradients from the weights' pass, its batch and its statistics: "
                "set adapt.score=theta, adapt.theta_batch=same and adapt.theta_updates_bn=false"
            )
        return self

    @model_validator(mode="after")
    def _learnt_identities_are_trained(self) -> AdaptSection:
        if self.shape_change == "project" and (self.score != "theta" or self.budget is not None):
            raise UserError(
                "adapt.shape_change=project goes with adapt.score=theta and no budget, as a learnt identity is trained "
                "beside theta alone, and no budget counts it: set adapt.shape_change=pad or forbid"
            )
        return self

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
