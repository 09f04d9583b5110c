"""The one loop: train, self-supervised or supervised, while the architecture adapts, then export."""

import importlib.util
import math
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from accelerate import Accelerator

from ssl_adapt.data import Batch, ImageSet, epoch_order, iterate_batches, load_image_splits
from ssl_adapt.export import export_timm
from ssl_adapt.recipe import Recipe
from ssl_adapt.training.checkpoint import random_state, set_random_state
from ssl_adapt.training.landmarks import (
    create_monitor,
    describe_plan,
    tell_baselines,
    tell_epoch,
    tell_fix,
    tell_result,
    warn_if_too_short,
)
from ssl_adapt.training.learner import create_learner
from ssl_adapt.training.run_folder import RunFolder
from ssl_adapt.training.run_log import RunLog
from ssl_adapt.training.schedules import Stages, lr_at_step, plan_stages
from ssl_adapt.training.tasks import create_task


def pretrain(recipe: Recipe) -> Path | None:
    """Run a recipe; the folder of the exported backbone, or None if `run.stop_after_epochs` ended it early.

    Raises:
        ValueError: if the recipe can't be run; the message says what to change. Nothing has been created then.
        FloatingPointError: if the loss is no longer finite.
    """
    folder = RunFolder(recipe)
    accelerator = create_accelerator(recipe)
    device = accelerator.device
    train_set, test_set = load_image_splits(recipe.data.name, root=recipe.data.root, image_px=recipe.data.image_px)
    stages = create_stages(recipe, len(train_set))
    monitor = create_monitor(recipe, train_set, test_set, stages, device)
    saved = folder.load_checkpoint()
    torch.manual_seed(recipe.seed)
    task = create_task(recipe, train_set)
    learner = create_learner(recipe, task, accelerator, saved and saved["learner"]["architecture"])
    plan = describe_plan(recipe, learner, monitor, stages)

    folder.create()
    with RunLog(folder.path, accelerator, recipe, keep_bytes=saved["metrics_bytes"] if saved else 0) as log:
        log.show_plan(plan)
        warn_if_too_short(log, recipe, learner, stages)
        if saved:
            learner.load_state_dict(saved["learner"])
            set_random_state(saved["random_state"])
            step, first_epoch = saved["step"], saved["epoch"]
            log.say(f"going on after epoch {first_epoch}, step {step}\n")
        else:
            step, first_epoch = 0, 0
            tell_baselines(log, monitor, learner)
        del saved  # as large as the network and its optimiser

        for epoch in range(first_epoch, stages.epochs):
            if recipe.run.stop_after_epochs == epoch:
                log.say(f"stopped after epoch {epoch} as asked; run.resume=auto goes on")
                return None
            losses = []
            log.start_epoch(epoch + 1, stages.epochs, min(stages.steps_per_epoch, stages.total_steps - step))
            for batch in epoch_batches(recipe, train_set, device, epoch, stages.total_steps - step):
                if learner.adaptation and step == stages.fix_step:
                    tell_fix(log, folder, monitor, learner, step)
                inputs = task.augment(batch)
                learner.set_drop_path(step / stages.total_steps)
                is_architecture_step = step < stages.architecture_steps
                if is_architecture_step and theta_batch(recipe) == "next" and step > 0:
                    learner.train_theta(inputs)
                losses.append(learner.train_weights(inputs, lr_at(recipe, stages, step)))
                if is_architecture_step and theta_batch(recipe) == "same":
                    learner.train_theta(inputs)
                if learner.adaptation and not is_architecture_step:
                    learner.adaptation.anneal((step + 1 - stages.architecture_steps) / stages.anneal_steps)
                step += 1
                log.advance()

            loss = torch.stack(losses).mean().item()
            check_loss(loss, epoch)
            tell_epoch(log, monitor, learner, stages, epoch=epoch, step=step, loss=loss)
            if is_checkpoint_epoch(recipe, stages, epoch + 1):
                folder.save_checkpoint(
                    {
                        "epoch": epoch + 1,
                        "step": step,
                        "learner": learner.state_dict(),
                        "random_state": random_state(),
                        "metrics_bytes": log.metrics_bytes,
                    }
                )

        if learner.adaptation:
            tell_fix(log, folder, monitor, learner, step)
        tell_result(log, folder, monitor, learner, step)
        keep_classifier = recipe.objective.name == "supervised"
        export = export_timm(
            learner.network.backbone, folder.export, extra_args=recipe.model.args, keep_classifier=keep_classifier
        )
        log.say(f"exported: timm.create_model('local-dir:{export}', pretrained=True, num_classes=0)")
        return export


def create_accelerator(recipe: Recipe) -> Accelerator:
    """Device, mixed precision and trackers.

    Raises:
        ValueError: if several processes were started: negatives are not gathered over them yet.
    """
    bfloat16 = recipe.train.precision == "bfloat16"
    if recipe.train.precision == "auto" and torch.cuda.is_available():  # not run on a GPU
        bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    for tracker in recipe.run.trackers:
        if importlib.util.find_spec(tracker) is None:
            raise ValueError(f"run.trackers: {tracker} is not installed: pip install 'ssl-adapt[{tracker}]'")
    accelerator = Accelerator(
        mixed_precision="bf16" if bfloat16 else "no",
        log_with=list(recipe.run.trackers) or None,
        project_dir=recipe.run_dir if recipe.run.trackers else None,
    )
    if accelerator.num_processes > 1:
        raise ValueError(
            f"{accelerator.num_processes} processes were started, and this release trains in one: "
            "start it with accelerate launch --num_processes 1"
        )
    return accelerator


def check_loss(loss: float, epoch: int) -> None:
    """Stop a run that has diverged.

    Raises:
        FloatingPointError: if the mean loss of the epoch (counted from 0) is not finite.
    """
    if not math.isfinite(loss):
        raise FloatingPointError(
            f"the loss is {loss} in epoch {epoch + 1}: lower train.lr or adapt.theta_lr, or set "
            "train.clip_grad_norm, and start in another run.dir"
        )


def is_checkpoint_epoch(recipe: Recipe, stages: Stages, epochs_done: int) -> bool:
    """Whether a checkpoint is due: every so many epochs, at the end, and where the run is asked to stop."""
    is_end = epochs_done in (stages.epochs, recipe.run.stop_after_epochs)
    return is_end or epochs_done % recipe.run.checkpoint_every_epochs == 0


def create_stages(recipe: Recipe, image_count: int) -> Stages:
    """The stages in steps.

    Raises:
        ValueError: if there are fewer images than a batch has, or `train.max_steps` is too small.
    """
    steps_per_epoch = image_count // recipe.data.batch_size
    if steps_per_epoch == 0:
        raise ValueError(
            f"data.batch_size={recipe.data.batch_size} is more than the {image_count} training images: "
            f"set it to {image_count} or less"
        )
    return plan_stages(
        steps_per_epoch=steps_per_epoch,
        epochs=recipe.train.epochs,
        adapt_epochs=recipe.adapt.epochs if recipe.adapt else 0,
        anneal_epochs=recipe.adapt.anneal_epochs if recipe.adapt else 0,
        max_steps=recipe.train.max_steps,
    )


def epoch_batches(
    recipe: Recipe, train_set: ImageSet, device: torch.device, epoch: int, most_steps: int
) -> Iterator[Batch]:
    """The full batches of an epoch, at most `most_steps`, in the order that the seed and the epoch give."""
    batches = iterate_batches(
        train_set,
        epoch_order(len(train_set), seed=recipe.seed, epoch=epoch),
        batch_size=recipe.data.batch_size,
        device=device,
        workers=recipe.data.workers,
        drop_last=True,
    )
    return islice(batches, most_steps)


def lr_at(recipe: Recipe, stages: Stages, step: int) -> float:
    """The weights' learning rate; the warm-up shrinks with `train.max_steps` like the stages."""
    train = recipe.train
    return lr_at_step(
        step,
        lr=train.lr,
        schedule=train.schedule,
        warmup_steps=round(stages.total_steps * train.warmup_epochs / train.epochs),
        total_steps=stages.total_steps,
    )


def theta_batch(recipe: Recipe) -> str | None:
    """Which batch theta's step sees: "same", "next", or None without adaptation."""
    return recipe.adapt.theta_batch if recipe.adapt else None
