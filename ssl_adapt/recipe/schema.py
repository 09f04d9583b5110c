"""The keys of a recipe: type, range, meaning, and a default only where it cannot change a result."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from ssl_adapt.data_names import ROOTS, WITH_COLUMNS, DataName
from ssl_adapt.errors import UserError
from ssl_adapt.recipe.adapt import AdaptSection
from ssl_adapt.recipe.objective_sections import ObjectiveSection, SupervisedSection
from ssl_adapt.recipe.section import Section
from ssl_adapt.recipe.train import TrainSection
from ssl_adapt.recipe.values import (
    BatchSize,
    ChannelMean,
    ChannelStd,
    Count,
    CountOrZero,
    FolderName,
    ModelArguments,
    Positive,
    Seed,
    Share,
    Text,
    Trackers,
)
from ssl_adapt.recipe.view_sections import ViewSections


class RunSection(Section):
    """Where a run is kept and how it is watched; nothing here changes a result."""

    dir: Text | None = Field(default=None, description="folder of the run; null means runs/NAME")
    resume: Literal["never", "auto", "extend"] = Field(
        default="never",
        description="auto continues from the last checkpoint in run.dir, or starts if there is none; "
        "extend does so with a larger train.epochs",
    )
    stop_after_epochs: Count | None = Field(
        default=None, description="save a checkpoint after this epoch and stop early, to be resumed later"
    )
    checkpoint_every_epochs: Count = Field(default=1, description="save a checkpoint every so many epochs")
    checkpoint_every_steps: Count | None = Field(
        default=None, description="save one every so many steps too, for epochs that take hours"
    )
    checkpoint_in_background: bool = Field(
        default=True,
        description="write checkpoints while training goes on, from a copy in memory; false: training waits meanwhile",
    )
    keep_checkpoints: Count = Field(default=2, description="checkpoints that are kept, in case the newest is damaged")
    accuracy_every_epochs: CountOrZero = Field(
        default=1,
        description="supervised: test accuracy every so many epochs; 0: only around the fix and at the end",
    )
    log_every_steps: CountOrZero = Field(
        default=50, description="log loss, learning rates, gradient norm and times every so many steps; 0: only epochs"
    )
    online_probe: bool = Field(
        default=False,
        description="without labels in the loss: a linear classifier learns beside the run, which it leaves as it "
        "is, and its accuracy is logged",
    )
    report: bool = Field(
        default=True, description="write the page of the run, report.html, into its folder when it ends or is stopped"
    )
    trackers: Trackers = Field(
        default=(), description="also log to these, on the disk; metrics.jsonl is always written"
    )


class DataSection(Section):
    """The images, and how they are batched and normalised."""

    name: DataName = Field(
        description="data set; digits needs no file, and folder, csv, hf and webdataset take what data.root names"
    )
    root: Text | None = Field(
        default=None,
        description="folder or tar that holds the images, a CSV, a data set of Hugging Face or a pattern of shards; "
        "null means the data set's usual place",
    )
    image_column: Text | None = Field(
        default=None, description="csv, hf: column of the images; webdataset: their ending; null: path, or found"
    )
    label_column: Text | None = Field(
        default=None, description="csv, hf: column of the labels; webdataset: their ending or JSON key; null: found"
    )
    image_px: Count = Field(description="side of the square images that the network sees, in pixels")
    batch_size: BatchSize = Field(
        description="images in a batch, over all processes; in simclr each is seen in two views; assumed"
    )
    workers: CountOrZero = Field(default=4, description="processes that decode images; only used when streaming")
    train_images: Count | None = Field(
        default=None, description="train on so many images, drawn once and the same for every seed; null: on all"
    )
    labelled_share: Share | None = Field(
        default=None,
        description="supervised: train on this share of the images alone, a fixed one, balanced over the classes and "
        "the same for every seed; null: on all",
    )
    on_bad_image: Literal["error", "replace"] = Field(
        default="error",
        description="error: an image that can't be read ends the run; replace: the next one of its class replaces it",
    )
    mean: ChannelMean = Field(description="subtracted from red, green, blue in [0, 1]")
    std: ChannelStd = Field(description="divides red, green, blue after data.mean is subtracted")

    @model_validator(mode="after")
    def _root_and_columns_fit_the_name(self) -> DataSection:
        if self.name in ROOTS and self.root is None:
            raise UserError(
                f"data.name={self.name} needs to know where the images are: add data.root={ROOTS[self.name]}"
            )
        columns = [key for key in ("image_column", "label_column") if getattr(self, key) is not None]
        if columns and self.name not in WITH_COLUMNS:
            raise UserError(f"data.{columns[0]} goes with data.name={' or '.join(WITH_COLUMNS)}: set it to null")
        return self


class ModelSection(Section):
    """The network that is pre-trained."""

    name: Text = Field(description="name of a timm model, one of ours or any other")
    args: ModelArguments = Field(
        description="further arguments of timm.create_model; model.args.NAME=VALUE sets one of them"
    )
    pretrained: bool = Field(
        default=False, description="start from timm's own weights of model.name, which timm downloads once"
    )
    weights: Text | None = Field(
        default=None,
        description="start from these weights: a .safetensors, .pth or .pt file, the folder of an export or a run, "
        "or hf-hub:NAME; an adapted network keeps its architecture",
    )
    classifier: Literal["keep", "new"] = Field(
        default="keep",
        description="of the weights: keep: where it has as many classes as the images, else a new one at random; "
        "new: always a new one",
    )

    @model_validator(mode="after")
    def _one_start(self) -> ModelSection:
        if self.pretrained and self.weights is not None:
            raise UserError(f"model.pretrained=true and model.weights={self.weights} are two starts: give one of them")
        for argument, key in (("pretrained", "pretrained=true"), ("checkpoint_path", "weights=FILE")):
            if argument in self.args:
                raise UserError(f"model.args.{argument} reads weights without any check: type model.{key} in its place")
        return self


class KnnSection(Section):
    """The evaluation on frozen features by nearest neighbours."""

    every_epochs: CountOrZero = Field(
        description="evaluate every so many epochs and at the end; 0: only at the start of the fix and at the end"
    )
    k: Count = Field(description="neighbours that vote")
    temperature: Positive = Field(description="votes weigh exp(cosine / temperature) under knn.weighting=exp")
    weighting: Literal["exp", "majority"] = Field(description="weight of a vote: by cosine, or one each")
    layer: Literal["backbone", "projection"] = Field(description="features that are compared")


class Recipe(Section):
    """One complete experiment: with the data, it determines the run."""

    name: FolderName = Field(description="name of the experiment and of its folder under runs/")
    seed: Seed = Field(description="seed of the weights, of the order of images and of the views")
    run: RunSection = Field(
        default=RunSection(), description="where the run is kept and how it is watched; may be absent"
    )
    data: DataSection = Field(description="the images")
    views: ViewSections = Field(
        description="the random augmentation: one section for all views of an image, or a list of one for each view"
    )
    model: ModelSection = Field(description="the network")
    objective: ObjectiveSection = Field(description="what is minimised")
    train: TrainSection = Field(description="how the weights are trained")
    adapt: AdaptSection | None = Field(
        description="how the architecture adapts; adapt=null trains the original network"
    )
    knn: KnnSection | None = Field(
        default=None,
        description="evaluation by nearest neighbours; not for supervised, which is evaluated by accuracy",
    )

    @property
    def run_dir(self) -> Path:
        """The folder of the run: `run.dir`, or runs/NAME below the current folder."""
        return Path("runs") / self.name if self.run.dir is None else Path(os.path.expanduser(self.run.dir))

    @property
    def evaluate_every_epochs(self) -> int:
        """Epochs from one evaluation to the next; 0: only at landmarks."""
        return self.knn.every_epochs if self.knn else self.run.accuracy_every_epochs

    @model_validator(mode="after")
    def _stages_fit_into_the_run(self) -> Recipe:
        problems = self._sections_that_do_not_fit()
        epochs = self.train.epochs
        for key in ("warmup_epochs", "freeze_epochs"):
            if getattr(self.train, key) > epochs:
                problems.append(
                    f"train.{key}={getattr(self.train, key)} is longer than train.epochs={epochs}: "
                    f"lower train.{key} or raise train.epochs"
                )
        if self.adapt is not None and self.adapt.epochs + self.adapt.anneal_epochs > epochs:
            annealing = f" with adapt.anneal_epochs={self.adapt.anneal_epochs}" if self.adapt.anneal_epochs else ""
            problems.append(
                f"adapt.epochs={self.adapt.epochs}{annealing} does not fit into train.epochs={epochs}: "
                "lower adapt.epochs or raise train.epochs"
            )
        if self.run.stop_after_epochs is not None and self.run.stop_after_epochs > epochs:
            problems.append(
                f"run.stop_after_epochs={self.run.stop_after_epochs} is beyond train.epochs={epochs}: "
                f"set it to {epochs} or less, or to null"
            )
        if problems:
            raise UserError("\n".join(problems))
        return self

    def _sections_that_do_not_fit(self) -> list[str]:
        name, problems = self.objective.name, []
        if self.knn is None and not isinstance(self.objective, SupervisedSection):
            problems.append(f"objective.name={name} needs the section knn: add its keys; --help lists them")
        if self.knn is not None and isinstance(self.objective, SupervisedSection):
            problems.append(f"objective.name={name} has no use for the section knn: type knn=null")
        if self.data.labelled_share is not None and not isinstance(self.objective, SupervisedSection):
            problems.append(
                f"data.labelled_share={self.data.labelled_share} is for objective.name=supervised, and {name} uses no "
                "labels: leave it out, or type data.train_images=NUMBER for fewer images"
            )
        if self.run.online_probe and isinstance(self.objective, SupervisedSection):
            problems.append("run.online_probe=true: supervised has a classifier of its own: leave it out")
        if self.run.online_probe and self.train.shard_weights:
            problems.append("run.online_probe=true was not tried with train.shard_weights=true: leave one of them out")
        wanted = self.objective.views_per_image
        if len(self.views) not in (1, wanted):
            problems.append(
                f"views: {len(self.views)} are given and objective.name={name} takes {wanted} of an image: "
                f"give a list of {wanted}, or one section for all"
            )
        return problems
