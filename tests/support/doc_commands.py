"""How a test runs each command of README and docs: small, as most would take hours, a GPU or a download.

The arguments here are put in the place of the command's own, or added to them.
"""

import shlex
from typing import NamedTuple


class How(NamedTuple):
    """Arguments that make a command small, whether it is fast then, and a command that must have run before."""

    overrides: tuple[str, ...] = ()
    is_fast: bool = False
    after: str | None = None


TINY = ("data.image_px=16", "data.workers=0", "train.max_steps=4")
DIGITS = (*TINY, "data.name=digits", "data.root=null", "data.batch_size=32")
KNN = ("knn.every_epochs=0", "knn.k=2")
HEADS = (*KNN, "objective.projector_hidden=16", "objective.projector_out=8")
RESNET, CELLS = "model.args={width: 4, layers: [1, 1]}", "model.args={channels: 4, cells: 3}"
VIT = "model.args={img_size: 16, patch_size: 4, embed_dim: 24, depth: 3}"
BY_RECIPE = {  # of pretrain, but for the commands in BY_COMMAND
    "grow_resnet20": (*DIGITS, *HEADS, "model.args={width: 4, layers: [3, 3]}", "adapt.score_batches=2"),
    "shrink_resnet20": (*DIGITS, *HEADS, "model.args={width: 4, layers: [3, 2]}", "adapt.score_batches=2"),
    "shrink_vit": (*DIGITS, VIT, "adapt.score_batches=2"),
    "simclr_resnet20": (*DIGITS, *HEADS, RESNET),
    "simclr_resnet50": (*DIGITS, *HEADS, RESNET),
    "simclr_resnet50_224": (*DIGITS, *HEADS, "model.args={layers: [2, 1, 1, 1], channels: [8, 8, 8, 8]}"),
    "simclr_darts24": (*DIGITS, *HEADS, CELLS),
    "byol_resnet20": (*DIGITS, *HEADS, RESNET),
    "vicreg_resnet20": (*DIGITS, *HEADS, RESNET),
    "supervised_resnet20": (*DIGITS, RESNET),
    "supervised_resnet20_nat": (*DIGITS, CELLS),
    "supervised_mobilenetv2": DIGITS,
    "supervised_darts": (*DIGITS, CELLS),
    "supervised_proxyless": (*DIGITS, "model.args={width: 0.1}"),
}
FOLDER = How((*TINY, *HEADS, RESNET, "data.root=images", "data.batch_size=4"))  # the fixture `workspace` has made it
NAT = "ssl-adapt nat recipe=supervised_resnet20 model.name=resnet20_nat genotype=found.json"
SEARCH = (
    "data.name=digits", "data.image_px=16", "data.train_images=64", "epochs=1", "batch_size=16", "channels=4",
    "cells=3", "transforms=1",
)  # fmt: skip
SHORT = (
    "data.name=digits", "data.image_px=16", "data.batch_size=32", "data.train_images=64", "train.warmup_epochs=0",
    "adapt=null", "run.dir=runs/short", *HEADS, RESNET,
)  # fmt: skip
PLAIN = ("ssl-adapt", "pretrain", "recipe=simclr_resnet20", "adapt=null", *DIGITS, *HEADS)
DEEPER = "model.args={width: 4, layers: [2, 2]}"
ONE_RUN = ("dry_run=true", "try_steps=false", "networks=resnet20_nat", "methods=original", "seeds=1", "scale=cpu")
EMBED = "ssl-adapt embed model=runs/quickstart out=features"
ORIGINAL = "ssl-adapt pretrain recipe=quickstart adapt=null"
BY_COMMAND = {
    "ssl-adapt recipes": How(is_fast=True),
    "ssl-adapt recipes quickstart": How(is_fast=True),
    "ssl-adapt pretrain --help": How(is_fast=True),
    "ssl-adapt pretrain recipe=quickstart 'run.trackers=[tensorboard]' run.dir=runs/tracked": How(
        ("train.max_steps=4", CELLS)
    ),
    "ssl-adapt runs": How(is_fast=True),
    "ssl-adapt compare 'original=runs/original_seed=*' 'adapted=runs/adapted_seed=*'": How(
        ("original=runs/quickstart", "adapted=runs/quickstart"), is_fast=True
    ),
    "ssl-adapt runs sort=score 'name=*seed=1'": How(("name=quick*",), is_fast=True),
    "ssl-adapt pretrain recipe=debug adapt.score=removal adapt.granularity=branch adapt.budget_macs=0.7": How(
        ("data.image_px=8", "train.max_steps=4", "adapt.score_batches=2"), is_fast=True
    ),
    "ssl-adapt pretrain recipe=debug adapt.score=gradmax adapt.start_share=0.5 adapt.granularity=branch "
    "adapt.rounds=2": How(("data.image_px=8", "train.max_steps=4", "adapt.score_batches=2")),
    # The run that others read; the fixture `workspace` makes it.
    "ssl-adapt pretrain recipe=quickstart": How(("train.max_steps=4", "run.dir=runs/quickstart", CELLS), is_fast=True),
    "ssl-adapt knn model=runs/quickstart": How(is_fast=True),
    "ssl-adapt knn model=runs/quickstart search=ivf probes=8": How(is_fast=True),
    "ssl-adapt knn model=resnet18 data=cifar10 protocol=dino": How(("data=digits", "pretrained=false", "image_px=32")),
    EMBED: How(("workers=0",), is_fast=True),
    "ssl-adapt embed model=resnet18 data=folder root=/my/images image_px=224 out=my_features": How(
        ("pretrained=false", "root=images", "image_px=32", "workers=0")
    ),
    "ssl-adapt retrieve features=features query=cat.jpg": How(
        ("query=images/test/a/0.png",), is_fast=True, after=EMBED
    ),
    "ssl-adapt retrieve features=features query=/my/images k=5 csv=near.csv": How(("query=images",), after=EMBED),
    "ssl-adapt linear model=runs/quickstart": How(is_fast=True),
    "ssl-adapt linear model=runs/quickstart labelled_share=0.1 json=linear.json": How(),
    "ssl-adapt linear model=resnet18 data=cifar10 protocol=sgd epochs=30": How(
        ("data=digits", "pretrained=false", "image_px=32", "labelled_share=0.1", "epochs=2")
    ),
    "ssl-adapt pretrain recipe=quickstart run.online_probe=true run.dir=runs/probed": How(("train.max_steps=4", CELLS)),
    "ssl-adapt inspect model=darts_cifar drawing=cells.svg json=darts.json": How(('args={"cells": 4}',)),
    "ssl-adapt inspect model=runs/quickstart drawing=cells.png": How(is_fast=True),
    f"{ORIGINAL} run.dir=runs/original": How(("train.max_steps=4", "run.dir=runs/another", CELLS)),
    "ssl-adapt report before=runs/original after=runs/quickstart drawing=cells.svg": How(
        after=f"{ORIGINAL} run.dir=runs/original train.max_steps=4 '{CELLS}'"
    ),
    "ssl-adapt report theta=runs/quickstart plot=theta.svg": How(is_fast=True),
    "ssl-adapt report run=runs/quickstart": How(),
    "ssl-adapt report run=runs/quickstart page=quickstart.html figures=figures/": How(("figures=paper",)),
    "ssl-adapt report 'run=runs/original*,runs/adapted*' page=comparison.html": How(
        ("run=runs/quickstart,runs/quickstart",), is_fast=True
    ),
    "ssl-adapt export model=runs/quickstart out=quickstart": How(is_fast=True),
    "ssl-adapt export model=runs/quickstart out=quickstart.onnx normalize=true": How(),
    "ssl-adapt export model=runs/quickstart out=quickstart.pt2": How(),
    "ssl-adapt export model=runs/quickstart push=me/quickstart": How(("push=null", "out=pushed")),  # there is no hub
    "ssl-adapt report before=resnet20_nat after=runs/table_1_cpu/resnet20_nat-nat-seed=1 drawing=cells.svg": How(
        ("before=runs/quickstart", "after=runs/quickstart")
    ),
    "ssl-adapt report theta=runs/table_1_cpu/resnet20_nat-full_present-seed=1 plot=theta.svg": How(
        ("theta=runs/quickstart",)
    ),
    "ssl-adapt bench only=nt_xent growth=32768": How(("growth=1024", "repeats=2")),
    "ssl-adapt bench only=adaptable": How(("repeats=2",)),
    "ssl-adapt grid recipe=simclr_resnet20 seed=0,1,2 adapt.sharing=full,cell jobs=2": How(
        (*BY_RECIPE["simclr_resnet20"], "seed=0,1", "adapt.sharing=full", "folder=runs/grid")
    ),
    "ssl-adapt reproduce table=1 scale=cpu jobs=2": How(ONE_RUN),
    "ssl-adapt reproduce table=1 dry_run=true try_steps=true": How(ONE_RUN),
    "ssl-adapt reproduce table=1": How(ONE_RUN),
    NAT: How(SEARCH),
    "ssl-adapt pretrain recipe=supervised_resnet20 model.name=resnet20_nat adapt=null"
    " model.args.genotype=found.json": How(
        (*DIGITS, "model.args.channels=4", "model.args.cells=3"), after=shlex.join([*shlex.split(NAT), *SEARCH])
    ),
    "ssl-adapt pretrain recipe=simclr_resnet20 run.resume=extend train.epochs=200": How(
        (*SHORT, "train.epochs=2"),
        after=shlex.join(["ssl-adapt", "pretrain", "recipe=simclr_resnet20", "train.epochs=1", *SHORT]),
    ),
    "ssl-adapt pretrain recipe=simclr_resnet20 model.name=convnext_atto 'adapt.edges=stages.*.blocks.*'"
    " data.image_px=64": How(
        (*DIGITS, *HEADS, "data.image_px=64", "model.args={depths: [1, 1, 1, 1], dims: [8, 8, 8, 8]}")
    ),
    "ssl-adapt pretrain recipe=simclr_resnet50 data.name=folder data.root=/my/images": FOLDER,
    "ssl-adapt pretrain recipe=simclr_resnet20 data.name=folder data.root=/my/images data.image_px=64": FOLDER,
    "ssl-adapt pretrain recipe=simclr_resnet20 data.name=folder data.root=/my/images data.on_bad_image=replace": FOLDER,
    "ssl-adapt pretrain recipe=simclr_resnet20 data.name=folder data.root=/my/images"
    " 'data.mean=[0.48,0.45,0.40]' 'data.std=[0.28,0.27,0.28]'": FOLDER,
    "ssl-adapt pretrain recipe=simclr_resnet20 data.name=csv data.root=/my/images.csv": How(
        (*FOLDER.overrides, "data.root=images.csv")
    ),
    "ssl-adapt pretrain recipe=simclr_resnet20 data.name=webdataset 'data.root=/my/shards/{000000..000002}.tar'": How(
        (*FOLDER.overrides, "data.root=shards/{000000..000002}.tar")
    ),
    "ssl-adapt pretrain recipe=simclr_resnet20 data.name=webdataset 'data.root=/my/shards/*.tar'"
    " data.on_bad_image=replace": How((*FOLDER.overrides, "data.root=./shards/*.tar")),
    "ssl-adapt pretrain recipe=simclr_resnet20 data.name=hf data.root=/my/saved_dataset": How(
        (*FOLDER.overrides, "data.root=saved_dataset")
    ),
    "ssl-adapt pretrain recipe=supervised_resnet20 data.name=folder data.root=/my/images.tar": How(
        (*TINY, RESNET, "data.root=images.tar", "data.batch_size=4")
    ),
    "ssl-adapt pretrain recipe=simclr_resnet20 model.name=resnet18 model.pretrained=true data.name=folder"
    " data.root=/my/images data.image_px=64": How(
        (*FOLDER.overrides, "model.pretrained=false", "model.args={layers: [2, 1, 1, 1], channels: [8, 8, 8, 8]}")
    ),
    "ssl-adapt pretrain recipe=simclr_resnet20 model.weights=weights.safetensors data.name=folder"
    " data.root=/my/images": How(
        (*FOLDER.overrides, "model.weights=runs/file/export/model.safetensors"),
        after=shlex.join([*PLAIN, RESNET, "run.dir=runs/file"]),
    ),
    "ssl-adapt pretrain recipe=quickstart model.weights=runs/quickstart adapt=null run.dir=runs/longer": How(
        ("train.max_steps=4", CELLS), is_fast=True
    ),
    "ssl-adapt pretrain recipe=simclr_resnet20 model.weights=runs/simclr_resnet20 adapt.score=removal"
    " adapt.granularity=branch adapt.budget_macs=0.6 run.dir=runs/shrunk": How(
        (*BY_RECIPE["simclr_resnet20"], DEEPER), after=shlex.join([*PLAIN, DEEPER, "run.dir=runs/simclr_resnet20"])
    ),
    "ssl-adapt finetune recipe=finetune_resnet20 model.weights=runs/quickstart data.name=digits"
    " data.labelled_share=0.1 run.dir=runs/few_labels": How(
        ("train.max_steps=4", "data.batch_size=32", "adapt.score_batches=2", "adapt.granularity=null"), is_fast=True
    ),
    "ssl-adapt finetune recipe=finetune_resnet20 model.weights=runs/simclr_resnet20": How(
        (*DIGITS, "adapt.score_batches=2"), after=shlex.join([*PLAIN, DEEPER, "run.dir=runs/simclr_resnet20"])
    ),
    "ssl-adapt finetune recipe=finetune_vit model.name=deit_tiny_patch16_224 model.pretrained=true data.name=folder"
    " data.root=/my/images data.image_px=64": How(
        (
            *TINY,
            "data.root=images",
            "data.batch_size=4",
            "adapt.score_batches=2",
            "model.pretrained=false",
            "model.weights=runs/vit/export/model.safetensors",
            VIT,
        ),
        after=shlex.join(
            [
                "ssl-adapt",
                "pretrain",
                "recipe=shrink_vit",
                "model.name=deit_tiny_patch16_224",
                "adapt=null",
                *DIGITS,
                VIT,
                "run.dir=runs/vit",
            ]
        ),
    ),
    "ssl-adapt finetune recipe=simclr_resnet20 model.weights=runs/simclr_resnet20 data.name=folder"
    " data.root=/my/images run.dir=runs/on_my_images": How(
        (*TINY, *HEADS, "data.root=images", "data.batch_size=4"),
        after=shlex.join([*PLAIN, DEEPER, "run.dir=runs/simclr_resnet20"]),
    ),
    # In processes of their own, as they stand but for these.
    "accelerate launch scripts/pretrain.py recipe=simclr_resnet50": How(BY_RECIPE["simclr_resnet50"]),
    "accelerate launch -m ssl_adapt pretrain recipe=simclr_resnet50": How(BY_RECIPE["simclr_resnet50"]),
    "ACCELERATE_USE_CPU=1 torchrun --standalone --nproc_per_node 2 -m ssl_adapt pretrain recipe=debug": How(
        ("train.max_steps=2",)
    ),
}

BEFORE_PYTHON = {"docs/features.md": EMBED}  # what a page's Python reads


def how(command: str) -> How | None:
    """How the command is run, or None if no line here says it."""
    if command in BY_COMMAND:
        return BY_COMMAND[command]
    words = shlex.split(command)
    if words[:2] == ["ssl-adapt", "pretrain"]:
        return How(BY_RECIPE[words[2].removeprefix("recipe=")])
    return None


def with_overrides(arguments: list[str], overrides: tuple[str, ...]) -> list[str]:
    """The arguments without those that the overrides replace, and the overrides; of these the last of a key counts."""
    last = {override.partition("=")[0]: override for override in overrides}
    kept = [argument for argument in arguments if argument.partition("=")[0] not in last]
    return [*kept, *last.values()]
