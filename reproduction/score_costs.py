"""What scores and theta cost beside a plain step: `python -m reproduction.score_costs --root TAR`.

Each figure is a ratio of medians, from rounds that take all by turns in one process.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from statistics import median

import torch

from reproduction.change_scores import loss_of
from reproduction.shrink_networks import REMOVED, create_recipe, declare_branches
from reproduction.weight_training import Views, iterate_views
from ssl_adapt.adaptation.adaptation import Adaptation
from ssl_adapt.adaptation.architecture import edge_specs
from ssl_adapt.adaptation.removal import possible_changes, removal_scores
from ssl_adapt.adaptation.taylor import taylor_scores
from ssl_adapt.objectives import Objective
from ssl_adapt.recipe import Recipe
from ssl_adapt.training.objective import create_objective
from ssl_adapt.training.optimizers import create_weight_optimizer
from ssl_adapt.training.setting import load_splits

NETWORKS = ("resnet", "resnet_operations", "vit", "convnext")
Work = Callable[[], None]


def works(recipe: Recipe, network: str, batches: int) -> tuple[int, dict[str, Work]]:
    """The number of changes that are scored, and by name the work that is timed; "plain step" is the unit."""
    torch.manual_seed(1)
    train_set, _ = load_splits(recipe.data)
    objective = create_objective(recipe, train_set)
    declare_branches(network, objective.network.backbone, recipe.model.args)
    views = list(
        iterate_views(objective, train_set, batch_size=recipe.data.batch_size, steps=batches, seed=1, first_epoch=0)
    )
    backbone = objective.network.backbone.train()
    changes = [c for c in possible_changes(edge_specs(backbone)) if c.choice == REMOVED[network]]

    def step_of(objective: Objective, adaptation: Adaptation | None = None, *, joint: bool = False) -> Work:
        network = objective.network
        optimizer = create_weight_optimizer(network, recipe.train, torch.device("cpu"))
        theta = torch.optim.Adam(adaptation.theta_parameters(), 1e-2) if adaptation else None

        def step() -> None:
            if adaptation and joint:
                with adaptation.joint_pass():
                    loss_of(objective, views[0]).backward()
            else:
                loss_of(objective, views[0]).backward()
            optimizer.step()
            optimizer.zero_grad()
            if adaptation and not joint:
                with adaptation.architecture_pass(network):
                    loss_of(objective, views[0]).backward()
            if theta:
                theta.step()
                theta.zero_grad()

        return step

    def removal() -> None:
        removal_scores(
            backbone, changes, lambda v: loss_of(objective, v), views, specs=edge_specs(backbone),
            network=objective.network,
        )  # fmt: skip

    def taylor() -> None:
        def backward(v: Views) -> None:
            loss_of(objective, v).backward()

        taylor_scores(backbone, changes, backward, views, network=objective.network)

    found: dict[str, Work] = {"plain step": step_of(deepcopy(objective))}
    for name, joint in (("theta, alternating", False), ("theta, joint", True)):
        own = deepcopy(objective)
        adaptation = Adaptation(own.network.backbone, shape_change="forbid")
        found[name] = step_of(own, adaptation, joint=joint)
    return len(changes), {**found, "removal": removal, "squared Taylor": taylor}


def main(given: Sequence[str] | None = None) -> None:
    """Print a row of a Markdown table for each network, each cost in plain steps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", required=True, help="tar or folder of CIFAR-10")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--batches", type=int, default=8, help="that a score sees")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--width", type=int, default=8, help="of the ResNets")
    parser.add_argument("--image-px", type=int, default=16)
    arguments = parser.parse_args(given)
    for network in arguments.networks:
        recipe = create_recipe(
            network, 1, arguments.root, arguments.images, width=arguments.width, image_px=arguments.image_px
        )
        changes, by_name = works(recipe, network, arguments.batches)
        times: dict[str, list[float]] = {name: [] for name in by_name}
        for index in range(arguments.rounds + 1):
            for name, work in by_name.items():
                began = time.perf_counter()
                for _ in range(1 if name in ("removal", "squared Taylor") else arguments.batches):
                    work()
                if index:  # the first round warms up
                    times[name].append(time.perf_counter() - began)
        unit = median(times.pop("plain step"))
        # removal and Taylor are whole scores over the batches, in plain steps; theta's are the cost of a step
        shown = [
            f"{median(found) / unit * (arguments.batches if name in ('removal', 'squared Taylor') else 1):.2f}"
            for name, found in times.items()
        ]
        print(f"| {network} | {changes} | {1e3 * unit / arguments.batches:.0f} ms | {' | '.join(shown)} |", flush=True)


if __name__ == "__main__":
    main()
