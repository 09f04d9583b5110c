"""The one loop: train, self-supervised or supervised, while the architecture adapts, then export."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from ssl_adapt.data import Decoder
from ssl_adapt.evaluation.progress_bar import show_progress
from ssl_adapt.export import export_timm, load_export
from ssl_adapt.export.timm import CARD
from ssl_adapt.processes import process_count
from ssl_adapt.recipe import AdaptSection, ModelSection, Recipe, TrainSection
from ssl_adapt.runs.atomic_file import write_text
from ssl_adapt.runs.checkpoint import Checkpoint
from ssl_adapt.runs.folder import RunFolder
from ssl_adapt.runs.log import RunLog
from ssl_adapt.runs.stop_signal import InterruptedRunError, StopSignal
from ssl_adapt.training.architecture_log import adapt_network
from ssl_adapt.training.choice import budget_reached, check_budget, choose_changes
from ssl_adapt.training.create_learner import create_learner
from ssl_adapt.training.grow import choose_growth
from ssl_adapt.training.learner import Learner
from ssl_adapt.training.measurements import (
    create_monitor,
    log_bad_images,
    log_baselines,
    log_epoch,
    log_result,
    log_step,
    log_theta,
)
from ssl_adapt.training.model_card import read_facts, write_card
from ssl_adapt.training.objective import create_objective
from ssl_adapt.training.online_probe import create_online_probe
from ssl_adapt.training.pictures import DrawCells, log_views
from ssl_adapt.training.plan import describe_plan, network_cost, try_export, warn_if_too_short
from ssl_adapt.training.progress import (
    Progress,
    check_checkpoint,
    check_same_view,
    is_checkpoint_epoch,
    is_checkpoint_step,
    log_skipped,
)
from ssl_adapt.training.schedules import Stages
from ssl_adapt.training.setting import (
    create_accelerator,
    create_stages,
    epoch_batches,
    is_frozen,
    load_splits,
    lr_at,
    seed_per_process,
)
from ssl_adapt.training.sharding import plain_network, shard_weights
from ssl_adapt.training.shares import describe_change, find_shares, learner_state, processes_before
from ssl_adapt.training.start_event import log_start
from ssl_adapt.training.start_weights import find_start
from ssl_adapt.training.step_timer import NO_TIMER, StepTimer

ThetaOrder = Literal["theta first", "weights first", "joint"]


def pretrain(recipe: Recipe, draw_cells: DrawCells | None = None) -> Path | None:
    """Run a recipe; the folder of the exported backbone, or None if `run.stop_after_epochs` ended it early.

    Args:
        recipe: what to do.
        draw_cells: draws the network before and after the fix into a PNG file, for `run.trackers`; None: they get none.

    Raises:
        ValueError: if the recipe can't be run; the message says what to change. Nothing has been created then.
        FloatingPointError: if the loss is no longer finite.
        InterruptedRunError: if SIGTERM or Ctrl-C ended it. In both cases the run is saved, and can go on.

    Distributed: every process calls it with the same recipe; `data.batch_size` is shared out among them.
    """
    accelerator = create_accelerator(recipe)
    device = accelerator.device
    with RunFolder(recipe) as folder:
        with show_progress() as begin:
            begin("reading the images", None)
            train_set, test_set = load_splits(recipe.data)
        saved = folder.load_checkpoint()
        images = check_same_view(train_set, test_set, saved)
        if saved:
            check_checkpoint(saved)
        shares = find_shares(recipe.train, saved)
        train = recipe.train.model_copy(update={"accumulate": shares.parts(recipe.train.sync_batchnorm)})
        stages = create_stages(recipe.data, train, recipe.adapt, len(train_set))
        monitor = create_monitor(recipe.data, recipe.knn, train_set, test_set, stages, recipe.seed, device)
        start = find_start(recipe.model, recipe.adapt, saved and saved.state["log"]["history"])
        recipe = recipe.model_copy(update={"model": start.model, "train": train})
        torch.manual_seed(recipe.seed)
        objective = create_objective(recipe, train_set)
        start.load_into(objective.network.backbone, objective.network.teacher_backbones)
        stop = StopSignal()
        learner = create_learner(recipe, objective, accelerator, learner_state(saved, recipe.adapt), stop.came)
        if recipe.run.online_probe:
            learner.online_probe = create_online_probe(objective.network.backbone, train_set, device)
        cost = network_cost(learner, recipe.model, recipe.data)
        plan = [*describe_plan(recipe, learner, monitor, stages, cost), *start.rows()]
        try_export(learner, recipe.model)
        if not saved:
            check_budget(learner, recipe.data)

        folder.create()
        logged = saved and saved.state["log"]
        with RunLog(folder.path, accelerator, recipe.name, recipe.model_dump(), logged) as log, stop:
            log.show_plan(plan)
            warn_if_too_short(log, learner, stages)
            log_bad_images(log, folder, train_set, test_set)
            log_start(log, saved.step if saved else 0, cost)
            if saved:
                progress = Progress.restore(saved, learner, shares, images, recipe.seed)
                log_resumed(log, saved, progress, train, recipe.data.batch_size)
            else:
                seed_per_process(recipe.seed)
                progress = Progress(shares, images)
                start.record(log)
                log_views(log, learner, recipe.data, train_set)
                log_baselines(log, monitor, learner)
            chooses = choose_growth if recipe.adapt and recipe.adapt.start_share else choose_changes
            choose = partial(chooses, learner, recipe.data, train_set, stages, recipe.seed, begin=log.begin)
            adapt = partial(adapt_network, log, folder, monitor, learner, stages, choose, draw_cells)
            timer = StepTimer(device, recipe.run.log_every_steps)
            del saved  # as large as the network and its optimiser
            decoder = Decoder(train_set, recipe.data.workers, pin_memory=device.type == "cuda")

            for epoch in range(progress.epoch, stages.epochs):
                if recipe.run.stop_after_epochs is not None and recipe.run.stop_after_epochs <= epoch:
                    stop_early(log, folder, epoch)
                    return None
                log.start_epoch(stages, epoch, progress.step)
                batches = epoch_batches(
                    recipe.data, train_set, device, stages, recipe.seed, epoch, progress.step, decoder
                )
                for batch in timer.batches(batches, progress.step):
                    adapt(progress.step)
                    if progress.step >= stages.fix_step and not is_frozen(train, stages, progress.step):
                        shard_weights(learner)
                    with timer.part("views"):
                        views = learner.views(batch)
                    loss = train_step(learner, stages, views, progress.step, timer)
                    learner.train_probe(batch, views)
                    log.advance(loss, recipe.data.batch_size)
                    progress.count(loss)
                    log_step(log, learner, stages, timer, loss, progress.step)
                    log_theta(log, learner, stages, progress.step)
                    if loss is None:
                        log_skipped(log, batch, progress.step)
                    folder.check_writer()
                    is_last = learner.must_stop or progress.is_diverged(recipe.train)
                    if is_last or is_checkpoint_step(recipe.run, progress.step):
                        progress.save(folder, learner, log, is_last=is_last)
                    if learner.must_stop:
                        raise InterruptedRunError(stop.number, progress.step)
                    progress.check_diverged(recipe.train)

                log_epoch(
                    log, monitor, learner, stages, epoch=epoch, step=progress.step, loss=progress.end_epoch(),
                    batch_size=recipe.data.batch_size, evaluate_every=recipe.evaluate_every_epochs,
                )  # fmt: skip
                log_bad_images(log, folder, train_set, test_set)
                if is_checkpoint_epoch(recipe.run, stages, epoch + 1):
                    progress.save(folder, learner, log)

            adapt(progress.step)
            log_result(log, folder, monitor, learner, progress.step, budget_reached(learner, recipe.data))
            return export(log, folder, learner, recipe.model)


def train_step(
    learner: Learner, stages: Stages, views: Sequence[Tensor], step: int, timer: StepTimer = NO_TIMER
) -> float | None:
    """One step of what is due at `step`; the loss, or None if a loss or gradient was not finite.

    The pass that had it, of the weights or of theta, has then moved nothing, and one after it was not made.
    """
    learner.set_drop_path(step / stages.total_steps)
    order = theta_order(learner.adapt, stages, step)
    if order == "theta first" and not train_theta(learner, views, timer):
        return None
    lr, progress = lr_at(learner.train, stages, step), (step + 1) / stages.total_steps
    frozen = is_frozen(learner.train, stages, step)
    with timer.part("weights"):
        loss = learner.train_weights(views, lr, progress, joint=order == "joint", frozen=frozen)
    if loss is not None and order == "weights first" and not train_theta(learner, views, timer):
        return None
    share = stages.annealed(step)
    if learner.adaptation and share is not None:
        learner.adaptation.anneal(share)
    return loss


def train_theta(learner: Learner, views: Sequence[Tensor], timer: StepTimer) -> bool:
    """Whether theta made its step: its loss and gradient were finite."""
    with timer.part("theta"):
        return learner.train_theta(views) is not None


def theta_order(adapt: AdaptSection | None, stages: Stages, step: int) -> ThetaOrder | None:
    """Whether theta moves before the weights, after them, with them, or not at all."""
    if adapt is None or adapt.score != "theta" or step >= stages.architecture_steps:
        return None
    if adapt.theta_pass == "joint":
        return "joint"
    if adapt.theta_batch == "same":
        return "weights first"
    return "theta first" if step > 0 else None  # there is no batch before the first


def log_resumed(log: RunLog, saved: Checkpoint, progress: Progress, train: TrainSection, batch_size: int) -> None:
    """Say from where the run goes on, what was damaged, how batches are shared out, and whether the run is longer."""
    for problem in saved.damaged:
        log.say(f"warning: a damaged checkpoint is left aside: {problem}", style="yellow")
    log.say(f"going on after step {progress.step:,}, in epoch {progress.epoch + 1}")
    if change := describe_change(saved, train, batch_size):
        log.record("processes", step=progress.step, before=processes_before(saved), now=process_count(), change=change)
        log.say(change)
    before, epochs = saved.state["epochs"], train.epochs
    if before != epochs:
        log.record("extended", step=progress.step, epochs_before=before, epochs=epochs)
        log.say(f"extended from {before} to {epochs} epochs; a schedule that ends with the run follows the new length")
    log.say("")


def stop_early(log: RunLog, folder: RunFolder, epoch: int) -> None:
    """Say that the run ends before its time, as it was asked to."""
    folder.finish_checkpoint()
    folder.save_status("stopped", f"after epoch {epoch}, by run.stop_after_epochs")
    log.say(f"stopped after epoch {epoch} as asked; run.resume=auto goes on")


def export(log: RunLog, folder: RunFolder, learner: Learner, model: ModelSection) -> Path:
    """Export what was evaluated with its model card, in the main process, and say how to load it."""
    log.begin("exporting", None)
    folder.finish_checkpoint()
    backbone = (learner.average or plain_network(learner)).backbone
    if log.accelerator.is_main_process:
        export_timm(backbone, folder.export, extra_args=model.args)
        write_text(folder.export / CARD, write_card(load_export(folder.export), read_facts(folder.path)))
    log.accelerator.wait_for_everyone()
    log.say(f"exported: timm.create_model('local-dir:{folder.export}', pretrained=True, num_classes=0)")
    folder.save_status("finished")
    return folder.export
