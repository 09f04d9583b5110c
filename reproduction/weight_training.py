"""Training an objective's weights without adaptation, and the views that it sees: what the studies share."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ssl_adapt.data import ImageSet, epoch_order, iterate_batches
from ssl_adapt.objectives import Objective
from ssl_adapt.recipe import TrainSection
from ssl_adapt.training.optimizers import create_weight_optimizer, set_lr
from ssl_adapt.training.schedules import lr_at_step

Views = Sequence[Tensor]  # what an objective's `views` gives for one batch


def iterate_views(
    objective: Objective, images: ImageSet, *, batch_size: int, steps: int, seed: int, first_epoch: int
) -> Iterator[Views]:
    """The views of `steps` full batches, on the CPU, from the beginning of an epoch on.

    Seeds torch's generator with seed and epoch, from which the views are drawn.
    """
    torch.manual_seed(1000 * seed + first_epoch)
    epoch, done = first_epoch, 0
    while done < steps:
        order = epoch_order(len(images), seed=seed, epoch=epoch)
        for batch in iterate_batches(images, order, batch_size=batch_size, device="cpu", workers=0, drop_last=True):
            if done == steps:
                return
            yield objective.views(batch)
            done += 1
        epoch += 1


def train_weights(
    objective: Objective,
    batches: Iterable[Views],
    train: TrainSection,
    *,
    steps: int,
    lr: float,
    schedule: Literal["constant", "cosine"] = "cosine",
    warmup_steps: int = 0,
    before_step: Callable[[int, Views], None] | None = None,
    after_step: Callable[[int, Views], None] | None = None,
) -> None:
    """Train all weights of the objective's network, in place.

    Args:
        objective: its network is set to training mode.
        batches: the views of each step.
        train: optimiser, momentum, weight decay and clipping.
        steps: how many batches there are.
        lr: the highest learning rate.
        schedule: what follows the linear warm-up; a cosine goes down to 0.
        warmup_steps: of the learning rate.
        before_step: called with the number of the step and its views; it may change the network.
        after_step: the same, after the step.
    """
    network = objective.network
    network.train()
    optimizer = create_weight_optimizer(network, train, torch.device("cpu"))
    for step, views in enumerate(batches):
        if before_step:
            before_step(step, views)
        set_lr(optimizer, lr_at_step(step, lr=lr, schedule=schedule, warmup_steps=warmup_steps, total_steps=steps))
        loss = objective.loss(objective.forward(network, views))
        loss.backward()
        if train.clip_grad_norm is not None:
            nn.utils.clip_grad_norm_(network.parameters(), train.clip_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        objective.after_step((step + 1) / steps)
        if after_step:
            after_step(step, views)
