"""The options of the benchmark."""

from typing import Annotated

from pydantic import BeforeValidator, Field

from ssl_adapt.errors import UserError
from ssl_adapt.recipe.section import Section
from ssl_adapt.recipe.values import Expected, NewFile

GROUPS = {
    "views": "two views of a batch: ours, torchvision on PIL images, kornia's operations",
    "step": "a plain step, a step of the architecture stage, naive alternation",
    "nt_xent": "NT-Xent forward and backward, time and memory: ours, lightly's, the plain form",
    "knn": "kNN classification: ours with faiss, torch's matmul and topk",
    "adaptable": "networks of timm, and the same with a third of their edges as identities",
}


def _groups(value: object) -> tuple[str, ...]:
    """The groups between commas, in their order."""
    names = value.split(",") if isinstance(value, str) else []
    if not names or set(names) - set(GROUPS):
        raise UserError("no groups")
    return tuple(group for group in GROUPS if group in names)


class BenchOptions(Section):
    """What to time, how often, and where the figures go beside the terminal."""

    only: Annotated[tuple[str, ...], BeforeValidator(_groups), Expected(f"some of {','.join(GROUPS)}")] = Field(
        default=tuple(GROUPS), description="what to time, in this order"
    )
    repeats: Annotated[int, Field(ge=2), Expected("integer >= 2")] = Field(
        default=10, description="timed calls of each contender"
    )
    growth: Annotated[int, Field(ge=1024), Expected("integer >= 1024")] | None = Field(
        default=None, description="also one call of each form of NT-Xent at 512, 1024 ... up to this batch"
    )
    json_path: NewFile | None = Field(
        default=None, alias="json", description="also write the figures, every single time among them, to this file"
    )
