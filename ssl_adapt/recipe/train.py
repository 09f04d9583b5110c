"""The keys of a recipe that say how the weights are trained."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ssl_adapt.errors import UserError
from ssl_adapt.recipe.section import Section
from ssl_adapt.recipe.values import Count, CountOrZero, Fraction, Part, Positive, PositiveOrZero


class TrainSection(Section):
    """How the weights are trained."""

    epochs: Count = Field(description="length of the run: architecture stage, annealing and network stage")
    max_steps: Count | None = Field(
        default=None,
        description="ends the run after that many steps, with the stages shortened in proportion, "
        "so that any recipe can be tried in seconds",
    )
    optimizer: Literal["adam", "adamw", "sgd", "lars", "lamb"] = Field(
        description="optimiser of the weights; lars and lamb are timm's, for large batches"
    )
    lr: Positive = Field(description="peak learning rate of the weights")
    momentum: Fraction | None = Field(
        default=None, description="momentum; given if and only if train.optimizer is sgd or lars"
    )
    weight_decay: PositiveOrZero = Field(
        description="weight decay of the weights; above 0 with lars and lamb, "
        "which scale the steps of those weights alone that decay"
    )
    exclude_norm_and_bias: bool | None = Field(
        default=None,
        description="no weight decay for norms and biases, nor for what timm's model excepts, "
        "and so no scaling of their steps by lars and lamb, which must be told; null: they decay as all weights do",
    )
    layer_decay: Part | None = Field(
        default=None,
        description="learning rate of each layer of the backbone over that of the next one; null: the same for all",
    )
    schedule: Literal["constant", "cosine"] = Field(
        description="learning rate after the warm-up: constant, or a cosine down to 0 at the end"
    )
    warmup_epochs: CountOrZero = Field(description="epochs in which the learning rate rises linearly from 0")
    freeze_epochs: CountOrZero = Field(
        default=0, description="epochs at the start in which the classifier or the heads train and the backbone rests"
    )
    clip_grad_norm: Positive | None = Field(description="largest norm of the weights' gradient; null means off")
    drop_path: Fraction | None = Field(
        default=None,
        description="probability of dropping a path, rising linearly from 0 over the run; for networks with drop-path; "
        "null leaves it as model.args set it",
    )
    ema_decay: Part | None = Field(
        default=None,
        description="evaluate and export a moving average of the weights, which keeps this share of itself at a step, "
        "at most: at the n-th 1 - n^(-2/3); null: the weights themselves",
    )
    compile: bool = Field(
        default=False, description="let torch.compile make kernels for the network; needs a C++ compiler on a CPU"
    )
    checkpoint_activations: bool = Field(
        default=False,
        description="compute the backbone's activations again in the backward pass instead of keeping them: "
        "exact, with less memory and more time",
    )
    accumulate: Count = Field(
        default=1,
        description="parts in which each process takes its images, for batches that do not fit into memory; "
        "BatchNorm's statistics are those of one part",
    )
    sync_batchnorm: bool = Field(
        default=True, description="with several processes: BatchNorm over the images of all of them, or of each"
    )
    shard_weights: bool = Field(
        default=False,
        description="with several processes: once the architecture is fixed, each keeps a part of the weights and of "
        "their optimiser's state (FSDP2)",
    )
    on_nonfinite: Literal["stop", "skip"] = Field(
        default="stop", description="at a loss or gradient that is not finite: stop the run, or skip the batch"
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="auto: bfloat16 autocast on a GPU, float32 on a CPU"
    )

    @model_validator(mode="after")
    def _keys_fit_the_optimizer(self) -> TrainSection:
        name, has_momentum = self.optimizer, self.optimizer in ("sgd", "lars")
        if has_momentum and self.momentum is None:
            raise UserError(f"train.optimizer={name} needs a momentum: add train.momentum=0.9, or 0 for none")
        if not has_momentum and self.momentum is not None:
            raise UserError(
                f"train.momentum={self.momentum} has no meaning for train.optimizer={name}: "
                "set train.momentum=null or train.optimizer=sgd"
            )
        if name in ("lars", "lamb") and self.exclude_norm_and_bias is None:
            raise UserError(
                f"train.optimizer={name} needs to know whether norms and biases are excluded from decay and scaling: "
                "add train.exclude_norm_and_bias=true, as is usual, or false"
            )
        if name in ("lars", "lamb") and self.weight_decay == 0:
            raise UserError(
                f"train.optimizer={name} scales the steps of weights that decay, so with train.weight_decay=0 none: "
                "set it above 0, to 1e-6, say"
            )
        if self.compile and self.drop_path is not None:
            raise UserError(
                f"train.compile=true with train.drop_path={self.drop_path}: its probability rises at each step, which "
                "would compile anew: set train.drop_path=null, and model.args.drop_path_rate, which stays as it is"
            )
        if name in ("lars", "lamb") and self.shard_weights:
            raise UserError(
                f"train.shard_weights=true was not tried with train.optimizer={name}, which needs the norms of whole "
                "weights: set it to false"
            )
        for key in ("ema_decay", "compile", "checkpoint_activations"):
            if self.shard_weights and getattr(self, key):
                raise UserError(f"train.shard_weights=true was not tried with train.{key}: leave one of them out")
        return self
