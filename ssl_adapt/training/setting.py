"""What a run needs before its first step: images, accelerator, stages, each process's share and random numbers."""

import importlib.util
import warnings
from collections.abc import Iterator

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, DistributedType
from torch import Tensor, nn
from torch.optim import Optimizer

from ssl_adapt.adaptation.statistics import statistics_at_rest
from ssl_adapt.data import (
    Batch,
    Columns,
    Decoder,
    ImageSet,
    ImageSplits,
    epoch_order,
    iterate_batches,
    load_image_splits,
)
from ssl_adapt.errors import UserError
from ssl_adapt.processes import process_count, process_index
from ssl_adapt.recipe import AdaptSection, DataSection, Recipe, TrainSection
from ssl_adapt.runs.checkpoint import random_state, set_random_state
from ssl_adapt.training.schedules import Stages, lr_at_step, plan_stages


def create_accelerator(recipe: Recipe) -> Accelerator:
    """Device, processes, mixed precision and trackers.

    Raises:
        ValueError: if a tracker is not installed, or the launcher shards weights over processes.
    """
    bfloat16 = recipe.train.precision == "bfloat16"
    if recipe.train.precision == "auto" and torch.cuda.is_available():  # not run on a GPU
        bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    for tracker in recipe.run.trackers:
        if importlib.util.find_spec(tracker) is None:
            raise UserError(f"run.trackers: {tracker} is not installed: pip install 'ssl-adapt[{tracker}]'")
    # Statistics are one's own business: accelerate's default sends the main process's before each forward, and
    # so changes them between a batch's two views.
    parallel = DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)
    accelerator = Accelerator(
        mixed_precision="bf16" if bfloat16 else "no",
        log_with=list(recipe.run.trackers) or None,
        project_dir=recipe.run_dir if recipe.run.trackers else None,
        kwargs_handlers=[parallel],
    )
    plain = (DistributedType.NO, DistributedType.MULTI_GPU, DistributedType.MULTI_CPU)
    if accelerator.distributed_type not in plain:
        raise UserError(
            f"{accelerator.distributed_type.value} was asked of accelerate, and a network that changes while it "
            "trains must be whole in every process: launch with --multi_gpu, or leave the option out; "
            "train.shard_weights=true spreads the weights over the processes once the architecture is fixed"
        )
    return accelerator


def prepare(
    accelerator: Accelerator, network: nn.Module, optimizer: Optimizer, image_px: int
) -> tuple[nn.Module, Optimizer]:
    """The network as accelerate wraps it for its processes, and the optimiser likewise.

    The wrapper waits for the gradient of every weight, unless it is told that some get none.
    """
    if accelerator.ddp_handler is not None and process_count() > 1:
        accelerator.ddp_handler.find_unused_parameters = has_unread_weights(network, image_px)
    with warnings.catch_warnings():  # the option's new name is not yet among those that accelerate passes on
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated")
        prepared: tuple[nn.Module, Optimizer] = accelerator.prepare(network, optimizer)
        return prepared


def has_unread_weights(network: nn.Module, image_px: int) -> bool:
    """Whether weights get no gradient, as before edges that are none: found by a pass that leaves nothing behind."""
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    state = random_state()
    with statistics_at_rest(network):  # also while activations are computed again
        try:
            outputs = network(weights[0].new_zeros(2, 3, image_px, image_px))
        except (AssertionError, RuntimeError):  # images that it can't take: the plan of the run says so, in words
            return False
        finally:
            set_random_state(state)
        total = outputs.sum() if isinstance(outputs, Tensor) else sum(output.sum() for output in outputs)
        return any(gradient is None for gradient in torch.autograd.grad(total, weights, allow_unused=True))


def create_stages(data: DataSection, train: TrainSection, adapt: AdaptSection | None, image_count: int) -> Stages:
    """The stages in steps.

    Raises:
        ValueError: if there are fewer images than a batch has, or `train.max_steps` is too small, or the batch
            can't be shared out.
    """
    batch_size, processes, parts = data.batch_size, process_count(), train.accumulate
    if image_count < 2:
        raise UserError(f"data.name={data.name} has one image for training: give it at least two")
    steps_per_epoch = image_count // batch_size
    if steps_per_epoch == 0:
        raise UserError(
            f"data.batch_size={batch_size} is more than the {image_count} training images: "
            f"set it to {image_count} or less"
        )
    if batch_size % processes or batch_size < 2 * processes * parts:
        raise UserError(
            f"data.batch_size={batch_size} can't be shared by {processes} process(es) in train.accumulate={parts} "
            f"part(s) of at least 2 images: set it to a multiple of {processes}, of at least {2 * processes * parts}, "
            "or launch another number of processes"
        )
    return plan_stages(
        steps_per_epoch=steps_per_epoch,
        epochs=train.epochs,
        adapt_epochs=adapt.epochs if adapt else 0,
        anneal_epochs=adapt.anneal_epochs if adapt else 0,
        max_steps=train.max_steps,
        rounds=adapt.rounds if adapt else 1,
    )


def seed_per_process(seed: int, step: int = 0) -> None:
    """From now on each process draws random numbers of its own; at step 0 a single one draws on as it did."""
    if process_count() > 1 or step:
        place = (process_index(), process_count(), step) if step else (process_index(),)
        seeds = np.random.SeedSequence((seed, *place)).generate_state(2, np.uint32)
        torch.manual_seed(int(seeds[0]) << 32 | int(seeds[1]))


def epoch_batches(
    data: DataSection,
    train_set: ImageSet,
    device: torch.device,
    stages: Stages,
    seed: int,
    epoch: int,
    step: int,
    decoder: Decoder | None = None,
) -> Iterator[Batch]:
    """This process's share of the batches from `step` to the end of the epoch, in the order of seed and epoch.

    They are decoded, where the images stream, by the processes of `decoder`; None: by new ones.
    """
    last = stages.last_step(epoch) - epoch * stages.steps_per_epoch
    first = step - epoch * stages.steps_per_epoch
    return _share_of_batches(data, train_set, device, stages, seed, epoch, slice(first, last), decoder)


def score_batches(
    data: DataSection, train_set: ImageSet, device: torch.device, stages: Stages, seed: int, index: int, count: int
) -> Iterator[Batch]:
    """This process's share of the batches on which the changes of a round are measured.

    Their order is that of an epoch after the run's last, and of more of them where it has fewer batches, so that the
    standard error of few images does not rest on two or three numbers.
    """
    for first in range(0, count, stages.steps_per_epoch):
        epoch = stages.epochs + index + first // stages.steps_per_epoch * stages.rounds  # no other round has it
        yield from _share_of_batches(data, train_set, device, stages, seed, epoch, slice(0, count - first))


def _share_of_batches(
    data: DataSection,
    train_set: ImageSet,
    device: torch.device,
    stages: Stages,
    seed: int,
    epoch: int,
    which: slice,
    decoder: Decoder | None = None,
) -> Iterator[Batch]:
    order = epoch_order(len(train_set), seed=seed, epoch=epoch)
    batches = order[: stages.steps_per_epoch * data.batch_size].view(-1, data.batch_size)[which]
    share = batches.chunk(process_count(), dim=1)[process_index()]
    return iterate_batches(
        train_set,
        share.flatten(),
        batch_size=share.shape[1],
        device=device,
        workers=data.workers,
        drop_last=True,
        decoder=decoder,
    )


def lr_at(train: TrainSection, stages: Stages, step: int) -> float:
    """The weights' learning rate; the warm-up shrinks with `train.max_steps` like the stages."""
    return lr_at_step(
        step,
        lr=train.lr,
        schedule=train.schedule,
        warmup_steps=round(stages.total_steps * train.warmup_epochs / train.epochs),
        total_steps=stages.total_steps,
    )


def is_frozen(train: TrainSection, stages: Stages, step: int) -> bool:
    """Whether the backbone's weights rest at that step; `train.max_steps` shrinks this time like the stages."""
    return step < round(stages.total_steps * train.freeze_epochs / train.epochs)


def load_splits(data: DataSection, *, in_memory: bool = True) -> ImageSplits:
    """The images of a recipe, see `load_image_splits`.

    Raises:
        ValueError: they are not there or can't be read; the message says what to do.
    """
    return load_image_splits(
        data.name,
        root=data.root,
        image_px=data.image_px,
        on_bad_image=data.on_bad_image,
        train_images=data.train_images,
        labelled_share=data.labelled_share,
        columns=Columns(data.image_column, data.label_column),
        in_memory=in_memory,
    )
