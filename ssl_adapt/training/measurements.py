"""What a run measures and logs: the baselines, each epoch, the result."""

from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from ssl_adapt.adaptation.cost import count_parameters
from ssl_adapt.data import ImageSet, epoch_order
from ssl_adapt.errors import UserError
from ssl_adapt.evaluation.accuracy import Accuracy, wilson_interval
from ssl_adapt.evaluation.monitor import AccuracyMonitor, Evaluation, FeatureMonitor, Monitor
from ssl_adapt.evaluation.protocol import KnnProtocol
from ssl_adapt.processes import gather_objects
from ssl_adapt.recipe import DataSection, KnnSection
from ssl_adapt.runs.folder import RunFolder
from ssl_adapt.runs.log import RunLog
from ssl_adapt.runs.short_text import short_time
from ssl_adapt.training.choice import WORDS
from ssl_adapt.training.learner import Learner
from ssl_adapt.training.online_probe import measure_probe
from ssl_adapt.training.plan import macs_of
from ssl_adapt.training.schedules import Stages
from ssl_adapt.training.sharding import plain_network
from ssl_adapt.training.start_weights import EVENT
from ssl_adapt.training.step_timer import StepTimer

TRIAL_IMAGES = 128  # on either side of the kNN, at most, in a trial: a run of less than a tenth of an epoch
THETA_POINTS = 50  # of theta's course until the fix
LANDMARKS = {
    "raw_pixels": "raw pixels",
    "untrained": "untrained network",
    "loaded": "network as loaded",
    "before_fix": "just before the fix",
    "after_fix": "just after the fix",
    "recalibrated": "the same, BatchNorm's statistics measured anew",
    "result": "after the run",
    "unaveraged": "the same, its weights not averaged",
}


def create_monitor(
    data: DataSection,
    knn: KnnSection | None,
    train_set: ImageSet,
    test_set: ImageSet | None,
    stages: Stages,
    seed: int,
    device: torch.device,
) -> Monitor:
    """kNN of the test images in the bank of the training images, or accuracy; a trial takes a sample.

    Raises:
        ValueError: if knn.k is larger than the bank.
    """
    queries = test_set if train_set.labels is not None else None
    sampled_from = None
    limit = max(TRIAL_IMAGES, 2 * knn.k if knn else 0)
    if 10 * stages.total_steps < stages.steps_per_epoch:  # a trial
        sampled_from = len(train_set), len(queries) if queries else 0
        queries = queries and _sample(queries, limit, seed)
        train_set = _sample(train_set, limit, seed)
    if knn is None:
        return AccuracyMonitor(train_set, queries, data.mean, data.std, 500, device, data.workers, sampled_from)
    if queries is not None and knn.k > len(train_set):
        raise UserError(f"knn.k={knn.k} is more than the {len(train_set)} training images: lower knn.k")
    protocol = create_protocol(knn)
    return FeatureMonitor(train_set, queries, protocol, data.mean, data.std, 500, device, data.workers, sampled_from)


def create_protocol(knn: KnnSection) -> KnnProtocol:
    """How neighbours vote, as the recipe's `knn` says."""
    temperature = knn.temperature if knn.weighting == "exp" else None
    return KnnProtocol(layer=knn.layer, k=knn.k, temperature=temperature, weighting=knn.weighting)


def log_baselines(log: RunLog, monitor: Monitor, learner: Learner) -> None:
    """Measure raw pixels and the network as it is before the first step: untrained, or as loaded."""
    with log.evaluating():
        pixels = monitor.evaluate_pixels()
    if pixels is not None:
        log.record("raw_pixels", step=0, knn_top1=pixels.top1, knn_top5=pixels.top5)
        log.say(f"raw pixels         kNN {pixels.top1:7.2%}")
    name = "loaded" if any(event["event"] == EVENT and event["tensors"] for event in log.history) else "untrained"
    evaluation = measure_network(log, name, monitor, learner, 0)
    log.say(f"{LANDMARKS[name]}  {_describe(monitor, evaluation)}\n")


def log_epoch(
    log: RunLog,
    monitor: Monitor,
    learner: Learner,
    stages: Stages,
    *,
    epoch: int,
    step: int,
    loss: float | None,
    batch_size: int,
    evaluate_every: int,
) -> None:
    """Record an epoch (counted from 0) that ended before `step`; evaluate every so many, the last aside; 0: never."""
    seconds, steps = log.end_epoch()
    images_per_sec = steps * batch_size / max(seconds, 1e-9)
    stage = stages.name_at_step(step - 1)
    is_time = evaluate_every > 0 and (epoch + 1) % evaluate_every == 0
    is_end = step >= stages.total_steps
    probe = learner.online_probe
    with log.evaluating():
        probed = probe and measure_probe(probe, learner.evaluated.backbone, monitor, on_test=is_time or is_end)
    log.record(
        "epoch", step=step, epoch=epoch + 1, stage=stage, loss=loss, images_per_sec=images_per_sec, seconds=seconds,
        evaluation_seconds=log.evaluation_seconds, **(probed or {}),
    )  # fmt: skip
    if learner.theta_optimizer and learner.adaptation:
        log.record("theta", step=step, theta={s.spec.name: s.theta for s in learner.adaptation.states()})
    evaluation = ""
    if is_time and not is_end:
        evaluation = _describe(monitor, measure_network(log, "evaluation", monitor, learner, step))
    if probed:
        evaluation += "  ".join(["", *(f"{name.replace('_', ' ')} {value:.4g}" for name, value in probed.items())])
    left = (stages.total_steps - step) * seconds / max(1, steps)  # none, where only the epoch's end was missing
    width = len(str(stages.epochs))
    log.say(
        f"epoch {epoch + 1:{width}}/{stages.epochs}  {stage:12}  loss {'none' if loss is None else f'{loss:.4f}':>7}  "
        f"{images_per_sec:7,.0f} images/s  {short_time(left):>12} left  {evaluation}"
    )


def log_step(log: RunLog, learner: Learner, stages: Stages, timer: StepTimer, loss: float | None, step: int) -> None:
    """Record loss, learning rates, gradient norm and times of the step that was the `step`-th, if it was timed."""
    if not timer.is_on or loss is None:
        return
    moving = learner.theta_optimizer if step <= stages.architecture_steps else None
    rates = {"lr": _highest_lr(learner.weight_optimizer)} | ({"theta_lr": _highest_lr(moving)} if moving else {})
    log.record("step", step=step, loss=loss, **rates, gradient_norm=learner.gradient_norm, ms=timer.ms)


def log_theta(log: RunLog, learner: Learner, stages: Stages, step: int) -> None:
    """Record theta some fifty times until the fix, the ends of epochs aside."""
    if not (learner.theta_optimizer and learner.adaptation):
        return
    if step % max(1, stages.fix_step // THETA_POINTS) == 0 and step % stages.steps_per_epoch:
        log.record("theta", step=step, theta={s.spec.name: s.theta for s in learner.adaptation.states()})


def log_result(
    log: RunLog, folder: RunFolder, monitor: Monitor, learner: Learner, step: int, budget: dict[str, Any] | None = None
) -> None:
    """Measure the trained network, write `result.json`, and show it beside the baselines."""
    evaluation = measure_network(log, "result", monitor, learner, step)
    if learner.average is not None:
        measure_network(log, "unaveraged", monitor, learner, step)
    landmarks = {event["event"]: event for event in log.history}
    backbone, key = plain_network(learner).backbone, f"{_key(monitor)}_top1"
    result: dict[str, Any] = {
        key: {name: landmarks[name].get(key) for name in LANDMARKS if name in landmarks},
        "protocol": monitor.describe(),
        "test_images": 0 if monitor.queries is None else len(monitor.queries),
        "train_images": monitor.sampled_from[0] if monitor.sampled_from else len(monitor.bank),
        "classes": len(monitor.bank.classes),
        "changed": landmarks["fix"]["changed"] if "fix" in landmarks else {},
        "parameters": count_parameters(backbone),
        "macs": macs_of(backbone, learner.image_px),
        "steps": step,
    }
    if monitor.bank.label_split is not None:
        result["labels"] = monitor.bank.label_split.to_dict()
    if budget is not None:
        result["budget"] = budget
        log.say(
            f"budget: {budget['reached']:.1%} of the plain network's {WORDS[budget['unit']]} are left, of at most "
            f"{budget['share']:.1%}\n"
        )
    if evaluation.score is None:
        folder.save_result(result)
        log.say(f"no {monitor.name}: {monitor.describe()}\n")
        return
    rows = [
        [text, f"{landmarks[name][key]:.2%}", f"{landmarks[name][_key(monitor) + '_top5']:.2%}"]
        for name, text in LANDMARKS.items()
        if name in landmarks
    ]
    if isinstance(evaluation.score, Accuracy):
        result["interval_95"] = low, high = wilson_interval(evaluation.score.top1, evaluation.score.count)
        rows.append(["(its 95 % interval, over test images)", f"{low:.2%}-{high:.2%}", ""])
    if learner.objective.judge == "accuracy":  # the last epoch is the result; the best was chosen by the test images
        best = max((e for e in log.history if e["event"] in ("evaluation", "result")), key=lambda event: event[key])
        result["best_epoch_by_test_images"] = {"step": best["step"], key: best[key]}
        rows.append(["(best of all epochs, chosen by the test images)", f"{best[key]:.2%}", ""])
    folder.save_result(result)
    log.say("")
    log.show_table(f"{monitor.name}: {monitor.describe()}", ["", "top-1", "top-5"], rows)


def log_bad_images(log: RunLog, folder: RunFolder, *image_sets: ImageSet | None) -> None:
    """List the images that could not be read and were replaced, where there are more than were told of."""
    mine = {name: reason for images in image_sets if images for name, reason in images.bad_images.items()}
    reasons = {name: reason for share in gather_objects(mine) for name, reason in share.items()}
    if len(reasons) > log.bad_images_logged:
        log.bad_images_logged = len(reasons)
        folder.save_bad_images(reasons)
        name, reason = next(iter(reasons.items()))
        log.say(
            f"warning: {len(reasons):,} images could not be read and were replaced, such as {name!r} ({reason}); "
            f"{folder.path / 'bad_images.json'} lists them\n",
            style="yellow",
        )


def measure_network(log: RunLog, event: str, monitor: Monitor, learner: Learner, step: int) -> Evaluation:
    """Evaluate the network, or the average of its weights where there is one, and record the event."""
    average = None if event == "unaveraged" else learner.average
    network = average or plain_network(learner)
    is_projection = isinstance(monitor, FeatureMonitor) and monitor.protocol.layer == "projection"
    evaluate = monitor.evaluate_recalibrated if event == "recalibrated" else monitor.evaluate
    before = log.evaluation_seconds
    with log.evaluating():
        backbone = nn.Sequential(network.backbone, network.heads[0]) if is_projection else network.backbone
        evaluation = evaluate(backbone, log.begin)
    values = {"feature_std": evaluation.feature_std, "rank_me": evaluation.rank_me}
    if evaluation.score:
        values |= {f"{_key(monitor)}_top1": evaluation.score.top1, f"{_key(monitor)}_top5": evaluation.score.top5}
    measured = {name: value for name, value in values.items() if value is not None}
    log.record(event, step=step, **measured, seconds=log.evaluation_seconds - before)
    return evaluation


def _highest_lr(optimizer: Optimizer) -> float:
    return float(max(group["lr"] for group in optimizer.param_groups))


def _key(monitor: Monitor) -> str:
    return monitor.name.lower()


def _sample(image_set: ImageSet, limit: int, seed: int) -> ImageSet:
    return image_set.subset(epoch_order(len(image_set), seed=seed, epoch=0)[:limit])


def _describe(monitor: Monitor, evaluation: Evaluation) -> str:
    score = f"{monitor.name} {evaluation.score.top1:7.2%}  " if evaluation.score else ""
    if evaluation.feature_std is None or evaluation.rank_me is None:
        return score
    return f"{score}std {evaluation.feature_std:.4f}  RankMe {evaluation.rank_me:.1f}"
