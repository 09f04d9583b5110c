"""What a run will do, told before it begins: the network and its cost, its edges, the stages."""

from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from ssl_adapt.adaptation.architecture import apply_architecture, edge_specs, unmixed
from ssl_adapt.adaptation.cost import count_macs, count_parameters
from ssl_adapt.errors import UserError
from ssl_adapt.evaluation.monitor import Monitor
from ssl_adapt.export import export_timm
from ssl_adapt.json_text import one_line
from ssl_adapt.processes import process_count
from ssl_adapt.recipe import AdaptSection, DataSection, ModelSection, Recipe
from ssl_adapt.runs.checkpoint import random_state, set_random_state
from ssl_adapt.runs.log import RunLog
from ssl_adapt.training.choice import WORDS
from ssl_adapt.training.learner import Learner
from ssl_adapt.training.memory import estimate_memory
from ssl_adapt.training.objective import create_backbone
from ssl_adapt.training.schedules import Stages, steps_to_change


def network_cost(learner: Learner, model: ModelSection, data: DataSection) -> tuple[int, int]:
    """Parameters and multiply-adds of the network as the run begins or goes on: with what is fixed, and nothing mixed.

    Raises:
        ValueError: if the network can't take images of the recipe's size.
    """
    with torch.device("meta"):  # without memory or random numbers
        network = create_backbone(model, data, learner.adapt, num_classes=learner.network.backbone.num_classes)
        fixed = learner.architecture
        if fixed is not None:
            apply_architecture(network, fixed)
    try:
        return count_parameters(network), macs_of(network, data.image_px)
    except (RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"model.name={_timm_name(model)} can't take RGB images of data.image_px={data.image_px}: {reason}"
        ) from None


def describe_plan(
    recipe: Recipe, learner: Learner, monitor: Monitor, stages: Stages, cost: tuple[int, int]
) -> list[tuple[str, str]]:
    """What will happen, as rows of name and meaning.

    Args:
        recipe: what to do.
        learner: has the network.
        monitor: how it is judged.
        stages: when.
        cost: parameters and multiply-adds of the network.
    """
    data, (parameters, macs) = recipe.data, cost
    heads = sum(count_parameters(head) for head in learner.network.heads)
    return [
        ("run", f"{recipe.run_dir}, seed {recipe.seed}, {learner.accelerator.device}, {_precision(learner)}"),
        (
            "data",
            f"{data.name} at {data.image_px} px, batch {data.batch_size}{_describe_shares(recipe.train.accumulate)}, "
            f"{stages.steps_per_epoch:,} steps an epoch",
        ),
        (
            "network",
            f"{_timm_name(recipe.model)}: {parameters:,} parameters, {macs:,} multiply-adds"
            + (f"; heads {heads:,} parameters" if heads else ""),
        ),
        *([("labels", str(split))] if (split := monitor.bank.label_split) else []),
        ("memory", str(estimate_memory(learner, data.batch_size))),
        ("edges", _describe_edges(learner)),
        ("stages", _describe_stages(stages, recipe.adapt)),
        (monitor.name, monitor.describe()),
    ]


def warn_if_too_short(log: RunLog, learner: Learner, stages: Stages) -> None:
    """Say so where the architecture stage is too short to change any edge."""
    adapt = learner.adapt
    if learner.adaptation and adapt and adapt.score == "theta" and not adapt.budget and not adapt.choices:
        kinds = {
            spec.kind
            for spec in learner.adaptation.edges
            if spec.kind == "operation" or not (adapt.shape_change == "forbid" and spec.changes_shape)
        }
        none_way = (1.0 if adapt.none_rule == "literal" else adapt.none_threshold) - adapt.none_start
        quickest = min((steps_to_change(kind, theta_lr=adapt.theta_lr, none_way=none_way) for kind in kinds), default=0)
        if quickest > stages.architecture_steps:
            log.say(
                f"warning: no edge is likely to change: the quickest needs about {quickest:,} steps at "
                f"adapt.theta_lr={adapt.theta_lr:g}, and the architecture stage has {stages.architecture_steps:,}; "
                "raise adapt.epochs or adapt.theta_lr\n",
                style="yellow",
            )


def try_export(learner: Learner, model: ModelSection) -> None:
    """Export the network as it is now, unmixed, into a temporary folder: no run is to end with what can't be exported.

    Nothing of it is left behind; the network and random numbers stay as they were.

    Raises:
        ValueError: if it can't be exported, or its export can't be loaded.
        OSError: if the temporary folder (TMPDIR) has no room.

    Distributed: collective, as BatchNorm may take its statistics over all processes; the main process exports.
    """
    px, state = learner.image_px, random_state()
    try:
        network = unmixed(learner.network.backbone).train()
        with torch.no_grad():  # one pass, so that what training moves is no longer as in every new network
            network(torch.randn(2, 3, px, px).to(learner.accelerator.device))
        if learner.accelerator.is_main_process:
            with TemporaryDirectory() as folder:
                export_timm(network, Path(folder) / "export", extra_args=model.args)
    except OSError:
        raise
    except Exception as error:  # of whatever network timm has, or the user has registered there
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
        raise UserError(
            f"model.name={model.name} with model.args={model.args} can't be exported, so that training it would be in "
            f"vain: {one_line(cause)[:300]}"
        ) from error
    finally:
        set_random_state(state)


def macs_of(backbone: nn.Module, px: int) -> int:
    """Multiply-adds of the backbone for one image of that size."""
    return count_macs(backbone, torch.zeros(1, 3, px, px))


def _timm_name(model: ModelSection) -> str:
    """The name of the network; of one of timm that was made adaptable, timm's."""
    return str(model.args.get("base", model.name))


def _precision(learner: Learner) -> str:
    return "bfloat16 autocast" if learner.accelerator.mixed_precision == "bf16" else "float32"


def _describe_shares(accumulate: int) -> str:
    shares = [f"{process_count()} processes"] if process_count() > 1 else []
    parts = [f"{accumulate} parts"] if accumulate > 1 else []
    return f" in {' of '.join(shares + parts)}" if shares or parts else ""


def _describe_edges(learner: Learner) -> str:
    adapt = learner.adapt
    if adapt is None:
        return "stay as they are (adapt=null)"
    if learner.adaptation is None and adapt.score == "theta":
        return "fixed already"
    specs = edge_specs(learner.network.backbone)
    kinds = Counter(spec.kind for spec in specs)
    described = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    if adapt.score != "theta" or learner.adaptation is None:
        return f"{len(specs)} ({described}), chosen by {adapt.score}{_describe_budget(adapt)}"
    groups = len(learner.adaptation.theta)
    return f"{sum(kinds.values())} ({described}), {groups} theta (sharing {adapt.sharing}){_describe_budget(adapt)}"


def _describe_budget(adapt: AdaptSection) -> str:
    if adapt.budget is None:
        return ""
    unit, share = adapt.budget
    if adapt.start_share is not None:
        return f", grown from at most {adapt.start_share:.0%} of the {WORDS[unit]} to {share:.0%}"
    return f", until at most {share:.0%} of the {WORDS[unit]} are left"


def _describe_stages(stages: Stages, adapt: AdaptSection | None) -> str:
    network = stages.total_steps - stages.fix_step
    parts = []
    if adapt is not None:
        how = {"alternating": "weights and theta by turns", "joint": "weights and theta in one pass"}[adapt.theta_pass]
        parts.append(f"{stages.architecture_steps:,} steps of {how if adapt.score == 'theta' else 'weights'}")
        if adapt.score != "theta" or adapt.budget is not None:
            parts.append("choice")
        if stages.anneal_steps:
            parts.append(f"{stages.anneal_steps:,} steps of annealing")
        parts.append(f"fix, all in {stages.rounds} rounds" if stages.rounds > 1 else "fix")
    if network:
        parts.append(f"{network:,} steps of weights")
    return " -> ".join(parts)
