"""The keys of a recipe: type, range, meaning, and a default only where it cannot change a result."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ssl_adapt.recipe.values import (
    BatchSize,
    Betas,
    ChannelMean,
    ChannelStd,
    Count,
    CountOrZero,
    CropRatio,
    CropScale,
    FolderName,
    Fraction,
    Jitter,
    ModelArguments,
    Number,
    Positive,
    PositiveOrZero,
    Probability,
    Seed,
    Text,
    Trackers,
)


class Section(BaseModel):
    """A frozen group of keys; unknown keys, values of another type and infinite numbers are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class RunSection(Section):
    """Where a run is kept and how it is watched; nothing here changes a result."""

    dir: Text | None = Field(default=None, description="folder of the run; null means runs/NAME")
    resume: Literal["never", "auto"] = Field(
        default="never",
        description="auto goes on from the last checkpoint in run.dir, or starts if there is none",
    )
    stop_after_epochs: Count | None = Field(
        default=None, description="save a checkpoint after this epoch and stop early, to be resumed later"
    )
    checkpoint_every_epochs: Count = Field(default=1, description="save a checkpoint every so many epochs")
    trackers: Trackers = Field(default=(), description="also log to these; metrics.jsonl is always written")


class DataSection(Section):
    """The images, and how they are batched and normalised."""

    name: Literal["digits", "fashion_mnist", "cifar10", "cifar100", "tiny_imagenet", "folder"] = Field(
        description="data set; digits needs no file, folder takes the images under data.root"
    )
    root: Text | None = Field(
        default=None, description="folder or tar that holds the images; null means the data set's usual place"
    )
    image_px: Count = Field(description="side of the square images that the network sees, in pixels")
    batch_size: BatchSize = Field(description="images in a batch, each seen in two views; assumed")
    workers: CountOrZero = Field(default=4, description="processes that decode images; only used when streaming")
    mean: ChannelMean = Field(description="subtracted from red, green, blue in [0, 1]")
    std: ChannelStd = Field(description="divides red, green, blue after data.mean is subtracted")

    @model_validator(mode="after")
    def _folder_needs_root(self) -> DataSection:
        if self.name == "folder" and self.root is None:
            raise ValueError("data.name=folder needs to know where the images are: add data.root=PATH")
        return self


class ViewsSection(Section):
    """The random augmentation that turns an image into a view."""

    crop_scale: CropScale = Field(description="smallest and largest area of the crop, as a share of the image")
    crop_ratio: CropRatio = Field(description="smallest and largest width / height of the crop")
    antialias: bool = Field(description="low-pass filter where a crop is made smaller, as PIL does")
    flip_p: Probability = Field(description="probability of a horizontal flip")
    jitter: Jitter = Field(description="strength of brightness, contrast, saturation and hue jitter")
    jitter_p: Probability = Field(description="probability of the colour jitter")
    grayscale_p: Probability = Field(description="probability of dropping the colours")


class ModelSection(Section):
    """The network that is pre-trained."""

    name: Text = Field(description="name of a timm model, one of ours or any other")
    args: ModelArguments = Field(
        description="further arguments of timm.create_model; model.args.NAME=VALUE sets one of them"
    )


class ObjectiveSection(Section):
    """The self-supervised loss and its projector."""

    name: Literal["simclr"] = Field(description="what is minimised; simclr is NT-Xent on two views")
    temperature: Positive = Field(description="divides the cosines in NT-Xent")
    projector_hidden: Count = Field(description="width of the projector's hidden layer")
    projector_out: Count = Field(description="width of the projection")
    view_forward: Literal["separate", "joint"] = Field(
        description="separate: BatchNorm statistics per view, as the public reference; "
        "joint: one forward over both views"
    )


class TrainSection(Section):
    """How the weights are trained."""

    epochs: Count = Field(description="length of the run: architecture stage, annealing and network stage")
    max_steps: Count | None = Field(
        default=None,
        description="ends the run after that many steps, the stages shrunk in proportion, "
        "so that any recipe can be tried in seconds",
    )
    optimizer: Literal["adam", "adamw", "sgd"] = Field(description="optimiser of the weights")
    lr: Positive = Field(description="peak learning rate of the weights")
    momentum: Fraction | None = Field(default=None, description="momentum; given if and only if train.optimizer=sgd")
    weight_decay: PositiveOrZero = Field(description="weight decay of the weights")
    schedule: Literal["constant", "cosine"] = Field(
        description="learning rate after the warm-up: constant, or a cosine down to 0 at the end"
    )
    warmup_epochs: CountOrZero = Field(description="epochs in which the learning rate rises linearly from 0")
    clip_grad_norm: Positive | None = Field(description="largest norm of the weights' gradient; null means off")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="auto: bfloat16 autocast on a GPU, float32 on a CPU"
    )

    @model_validator(mode="after")
    def _momentum_only_with_sgd(self) -> TrainSection:
        if self.optimizer == "sgd" and self.momentum is None:
            raise ValueError("train.optimizer=sgd needs a momentum: add train.momentum=0.9, or 0 for none")
        if self.optimizer != "sgd" and self.momentum is not None:
            raise ValueError(
                f"train.momentum={self.momentum} has no meaning for train.optimizer={self.optimizer}: "
                "set train.momentum=null or train.optimizer=sgd"
            )
        return self


class AdaptSection(Section):
    """How the architecture is adapted while the weights train."""

    sharing: Literal["full", "cell"] = Field(
        description="full: each edge has its own theta; cell: edges at the same place of like cells share one"
    )
    epochs: Count = Field(description="length of the architecture stage; assumed")
    theta_lr: Positive = Field(description="learning rate of theta's Adam; assumed")
    theta_betas: Betas = Field(description="betas of theta's Adam; assumed")
    theta_weight_decay: PositiveOrZero = Field(description="weight decay of theta's Adam; assumed")
    theta_batch: Literal["same", "next"] = Field(
        description="theta step on the batch of the weights' step or on the next one; assumed"
    )
    theta_updates_bn: bool = Field(description="whether the theta pass moves BatchNorm's running statistics; assumed")
    shape_change: Literal["pad", "project", "forbid"] = Field(
        description="the identity where an edge changes the shape: pad: subsample and zero-pad or slice, "
        "no parameters; project: learnt; forbid: no such candidate; assumed"
    )
    none_rule: Literal["literal", "threshold"] = Field(
        description="a none edge becomes the identity where: literal: theta_id is the largest, by eq. 1; "
        "threshold: theta_id > adapt.none_threshold"
    )
    none_threshold: Number = Field(
        description="theta_id above which a none edge becomes the identity under adapt.none_rule=threshold"
    )
    mode: Literal["hard", "anneal"] = Field(
        description="hard: fix at the end of the stage; anneal: theta first moves linearly to its one-hot target"
    )
    anneal_epochs: CountOrZero = Field(description="epochs of annealing after the stage; 0 with adapt.mode=hard")
    scale: Literal["one", "fold"] = Field(
        description="scale of a kept operation: one: theta is dropped; fold: theta goes into its BatchNorm; assumed"
    )

    @model_validator(mode="after")
    def _annealing_has_epochs(self) -> AdaptSection:
        if self.mode == "hard" and self.anneal_epochs > 0:
            raise ValueError(
                f"adapt.anneal_epochs={self.anneal_epochs} has no meaning for adapt.mode=hard: "
                "set adapt.anneal_epochs=0 or adapt.mode=anneal"
            )
        if self.mode == "anneal" and self.anneal_epochs == 0:
            raise ValueError(
                "adapt.mode=anneal needs epochs to anneal in: set adapt.anneal_epochs=1 or more, or adapt.mode=hard"
            )
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
    """One experiment, complete: the run follows from it and the data alone."""

    name: FolderName = Field(description="name of the experiment and of its folder under runs/")
    seed: Seed = Field(description="seed of weights, order of images and views")
    run: RunSection = Field(
        default=RunSection(), description="where the run is kept and how it is watched; may be absent"
    )
    data: DataSection = Field(description="the images")
    views: ViewsSection = Field(description="the random augmentation of a view")
    model: ModelSection = Field(description="the network")
    objective: ObjectiveSection = Field(description="the loss and its projector")
    train: TrainSection = Field(description="how the weights are trained")
    adapt: AdaptSection | None = Field(
        description="how the architecture adapts; adapt=null trains the original network"
    )
    knn: KnnSection = Field(description="evaluation by nearest neighbours")

    @property
    def run_dir(self) -> Path:
        """The folder of the run: `run.dir`, or runs/NAME below the current folder."""
        return Path("runs") / self.name if self.run.dir is None else Path(self.run.dir).expanduser()

    @model_validator(mode="after")
    def _stages_fit_into_the_run(self) -> Recipe:
        problems = []
        epochs = self.train.epochs
        if self.train.warmup_epochs > epochs:
            problems.append(
                f"train.warmup_epochs={self.train.warmup_epochs} is longer than train.epochs={epochs}: "
                "lower train.warmup_epochs or raise train.epochs"
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
            raise ValueError("\n".join(problems))
        return self
