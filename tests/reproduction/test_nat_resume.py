"""NAT's searches that are stopped, killed and called again: what is kept, what is refused, and that they end alike."""

import json
import os
import shutil
import signal
from dataclasses import replace

import pytest
import torch
from script_calls import run_script

from reproduction.nat.nat_learner import NatLearner
from reproduction.nat.search import search
from reproduction.nat.settings import PUBLISHED
from ssl_adapt import load_recipe
from ssl_adapt.data import load_image_splits
from ssl_adapt.objectives import Simclr, Supervised
from ssl_adapt.runs.checkpoint import Checkpoints
from ssl_adapt.runs.lock import lock_folder
from ssl_adapt.runs.stop_signal import InterruptedRunError

# An epoch is 2 batches of the weights and 3 of the controller; 3 more at the end judge the drawn transforms.
SETTINGS = replace(PUBLISHED, epochs=2, batch_size=32, channels=2, cells=1, transforms=3)
OF_EPOCH, OF_TRAINING, OF_ALL = 5, 10, 13
SUPERVISED = ["recipe=supervised_resnet20", "data.name=digits", "data.image_px=8", "views.pad_px=1", "adapt=null"]
SIMCLR = ["recipe=debug", "data.image_px=8", "adapt=null", "model.args={}"]
OBJECTIVES = {"supervised": (SUPERVISED, Supervised), "simclr": (SIMCLR, Simclr)}


class KilledError(Exception):
    """As SIGKILL: nothing is saved."""


@pytest.fixture(scope="module")
def digits():
    return load_image_splits("digits", image_px=8).train.subset(torch.arange(160))


@pytest.fixture(scope="module")
def untouched(digits, tmp_path_factory):
    """The results of searches that nothing has stopped, by objective."""
    folder = tmp_path_factory.mktemp("untouched")
    return {
        task: without_seconds(search_in(folder / task, digits, base=base)) for task, (base, _) in OBJECTIVES.items()
    }


def search_in(folder, digits, *arguments, base=SUPERVISED, settings=SETTINGS, report=print):
    recipe = load_recipe([*base, "model.name=resnet20_nat", *arguments])
    return search(recipe, digits, settings, folder, report=report)


def without_seconds(result):
    history = tuple(replace(epoch, seconds=0) for epoch in result.history)
    return replace(result, seconds=0, history=history)


def act_at(monkeypatch, batch, action, objective=Supervised):
    """Do something as the search takes its n-th batch, counted from 1; the list counts them."""
    views, seen = objective.views, []

    def views_and_act(self, images):
        seen.append(1)
        if len(seen) == batch:
            action()
        return views(self, images)

    monkeypatch.setattr(objective, "views", views_and_act)
    return seen


def told():
    os.kill(os.getpid(), signal.SIGTERM)


def killed():
    raise KilledError


def stop_at(monkeypatch, batch, folder, digits, task="supervised"):
    base, kind = OBJECTIVES[task]
    with monkeypatch.context() as patched:
        act_at(patched, batch, told, kind)
        with pytest.raises(InterruptedRunError, match="SIGTERM came, and step"):
            search_in(folder, digits, base=base)


def state_at_the_end_of_training(monkeypatch, folder, digits, task, stops=()):
    """All that is saved before the drawn transforms are judged, of a search that was stopped before as said."""
    for batch in stops:
        stop_at(monkeypatch, batch, folder, digits, task)
    taken = sum(stops)
    stop_at(monkeypatch, OF_TRAINING + 1 - taken, folder, digits, task)
    saved = Checkpoints(folder, keep=1).load_newest()
    assert saved.step == OF_TRAINING
    return saved.state


def equal(a, b):
    """Whether nested plain data are the same to the bit, but for the seconds that passed."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        timing = {"seconds", "epoch_start"}
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a.keys() - timing)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


@pytest.mark.parametrize("task", OBJECTIVES)
def test_stopped_and_resumed_equals_uninterrupted(digits, untouched, task, tmp_path, monkeypatch):
    """Stopped in the weights' part, in the controller's, and after an epoch's last batch: all of the state, then the
    result."""
    whole = state_at_the_end_of_training(monkeypatch, tmp_path / "whole", digits, task)
    assert set(whole) == {"setting", "given", "progress", "learner", "random"}
    momenta = whole["learner"]["weight_optimizer"]["state"]
    assert 10 < len(momenta) < len(whole["learner"]["supernet"]), "of the weights that batches have used"
    assert whole["learner"]["baseline"] != 0
    parts = state_at_the_end_of_training(monkeypatch, tmp_path / "parts", digits, task, stops=(1, 3, 1))
    assert equal(whole, parts)
    base, _ = OBJECTIVES[task]
    assert without_seconds(search_in(tmp_path / "parts", digits, base=base)) == untouched[task]


def test_a_stop_saves_the_last_batch_and_says_so(digits, tmp_path, monkeypatch):
    for batch, step in ((4, 4), (4, 8)):
        with monkeypatch.context() as patched:
            act_at(patched, batch, told)
            with pytest.raises(
                InterruptedRunError, match=f"SIGTERM came, and step {step} was saved: the same command continues"
            ):
                search_in(tmp_path, digits)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    lines = []
    seen = act_at(monkeypatch, 0, told)
    search_in(tmp_path, digits, report=lines.append)
    assert lines[0] == "resuming after step 8, in epoch 2"
    assert len(seen) == OF_ALL - 8


@pytest.mark.parametrize("batch", [2, OF_EPOCH + 4, OF_ALL])
def test_a_killed_search_loses_no_more_than_an_epoch(digits, untouched, batch, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        act_at(patched, batch, killed)
        with pytest.raises(KilledError):
            search_in(tmp_path / "a", digits)
    seen = act_at(monkeypatch, 0, told)
    assert without_seconds(search_in(tmp_path / "a", digits)) == untouched["supervised"]
    assert len(seen) == OF_ALL - OF_EPOCH * ((batch - 1) // OF_EPOCH)


def test_a_finished_search_tells_its_result_again(digits, tmp_path, monkeypatch):
    result = search_in(tmp_path, digits)
    (kept,) = tmp_path.glob("step_*")
    assert sum(file.stat().st_size for file in kept.iterdir()) < 20_000, "no weights"
    monkeypatch.setattr(NatLearner, "train_weights", lambda *_: pytest.fail("it trains again"))
    lines = []
    assert search_in(tmp_path, digits, report=lines.append) == result
    assert lines == [f"this search has finished; its result is in {tmp_path}"]


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(digits, untouched, tmp_path, monkeypatch):
    stop_at(monkeypatch, OF_EPOCH + 2, tmp_path / "a", digits)
    first, second = sorted((tmp_path / "a").glob("step_*"))
    assert (first.name, second.name) == ("step_000000005", "step_000000007")
    (second / "state.pt").write_bytes((second / "state.pt").read_bytes()[:-1])
    lines = []
    assert without_seconds(search_in(tmp_path / "a", digits, report=lines.append)) == untouched["supervised"]
    assert lines[0].startswith("warning: a damaged checkpoint is skipped: step_000000007: state.pt has ")
    assert lines[1] == "resuming after step 5, in epoch 2"


OTHER_CELLS = "model.args.genotype=NAT_ResBlock"


@pytest.mark.parametrize(
    ("arguments", "changes", "message"),
    [
        (["seed=1"], {}, r"seed \(0, now 1\)"),
        (["views.flip_p=0.0"], {}, r"views\.flip_p \(0\.5, now 0\.0\)"),
        ([OTHER_CELLS], {}, "the cells of the network"),
        (
            [],
            {"epochs": 3, "baseline": "moving_average"},
            r"baseline \('released', now 'moving_.*, epochs \(2, now 3\)",
        ),
        (["data.train_images=100"], {}, r"data\.train_images \(None, now 100\)"),
    ],
)
def test_another_search_is_refused(digits, arguments, changes, message, tmp_path, monkeypatch):
    stop_at(monkeypatch, 1, tmp_path / "begun", digits)
    settings = replace(SETTINGS, **changes)
    with pytest.raises(ValueError, match=rf"{message}; continue .* or type another genotype=FILE\.json"):
        search_in(tmp_path / "begun", digits, *arguments, settings=settings)


def test_what_does_not_change_a_result_may_differ(digits, tmp_path, monkeypatch):
    stop_at(monkeypatch, 1, tmp_path, digits)
    assert search_in(tmp_path, digits, "data.workers=0", "train.lr=0.5", "run.dir=x", "name=y").scores
    with pytest.raises(ValueError, match=r"training images \(160, now 159\)"):
        search_in(tmp_path, digits.subset(torch.arange(159)))


def test_two_at_a_time_and_foreign_states_are_refused(digits, tmp_path):
    with lock_folder(tmp_path), pytest.raises(ValueError, match=r"in use by .* or type another genotype=FILE\.json"):
        search_in(tmp_path, digits)
    search_in(tmp_path, digits)
    (kept,) = tmp_path.glob("step_*")
    state = Checkpoints(tmp_path, keep=1).load_newest().state
    Checkpoints(tmp_path, keep=1).save(99, {"setting": state["setting"], "given": state["given"]})
    with pytest.raises(ValueError, match=r"step 99 was saved by another release \('progress'\): type another genotype"):
        search_in(tmp_path, digits)
    shutil.rmtree(kept, ignore_errors=True)
    (tmp_path / "step_000000099" / "manifest.json").unlink()
    with pytest.raises(ValueError, match=r"is whole .*: type another genotype=FILE\.json"):
        search_in(tmp_path, digits)


def test_the_script_goes_on_and_writes_its_files_again(tmp_path, monkeypatch):
    found, log = tmp_path / "found.json", tmp_path / "log.json"
    arguments = [
        *SUPERVISED, "data.train_images=160", "model.name=resnet20_nat", "epochs=1", "channels=2", "cells=3",
        "batch_size=32", "transforms=2", f"genotype={found}", f"json={log}",
    ]  # fmt: skip
    with monkeypatch.context() as patched:
        act_at(patched, 3, told)
        stopped = run_script(*arguments, script="nat_search.py")
    assert stopped.code == 128 + signal.SIGTERM
    assert stopped.err == "stopped: SIGTERM came, and step 3 was saved: the same command continues from there\n"
    assert not found.exists()
    ended = run_script(*arguments, script="nat_search.py")
    assert (ended.code, ended.out.splitlines()[0]) == (0, "resuming after step 3, in epoch 1")
    texts = found.read_text(), log.read_text()
    found.unlink()
    log.write_text("torn")
    again = run_script(*arguments, script="nat_search.py")
    assert again.out.startswith(f"this search has finished; its result is in {found}.search\nscore ")
    assert (found.read_text(), log.read_text()) == texts
    assert json.loads(texts[1])["genotype"] == json.loads(texts[0])
