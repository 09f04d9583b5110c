"""The networks that linear probes and few labels compare: python -m reproduction.linear_runs root=TAR folder=RUNS.

Each run is one of `ssl-adapt pretrain`, kept in a folder of its own; a second call goes on where the first one ended.
`python -m reproduction.linear_study` measures them; results/linear.md has the plan and what came out.
"""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from pydantic import Field

from reproduction.table_options import Seeds
from ssl_adapt.commands.ending import run_command
from ssl_adapt.recipe.help import describe_options
from ssl_adapt.recipe.read import read_options
from ssl_adapt.recipe.section import Section
from ssl_adapt.recipe.values import Count, Text

USAGE = """\
usage: python -m reproduction.linear_runs root=TAR folder=RUNS [KEY=VALUE ...]

Trains the networks of results/linear.md that are not in the folder yet.
"""
NETWORK = ("model.name=resnet20_nat", "model.args.channels=8", "data.image_px=16")
SIMCLR = ("recipe=quickstart_cifar10", *NETWORK, "train.epochs=15", "train.max_steps=null", "knn.every_epochs=0")
LABELS = ("recipe=supervised_resnet20", *NETWORK, "views.pad_px=2", "train.lr=0.1", "run.accuracy_every_epochs=0")
SKIPS_FIRST = (
    "adapt.none_rule=threshold", "adapt.none_start=1.0", "adapt.none_threshold=0.9", "adapt.theta_lr=1e-2",
    "adapt.mode=hard", "adapt.anneal_epochs=0",
)  # fmt: skip
PLAIN = ("adapt=null",)
# share of the labels: how long and in what batches, so that few labels get fewer steps, but enough of them
SHARES: dict[str, tuple[str, ...]] = {
    "1": ("train.epochs=12",),
    "0.1": ("data.labelled_share=0.1", "train.epochs=60"),
    "0.01": ("data.labelled_share=0.01", "train.epochs=100", "data.batch_size=50"),
}
STAGE_EPOCHS = {"1": "0.25", "0.1": "2.6", "0.01": "13"}  # 26 steps of theta each, as in SimCLR's 0.67 epochs


class LinearRunsOptions(Section):
    """Which runs, and where they are kept."""

    root: Text = Field(description="folder or tar of CIFAR-10")
    folder: Text = Field(default="runs/linear", description="folder of the runs")
    seeds: Seeds = Field(default=(1, 2, 3), description="of weights, order and views")
    images: Count = Field(default=10_000, description="training images")


def arms() -> dict[str, tuple[str, ...]]:
    """Arguments of `ssl-adapt pretrain` for each arm, beside seed and images.

    A network that is fine-tuned while it adapts has its arms, `finetuned-1` and so on, in the same folder; whoever
    makes them puts them there.
    """
    found: dict[str, tuple[str, ...]] = {
        "simclr": (*SIMCLR, *PLAIN),
        "simclr_adapted": (*SIMCLR, *SKIPS_FIRST, "adapt.epochs=0.67"),
    }
    for share, length in SHARES.items():
        found[f"labels-{share}"] = (*LABELS, *length, *PLAIN)
        found[f"labels_adapted-{share}"] = (*LABELS, *length, *SKIPS_FIRST, f"adapt.epochs={STAGE_EPOCHS[share]}")
    return found


def run_folder(folder: Path, arm: str, seed: int) -> Path:
    """Where the run of an arm and a seed is."""
    return folder / f"{arm}-seed={seed}"


def run(arguments: Sequence[str]) -> None:
    """Train what is not in the folder yet."""
    if not arguments or {"-h", "--help"} & set(arguments):
        print(describe_options(USAGE, LinearRunsOptions), end="")
        return
    options = read_options(LinearRunsOptions, arguments)
    from ssl_adapt.recipe import load_recipe
    from ssl_adapt.training.loop import pretrain

    folder = Path(options.folder).expanduser()
    for seed in options.seeds:
        for arm, given in arms().items():
            path = run_folder(folder, arm, seed)
            if (path / "export").is_dir():
                continue
            own = [f"seed={seed}", f"data.root={options.root}", f"data.train_images={options.images}"]
            pretrain(
                load_recipe([*given, *own, f"run.dir={path}", "run.checkpoint_every_epochs=10", "run.resume=auto"])
            )


if __name__ == "__main__":
    run_command(partial(run, sys.argv[1:]))
