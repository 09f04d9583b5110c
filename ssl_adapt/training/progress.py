"""How far a run is, and when that is saved."""

from dataclasses import dataclass, field

from ssl_adapt.data import Batch, ImageSet
from ssl_adapt.errors import DivergedError, UserError
from ssl_adapt.processes import gather_objects, process_count, process_index
from ssl_adapt.recipe import RunSection, TrainSection
from ssl_adapt.runs.checkpoint import Checkpoint, random_state, set_random_state
from ssl_adapt.runs.folder import RunFolder
from ssl_adapt.runs.log import RunLog
from ssl_adapt.training.learner import Learner
from ssl_adapt.training.schedules import Stages
from ssl_adapt.training.setting import seed_per_process
from ssl_adapt.training.shares import Shares

MOST_SKIPPED = 10  # batches in a row without a finite loss, after which no batch is likely to have one


@dataclass
class Progress:
    """The steps that are done, and what the current epoch has given so far.

    Attributes:
        epoch: epochs that are done and told of.
        step: steps done.
        losses: of the current epoch's steps, those that were skipped left out.
        skipped: batches in a row whose loss or gradient was not finite.
        shares: in which processes and parts the batches were taken when the run's keys were last typed.
        images: numbers of training and of test images.
    """

    shares: Shares
    images: tuple[int, int]
    epoch: int = 0
    step: int = 0
    losses: list[float] = field(default_factory=list)
    skipped: int = 0

    def count(self, loss: float | None) -> None:
        """One step more, with its loss; None if it was skipped."""
        self.step += 1
        self.skipped = self.skipped + 1 if loss is None else 0
        if loss is not None:
            self.losses.append(loss)

    def end_epoch(self) -> float | None:
        """The mean loss of the epoch, if it had any; the next one begins."""
        mean = sum(self.losses) / len(self.losses) if self.losses else None
        self.epoch, self.losses = self.epoch + 1, []
        return mean

    def is_diverged(self, train: TrainSection) -> bool:
        """Whether a step without a finite loss ends the run."""
        return self.skipped >= (1 if train.on_nonfinite == "stop" else MOST_SKIPPED)

    def check_diverged(self, train: TrainSection) -> None:
        """End a run that has diverged, once it is saved.

        Raises:
            FloatingPointError: saying what to try.
        """
        if self.is_diverged(train):
            batches = f"those of {self.skipped} batches" if self.skipped > 1 else "that of the batch"
            raise DivergedError(
                f"the loss or its gradient is not finite at step {self.step:,}, {batches} that metrics.jsonl lists: "
                "lower train.lr or adapt.theta_lr or set train.clip_grad_norm, in another run.dir; or look at these "
                "images, and go on without them by run.resume=auto, or train.on_nonfinite=skip for all such batches"
            )

    def save(self, folder: RunFolder, learner: Learner, log: RunLog, *, is_last: bool = False) -> None:
        """Write a checkpoint; all processes take part, and if it is the last one go on when it is written."""
        learner.check_theta()
        folder.save_checkpoint(
            self.step,
            {
                "epochs": learner.train.epochs,
                "epoch": self.epoch,
                "losses": self.losses,
                "skipped": self.skipped,
                "shares": tuple(self.shares),
                "images": self.images,
                "learner": learner.state_dict(),
                "random_states": gather_objects(random_state()),
                "log": log.state_dict(),
            },
        )
        if is_last:  # a launcher ends all processes when the first one ends
            folder.finish_checkpoint()
            learner.accelerator.wait_for_everyone()

    @classmethod
    def restore(
        cls, saved: Checkpoint, learner: Learner, shares: Shares, images: tuple[int, int], seed: int
    ) -> "Progress":
        """The progress of a checkpoint, with the learner and the random numbers as they were.

        With another number of processes the random numbers are new: each then draws its own, by seed and step.

        Raises:
            ValueError: if it is that of another network.
        """
        state = saved.state
        try:
            learner.load_state_dict(state["learner"])
        except (LookupError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"the checkpoint of step {saved.step} does not fit the recipe's network ({reason}): "
                "start in another run.dir"
            ) from error
        if process_count() == len(state["random_states"]):
            set_random_state(state["random_states"][process_index()])
        else:
            seed_per_process(seed, saved.step)
        return cls(shares, images, state["epoch"], saved.step, list(state["losses"]), state["skipped"])


def check_checkpoint(saved: Checkpoint) -> None:
    """Refuse what this release did not write.

    Raises:
        ValueError: naming what is missing.
    """
    missing = {"epochs", "epoch", "losses", "skipped", "learner", "random_states", "log"} - saved.state.keys()
    if missing:
        raise UserError(f"the checkpoint of step {saved.step} has no {min(missing)!r}: start in another run.dir")


def check_same_view(train_set: ImageSet, test_set: ImageSet | None, saved: Checkpoint | None) -> tuple[int, int]:
    """The numbers of training and of test images, which are those of all processes, and of the run that goes on.

    Raises:
        ValueError: if one differs; in all processes, so that none waits for the others.
    """
    images = len(train_set), len(test_set) if test_set else 0
    mine = {
        "training images": images[0],
        "test images": images[1],
        "step of the last checkpoint": saved.step if saved else None,
    }
    views = gather_objects(mine)
    for what in mine:
        found = [view[what] for view in views]
        if len(set(found)) > 1:
            raise UserError(
                f"the processes see different {what} ({', '.join(map(str, found))}): give all of them the same "
                "images, and a run.dir on a file system that they share"
            )
    before = saved.state.get("images", images) if saved else images
    for kind, then, now in zip(("training", "test"), before, images, strict=True):
        if then != now:
            raise UserError(
                f"the run had {then:,} {kind} images when it was saved, now there are {now:,}, so that it would go on "
                "with others, in another order: give it the same images, or start in another run.dir"
            )
    return images


def is_checkpoint_step(run: RunSection, step: int) -> bool:
    """Whether a checkpoint is due after so many steps, the end of an epoch aside."""
    every = run.checkpoint_every_steps
    return every is not None and step % every == 0


def is_checkpoint_epoch(run: RunSection, stages: Stages, epochs_done: int) -> bool:
    """Whether a checkpoint is due: every so many epochs, at the end, and where the run is asked to stop."""
    is_end = epochs_done in (stages.epochs, run.stop_after_epochs)
    return is_end or epochs_done % run.checkpoint_every_epochs == 0


def log_skipped(log: RunLog, batch: Batch, step: int) -> None:
    """Record the batch of the last step, whose loss or gradient was not finite."""
    indices = [index for share in gather_objects(batch.indices.tolist()) for index in share]
    log.record("nonfinite", step=step, indices=indices)
    shown = ", ".join(map(str, indices[:5])) + (", ..." if len(indices) > 5 else "")
    log.say(
        f"warning: the loss or its gradient is not finite at step {step:,}: left out (images {shown})", style="yellow"
    )
