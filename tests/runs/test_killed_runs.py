"""Runs that stop before their end, for whatever reason: what is kept, what is said, and how they go on."""

import os
import shutil
import signal

import pytest
import torch
from accelerate.state import AcceleratorState
from image_folders import write_images
from short_runs import SUPERVISED, TINY, assert_same_weights, events, run, status, weights

from ssl_adapt import load_recipe
from ssl_adapt.commands.ending import user_sentence
from ssl_adapt.data import load_image_splits
from ssl_adapt.objectives import Simclr
from ssl_adapt.runs.folder import RunFolder
from ssl_adapt.runs.lock import lock_folder
from ssl_adapt.runs.stop_signal import InterruptedRunError
from ssl_adapt.training.create_learner import create_learner
from ssl_adapt.training.objective import create_objective
from ssl_adapt.training.progress import check_same_view
from ssl_adapt.training.setting import create_accelerator, epoch_batches


def test_a_run_without_a_checkpoint_starts_over(tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr("ssl_adapt.training.loop.log_epoch", lambda *args, **kwargs: {}["a defect"])
        with pytest.raises(KeyError):
            run(tmp_path / "a")
    assert status(tmp_path / "a") == ("failed", "KeyError: 'a defect'")
    assert run(tmp_path / "a", "train.max_steps=2") is not None
    assert len(events(tmp_path / "a", "untrained")) == 1
    assert status(tmp_path / "a") == ("finished", None)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run that nothing interrupts."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    run(folder)
    return folder


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(tmp_path, whole, capsys):
    run(tmp_path / "a", "run.stop_after_epochs=1", "run.checkpoint_every_steps=4")
    first, second = sorted((tmp_path / "a" / "checkpoints").iterdir())
    assert (first.name, second.name) == ("step_000000008", "step_000000010")
    state = second / "state.pt"
    state.write_bytes(state.read_bytes()[:1000])
    run(tmp_path / "a", "run.resume=auto")
    printed = " ".join(capsys.readouterr().out.split())
    assert "a damaged checkpoint is left aside: step_000000010: state.pt has 1,000 bytes" in printed
    assert "going on after step 8, in epoch 1" in printed
    assert_same_weights(whole, tmp_path / "a")
    for folder in (tmp_path / "a" / "checkpoints").iterdir():
        (folder / "manifest.json").unlink()
    with pytest.raises(ValueError, match="no manifest"):
        run(tmp_path / "a", "run.resume=auto")


DIVERGES = ["train.lr=1e30", "train.optimizer=sgd", "train.momentum=0.0"]


def test_a_loss_that_is_not_finite_stops_the_run_after_saving_it(tmp_path):
    with pytest.raises(FloatingPointError, match=r"not finite at step \d+, that of the batch .* lower train\.lr"):
        run(tmp_path / "a", *DIVERGES)
    (bad,) = events(tmp_path / "a", "nonfinite")
    assert len(set(bad["indices"])) == 128
    assert max(bad["indices"]) < 1297
    assert [path.name for path in (tmp_path / "a" / "checkpoints").iterdir()] == [f"step_{bad['step']:09}"]
    assert status(tmp_path / "a")[0] == "failed"
    with pytest.raises(FloatingPointError, match=f"at step {bad['step'] + 1}"):  # goes on, to the next such batch
        run(tmp_path / "a", *DIVERGES, "run.resume=auto")
    with pytest.raises(FloatingPointError, match="those of 10 batches"):
        run(tmp_path / "a", *DIVERGES, "run.resume=auto", "train.on_nonfinite=skip")


def test_a_batch_without_a_finite_loss_is_left_out_as_if_it_had_not_been(tmp_path, monkeypatch):
    """Stopped by it and resumed, or skipped: the same weights, finite, with BatchNorm's statistics untouched."""
    loss = Simclr.loss

    def fails_once_in_a_while(objective, outputs):
        spoilt = abs(outputs[0].sum().item()) * 1000 % 1 < 0.15  # the same batches in every run
        return loss(objective, outputs) * (torch.nan if spoilt else 1.0)

    monkeypatch.setattr(Simclr, "loss", fails_once_in_a_while)
    run(tmp_path / "skipped", "train.on_nonfinite=skip")
    bad = events(tmp_path / "skipped", "nonfinite")
    assert 1 <= len(bad) < 10
    for _ in range(len(bad)):
        with pytest.raises(FloatingPointError):
            run(tmp_path / "stopped", "run.resume=auto")
    run(tmp_path / "stopped", "run.resume=auto")
    assert_same_weights(tmp_path / "skipped", tmp_path / "stopped")
    assert all(value.isfinite().all() for value in weights(tmp_path / "skipped").values())
    assert [event["step"] for event in events(tmp_path / "stopped", "nonfinite")] == [event["step"] for event in bad]


def test_a_longer_run_is_asked_for_by_name(tmp_path, capsys):
    """With a constant learning rate it is the run that was that long from the start."""
    few_images = ["data.train_images=400", "train.schedule=constant"]
    run(tmp_path / "whole", "train.epochs=3", *few_images)
    run(tmp_path / "a", *few_images)
    with pytest.raises(ValueError, match=r"train\.epochs=2, now 3: type run\.resume=extend"):
        run(tmp_path / "a", *few_images, "train.epochs=3", "run.resume=auto")
    with pytest.raises(ValueError, match=r"train\.lr \(0\.002, now 0\.1\)"):
        run(tmp_path / "a", *few_images, "train.epochs=3", "run.resume=extend", "train.lr=0.1")
    with pytest.raises(ValueError, match=r"train\.max_steps=null"):
        run(tmp_path / "a", *few_images, "train.epochs=3", "run.resume=extend", "train.max_steps=90")
    run(tmp_path / "a", *few_images, "train.epochs=3", "run.resume=extend")
    assert "extended from 2 to 3 epochs" in capsys.readouterr().out
    assert_same_weights(tmp_path / "whole", tmp_path / "a")
    assert load_recipe([f"recipe={tmp_path / 'a' / 'recipe.yaml'}"]).train.epochs == 3
    with pytest.raises(ValueError, match=r"train\.epochs \(3, now 2\)"):
        run(tmp_path / "a", *few_images, "run.resume=extend")


def test_two_runs_in_one_folder_are_refused(tmp_path):
    run(tmp_path / "a", "train.max_steps=2")
    with lock_folder(tmp_path / "a"), pytest.raises(ValueError, match="is in use by process"):
        run(tmp_path / "a", "train.max_steps=2", "run.resume=auto")
    assert run(tmp_path / "a", "train.max_steps=2", "run.resume=auto") is not None


def test_stopped_by_a_signal_within_an_epoch(tmp_path, whole, monkeypatch):
    loss, calls = Simclr.loss, []

    def signals_once(objective, outputs):
        calls.append(1)
        if len(calls) == 7:  # the fourth step's first pass
            os.kill(os.getpid(), signal.SIGTERM)
        return loss(objective, outputs)

    monkeypatch.setattr(Simclr, "loss", signals_once)
    with pytest.raises(InterruptedRunError, match=r"SIGTERM came, and step 4 was saved"):
        run(tmp_path / "a")
    assert status(tmp_path / "a")[0] == "interrupted"
    run(tmp_path / "a", "run.resume=auto")
    assert_same_weights(whole, tmp_path / "a")
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.parametrize("objective", ["simclr", "supervised"])
def test_a_batch_in_parts(tmp_path, objective):
    base = TINY if objective == "simclr" else SUPERVISED
    run(tmp_path / "a", "train.accumulate=3", "train.max_steps=4", base=base)
    assert events(tmp_path / "a", "epoch")[0]["loss"] > 0
    with pytest.raises(ValueError, match=r"can't be shared by 1 process\(es\) in train\.accumulate=65 part"):
        run(tmp_path / "b", "train.accumulate=65", base=base)


def test_results_without_a_checkpoint_are_not_overwritten(tmp_path):
    run(tmp_path / "a", "train.max_steps=2")
    shutil.rmtree(tmp_path / "a" / "checkpoints")
    for resume in ("never", "auto"):
        with pytest.raises(ValueError, match=r"holds result\.json of a run but no checkpoint to resume from"):
            run(tmp_path / "a", "train.max_steps=2", f"run.resume={resume}")


def test_a_folder_that_another_run_made_meanwhile(tmp_path, monkeypatch):
    create = RunFolder.create

    def late(folder):
        with monkeypatch.context() as patched:
            patched.setattr(RunFolder, "create", create)
            AcceleratorState._reset_state(reset_partial_state=True)
            run(tmp_path / "a", "train.max_steps=2")
        create(folder)

    monkeypatch.setattr(RunFolder, "create", late)
    with pytest.raises(ValueError, match="was made by another run while this one began"):
        run(tmp_path / "a", "train.max_steps=2")


def test_a_stop_that_was_passed_already_stops_at_once(tmp_path):
    assert run(tmp_path / "a", "train.epochs=3", "run.stop_after_epochs=2") is None
    assert run(tmp_path / "a", "train.epochs=3", "run.stop_after_epochs=1", "run.resume=auto") is None
    assert len(events(tmp_path / "a", "epoch")) == 2


def test_too_little_memory_is_a_sentence():
    assert "train.accumulate" in str(user_sentence(torch.OutOfMemoryError("CUDA out of memory. Tried to ...")))
    assert "train.accumulate" in str(user_sentence(MemoryError()))
    assert user_sentence(KeyError("a defect")) is None


def test_a_slip_of_ours_is_no_sentence():
    def slip():
        epoch_batches(load_recipe("debug").data, None, None, None, 0, 0, 0)

    with pytest.raises(AttributeError) as caught:
        slip()
    assert user_sentence(caught.value) is None
    with pytest.raises(ValueError, match="zip") as slipped:
        list(zip([1], [], strict=True))
    assert user_sentence(slipped.value) is None


def test_a_step_without_a_finite_loss_moves_nothing(monkeypatch):
    recipe = load_recipe([*TINY, "adapt.theta_updates_bn=true"])
    objective = create_objective(recipe, load_image_splits("digits", image_px=8).train)
    learner = create_learner(recipe, objective, create_accelerator(recipe))
    views = tuple(torch.randn(4, 3, 8, 8) for _ in range(2))
    loss = objective.loss
    monkeypatch.setattr(objective, "loss", lambda *arguments: loss(*arguments) * torch.nan)
    before = {name: value.clone() for name, value in learner.network.state_dict().items()}
    theta = [value.clone() for value in learner.adaptation.theta_parameters()]
    assert learner.train_weights(views, 0.1, 0.5) is None
    assert learner.train_theta(views) is None
    assert all(torch.equal(before[name], value) for name, value in learner.network.state_dict().items())
    assert all(map(torch.equal, theta, learner.adaptation.theta_parameters()))
    monkeypatch.undo()
    assert learner.train_weights(views, 0.1, 0.5) is not None
    assert not all(torch.equal(before[name], value) for name, value in learner.network.state_dict().items())


def test_processes_that_see_other_images_are_told(monkeypatch):
    images = range(7)
    check_same_view(images, None, None)
    monkeypatch.setattr("ssl_adapt.training.progress.gather_objects", lambda mine: [mine, {**mine, "test images": 3}])
    with pytest.raises(ValueError, match=r"see different test images \(0, 3\)"):
        check_same_view(images, None, None)


def test_a_run_goes_on_with_as_many_images_as_it_had(tmp_path):
    """One file fewer would give every epoch another order."""
    write_images(tmp_path / "set", *(f"train/a/{index}.png" for index in range(6)), "test/a/0.png", "test/a/1.png")
    images = ["data.name=folder", f"data.root={tmp_path / 'set'}", "data.batch_size=2", "knn.k=2", "adapt.epochs=1"]
    run(tmp_path / "run", *images, "run.stop_after_epochs=1")
    for name, sentence in (
        ("test/a/1.png", r"the run had 2 test images when it was saved, now there are 1, so that"),
        ("train/a/5.png", r"the run had 6 training images when it was saved, now there are 5, so that .* same images"),
    ):
        content = (tmp_path / "set" / name).read_bytes()
        (tmp_path / "set" / name).unlink()
        with pytest.raises(ValueError, match=sentence):
            run(tmp_path / "run", *images, "run.resume=auto")
        (tmp_path / "set" / name).write_bytes(content)
    assert run(tmp_path / "run", *images, "run.resume=auto") is not None
