"""A network's edges made mixed, as a recipe says."""

from collections.abc import Mapping, Sequence

from torch import nn

from ssl_adapt.adaptation.adaptation import Adaptation
from ssl_adapt.adaptation.architecture import Architecture, edge_specs
from ssl_adapt.adaptation.edge import Choice
from ssl_adapt.recipe import AdaptSection


def create_adaptation(
    backbone: nn.Module,
    adapt: AdaptSection,
    followers: Sequence[nn.Module] = (),
    choices: Mapping[str, Choice] | None = None,
) -> Adaptation:
    """The backbone's edges made mixed, and those of the networks that follow it, as the recipe's `adapt` says.

    Args:
        backbone: plain, or adapted before: what has changed stays so.
        adapt: how it adapts.
        followers: such as a teacher.
        choices: what edges change into. Where a measurement chose them, only these edges are made mixed.
    """
    is_measured = adapt.score != "theta"
    only = [*choices] if is_measured and choices is not None else None
    if not is_measured and (changed := Architecture.of(backbone).changed):  # of a network that was adapted before
        only = [spec.name for spec in edge_specs(backbone) if spec.name not in changed]
    adaptation = Adaptation(
        backbone,
        followers=followers,
        sharing="full" if is_measured else adapt.sharing,
        shape_change=adapt.shape_change,
        none_rule=adapt.none_rule,
        none_threshold=adapt.none_threshold,
        none_start=0.0 if is_measured else adapt.none_start,
        on_dead=adapt.on_dead,
        choices=choices if is_measured else adapt.choices,
        only=only,
    )
    if choices is not None and not is_measured:
        adaptation.choose(choices)
    return adaptation
