"""The cost of a table: command, network size and operations of each run, and on request trial steps of each."""

import json
import tempfile
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path

import torch
from rich.console import Console

from reproduction.nat.nat_options import create_settings, read_search_arguments, state_folder
from reproduction.nat.search import search
from reproduction.starts import plain_network
from reproduction.table_options import Request
from reproduction.table_runs import TableRun
from reproduction.tables import markdown
from ssl_adapt.adaptation.cost import count_macs, count_parameters
from ssl_adapt.data import load_image_splits
from ssl_adapt.recipe import Recipe, load_recipe
from ssl_adapt.training.create_adaptation import create_adaptation
from ssl_adapt.training.loop import pretrain

IMAGES = {"cifar10": 50_000, "tiny_imagenet": 100_000}
TRIAL_IMAGES, TRIAL_BATCH, TRIAL_STEPS = 64, 16, 2  # a step for each stage
_HEADER = ("Run", "Parameters", "MACs (M)", "Training (TMACs)", "Predicted hours here")


def dry_run(request: Request, console: Console) -> None:
    """Print the commands of all runs and a table of their cost; to find it, every network is built and made adaptive.

    With `try_steps`, the first seed of each is also trained: a step of each stage, on 16 images, in a temporary
    folder. The predicted hours come from those steps and are rough.

    Raises:
        ValueError: if a recipe is wrong, or a network can't be built.
    """
    for run in request.runs:
        start = None if run.has_start() else f"<found by {run.found_by}>"
        for grid_run in [run.search()] * (run.method.how == "nat") + [run.grid_run(start)]:
            text = f"{grid_run.name}: ssl-adapt {grid_run.command} {' '.join(grid_run.arguments)}"
            console.print(text, markup=False, soft_wrap=True)
    first = [run for run in request.runs if run.seed == request.runs[0].seed]
    rows, hours_of_all = [], 0.0
    with tempfile.TemporaryDirectory() as folder:
        for run in first:
            recipe = run.recipe() if run.is_second_round() else load_recipe(run.arguments())
            network = plain_network(recipe)
            px = recipe.data.image_px
            macs = count_macs(network, torch.zeros(1, 3, px, px))
            if recipe.adapt is not None:
                create_adaptation(plain_network(recipe), recipe.adapt)
            hours = _try(run, Path(folder), console) if request.try_steps else None
            hours_of_all += hours or 0.0
            work = 3 * macs * _passes(recipe) / 1e12  # forward, and about twice as much backward
            rows.append(
                (run.name, f"{count_parameters(network):,}", f"{macs / 1e6:,.1f}",
                 "-" if run.method.how == "nat" else f"{work:,.1f}",  # of cells that are not known yet
                 "-" if hours is None else f"{hours:,.2f}")
            )  # fmt: skip
    console.print(markdown(_HEADER, rows), markup=False, soft_wrap=True)
    seeds = len({run.seed for run in request.runs})
    of_seeds = "of one seed" if seeds == 1 else f"of each of {seeds} seeds"
    console.print(f"{len(request.runs):,} runs: {len(rows)} {of_seeds}", markup=False)
    if not request.try_steps:
        console.print("hours are predicted with try_steps=true", markup=False)
    if hours_of_all:
        predicted = f"{hours_of_all * seeds:,.1f} hours"
        console.print(f"predicted on this machine for those that were tried, {of_seeds}: {predicted}", markup=False)


def _passes(recipe: Recipe) -> float:
    """Number of images, or views, that the network is trained on, including those of theta's pass."""
    images = recipe.data.train_images or IMAGES[recipe.data.name]
    views = recipe.objective.views_per_image
    adapted = recipe.adapt.epochs if recipe.adapt else 0
    return images * views * (recipe.train.epochs + adapted)


def _try(run: TableRun, folder: Path, console: Console) -> float | None:
    """Make a few steps of the run; returns the hours that the whole run would take at their speed.

    None for a control of a method that was not tried before it.
    """
    trial = replace(run, folder=folder)
    if run.method.source and not trial.has_start():
        console.print(f"not trying {run.name}: add methods={run.method.source}, from which it starts", markup=False)
        return None
    console.print(f"trying {run.name}", markup=False)
    hours = _try_search(trial) if run.method.how == "nat" else 0.0
    own = ("train.max_steps", "data.batch")
    arguments = [argument for argument in trial.arguments() if not argument.startswith(own)]
    if load_recipe(arguments).knn is not None:
        arguments = [argument for argument in arguments if not argument.startswith("knn.")]
        arguments += ["knn.k=10", "knn.every_epochs=0"]  # a small bank, as only the steps matter
    recipe = load_recipe(
        [*arguments, f"run.dir={json.dumps(str(trial.path))}", f"train.max_steps={TRIAL_STEPS}",
         f"data.batch_size={TRIAL_BATCH}"]
    )  # fmt: skip
    with redirect_stdout(StringIO()):
        pretrain(recipe)
    events = map(json.loads, (trial.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    seconds = float(sum(event["seconds"] for event in events if event["event"] == "epoch"))
    images = recipe.data.train_images or IMAGES[recipe.data.name]
    epochs = recipe.train.epochs + (recipe.adapt.epochs if recipe.adapt else 0)
    passes = TRIAL_STEPS + (1 if recipe.adapt else 0)  # theta's is one more
    return hours + seconds / (passes * TRIAL_BATCH) * images * epochs / 3600


def _try_search(trial: TableRun) -> float:
    """NAT's search for one epoch on few images; the hours of all of it."""
    recipe, options = read_search_arguments(trial.search().arguments)
    data, settings = recipe.data, create_settings(options)
    train_set = load_image_splits(
        data.name, root=data.root, image_px=data.image_px, train_images=TRIAL_IMAGES, on_bad_image=data.on_bad_image
    ).train
    short = replace(settings, epochs=1, batch_size=TRIAL_BATCH, transforms=1)
    result = search(recipe, train_set, short, state_folder(options.genotype), report=lambda _: None)
    options.genotype.write_text(result.genotype.to_json(), encoding="utf-8")
    images = data.train_images or IMAGES[data.name]
    return result.history[0].seconds * settings.epochs * images / TRIAL_IMAGES / 3600
