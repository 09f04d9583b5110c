"""The architectures and choices that the second round of a table starts from, found by the first or drawn."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from reproduction.table_runs import CLASSES, TableRun
from ssl_adapt.adaptation.architecture import Architecture, edge_specs
from ssl_adapt.adaptation.edge import Choice, EdgeSpec
from ssl_adapt.recipe import Recipe
from ssl_adapt.training.objective import create_backbone


def create_start(run: TableRun) -> dict[str, Any]:
    """The architecture, or the choices, that a run of the second round is given; its source has finished."""
    how = run.method.how
    if how == "from scratch":
        return _found(run).to_dict()
    plain = plain_network(run.recipe())
    specs = edge_specs(plain)
    if how == "random changes":
        return random_changes(specs, _found(run).changed, run.seed)
    skips: dict[str, Choice] = {spec.name: "identity" for spec in specs if spec.kind == "none"}
    if how == "skips at the fix":
        return skips
    architecture = Architecture.of(plain)
    return replace(architecture, edges={**architecture.edges, **skips}).to_dict()


def plain_network(recipe: Recipe) -> nn.Module:
    """The recipe's network, without memory or random numbers."""
    with torch.device("meta"):
        classes = CLASSES.get(recipe.data.name, 10)
        return create_backbone(
            recipe.model, recipe.data, recipe.adapt, num_classes=classes, drop_path=recipe.train.drop_path
        )


def random_changes(specs: Sequence[EdgeSpec], changed: Mapping[str, Choice], seed: int) -> dict[str, Choice]:
    """As many changes of each kind (kind before, choice after) as in `changed`, at random edges of that kind."""
    kinds = {spec.name: spec.kind for spec in specs}
    generator = random.Random(f"random changes {seed}")
    drawn: dict[str, Choice] = {}
    for kind, choice in sorted({(kinds[name], choice) for name, choice in changed.items()}):
        count = sum((kinds[name], other) == (kind, choice) for name, other in changed.items())
        free = [
            spec.name for spec in specs if spec.kind == kind and spec.name not in drawn and spec.allows(choice, "pad")
        ]
        drawn |= dict.fromkeys(generator.sample(free, count), choice)
    return {spec.name: drawn[spec.name] for spec in specs if spec.name in drawn}


def _found(run: TableRun) -> Architecture:
    """The architecture of the run that it starts from."""
    return Architecture.from_json((run.source_path / "architecture.json").read_text(encoding="utf-8"))
