"""What is asked of Table 5."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from reproduction.table_options import Names, Seeds
from ssl_adapt.recipe.section import Section
from ssl_adapt.recipe.values import Count, Expected, Part, Positive, Text

ARMS = (
    "original", "removal", "greedy", "taylor", "distilled", "progressive", "theta", "random", "largest", "uniform",
    "scratch_tail", "scratch_whole", "scratch_found",
)  # fmt: skip


def _shares(value: object) -> object:
    """The numbers between commas."""
    return value if isinstance(value, tuple) else tuple(float(part) for part in str(value).split(","))


Shares = Annotated[tuple[Part, ...], BeforeValidator(_shares), Expected("shares between 0 and 1, between commas")]


class ShrinkOptions(Section):
    """Which networks, seeds, budgets and arms, and how long they are trained."""

    root: Text = Field(description="folder or tar of CIFAR-10")
    network: Literal["resnet", "resnet_operations", "vit", "vit_simclr", "convnext", "efficientnet"] = Field(
        default="resnet", description="which network"
    )
    seeds: Seeds = Field(default=(1, 2, 3, 4, 5), description="of weights, order and views")
    budgets: Shares = Field(default=(0.65, 0.5, 0.3), description="shares of the plain network's multiply-adds")
    arms: Names = Field(default=ARMS, description="the ways to get there")
    draws: Count = Field(default=3, description="random choices for each seed and budget")
    images: Count = Field(default=10_000, description="training images")
    weights: Text | None = Field(
        default=None, description="file of weights that the trained start begins with; null: random ones"
    )
    start_epochs: Count = Field(default=30, description="epochs that make the trained start")
    tail_epochs: Count = Field(default=6, description="epochs after it")
    tail_lr_share: Part = Field(default=0.5, description="peak learning rate after it, over that of the start")
    theta_lr: Positive = Field(default=1e-2, description="of theta's Adam")
    folder: Text | None = Field(default=None, description="where starts and rows are kept; null: runs/shrink_NETWORK")
    results: Text | None = Field(default=None, description="folder for the table and its plot; null: none is written")
