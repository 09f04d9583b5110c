"""A run goes on with another number of processes: the same batches, and what can't be kept is said."""

import json
import shutil
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from checkout import ROOT
from forked import run_processes, run_script
from short_runs import events, load_checkpoint, run, weights

from ssl_adapt import load_recipe
from ssl_adapt.data import load_image_splits
from ssl_adapt.runs.checkpoint import Checkpoint, Checkpoints
from ssl_adapt.training import setting, shares
from ssl_adapt.training.schedules import Stages
from ssl_adapt.training.shares import Shares, find_shares, learner_state

PRETRAIN = ROOT / "scripts" / "pretrain.py"
# Without random views: nothing but the last bits of sums depends on the number of processes.
# Two of them keep parts of the weights.
ORDERED = [
    "recipe=supervised_resnet20", "data.name=digits", "data.image_px=8", "data.batch_size=32", "data.train_images=160",
    "train.epochs=3", "train.schedule=constant", "train.warmup_epochs=0", "train.optimizer=sgd", "train.momentum=0",
    "train.lr=0.05", "model.args={width: 4, layers: [1, 1]}", "views.pad_px=0", "views.flip_p=0", "views.cutout_px=0",
    "adapt=null", "run.log_every_steps=1", "run.accuracy_every_epochs=0", "train.precision=float32",
    "train.shard_weights=true", "run.report=false",
]  # fmt: skip


def run_two(place: Path, *arguments: str) -> None:
    ended = run_processes(2, place, run_script, PRETRAIN, [*ORDERED, *arguments])
    assert [process.code for process in ended] == [0, 0], ended


def losses(folder: Path) -> list[float]:
    return [event["loss"] for event in events(folder, "step")]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    run(folder, base=ORDERED)
    return folder


@pytest.fixture(scope="module")
def changing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two processes, then one, then two, with a checkpoint after each."""
    place = tmp_path_factory.mktemp("changing")
    folder = place / "run"
    run_two(place / "first", f"run.dir={folder}", "run.stop_after_epochs=1")
    run(folder, "run.stop_after_epochs=2", "run.resume=auto", base=ORDERED)
    AcceleratorState._reset_state(reset_partial_state=True)
    run_two(place / "third", f"run.dir={folder}", "run.resume=auto")
    return folder


def test_two_to_one_and_back_follow_the_run_that_never_changed(whole: Path, changing: Path) -> None:
    """Losses of all steps: a batch in another order, or views of its own, would be seen in the first digits."""
    expected, found = losses(whole), losses(changing)
    assert len(expected) == len(found) == 15
    assert len({round(loss, 3) for loss in expected}) > 10
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected), rtol=1e-4, atol=0)
    torch.testing.assert_close(weights(changing), weights(whole), rtol=1e-2, atol=1e-4)


def test_the_change_is_logged_in_a_sentence(changing: Path) -> None:
    changes = events(changing, "processes")
    assert [(change["step"], change["before"], change["now"]) for change in changes] == [(5, 2, 1), (10, 1, 2)]
    assert changes[0]["change"].startswith("2 process(es) before, now 1, each with 32 images at once")
    assert "order are kept, but not the random numbers of views" in changes[0]["change"]


def test_random_numbers_are_new_and_those_of_the_step(tmp_path: Path, changing: Path) -> None:
    """Two resumes from one checkpoint draw the same, also where its states fit no process of now."""
    noisy = [argument for argument in ORDERED if not argument.startswith("views.")]
    run(tmp_path / "a", "run.stop_after_epochs=1", base=noisy)
    saved = load_checkpoint(tmp_path / "a")
    saved.state["random_states"] *= 2
    Checkpoints(tmp_path / "a" / "checkpoints", keep=1).save(saved.step, saved.state)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    for folder in (tmp_path / "a", tmp_path / "b"):
        run(folder, "run.resume=auto", "run.stop_after_epochs=2", base=noisy)
    first, second = (load_checkpoint(tmp_path / name).state for name in "ab")
    assert first["epoch"] == 2
    assert torch.equal(first["random_states"][0]["cpu"], second["random_states"][0]["cpu"])
    assert all(map(torch.equal, first["learner"]["network"].values(), second["learner"]["network"].values()))


def test_each_process_and_step_draws_numbers_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = set()
    for processes, step, index in ((1, 7, 0), (1, 8, 0), (2, 0, 0), (2, 0, 1), (2, 7, 0), (2, 7, 1)):
        monkeypatch.setattr(setting, "process_count", lambda processes=processes: processes)
        monkeypatch.setattr(setting, "process_index", lambda index=index: index)
        for _ in range(2):
            setting.seed_per_process(3, step)
            draws.add(torch.rand(()).item())
    assert len(draws) == 6


def test_batches_are_the_same_images_in_the_same_order(monkeypatch: pytest.MonkeyPatch) -> None:
    data = load_recipe(ORDERED).data
    train_set = load_image_splits("digits", image_px=8).train
    stages = Stages(5, 0, 0, 15)

    def batches(processes: int) -> list[list[int]]:
        found = []
        for index in range(processes):
            monkeypatch.setattr(setting, "process_count", lambda: processes)
            monkeypatch.setattr(setting, "process_index", lambda index=index: index)
            share = setting.epoch_batches(data, train_set, torch.device("cpu"), stages, 3, 1, 7)
            found.append([batch.indices.tolist() for batch in share])
        return [list(chain.from_iterable(parts)) for parts in zip(*found, strict=True)]

    expected = batches(1)
    assert [len(batch) for batch in expected] == [32, 32, 32]
    assert batches(2) == batches(4) == expected


@pytest.mark.parametrize(
    ("processes", "accumulate", "now", "synchronised", "expected"),
    [
        (2, 1, 1, True, 1),  # the statistics stay those of the whole batch
        (2, 3, 4, True, 3),
        (2, 1, 1, False, 2),  # those of half a batch
        (8, 1, 3, False, 3),
        (1, 4, 2, False, 2),
        (1, 1, 2, False, 1),
    ],
)
def test_the_parts_of_a_share(
    monkeypatch: pytest.MonkeyPatch, processes: int, accumulate: int, now: int, synchronised: bool, expected: int
) -> None:
    monkeypatch.setattr(shares, "process_count", lambda: now)
    assert Shares(processes, accumulate).parts(synchronised) == expected


def checkpoint(processes: int, before: tuple[int, int]) -> Checkpoint:
    return Checkpoint(1, {"random_states": [{}] * processes, "shares": before, "learner": {"plain_cost": 0.5}}, ())


def test_parts_may_change_with_the_number_of_processes_alone() -> None:
    train: Any = SimpleNamespace(accumulate=2)
    assert find_shares(train, None) == Shares(1, 2)
    assert find_shares(train, checkpoint(1, (4, 2))) == Shares(4, 2)  # as it has been since the start
    assert find_shares(train, checkpoint(2, (2, 1))) == Shares(1, 2)  # typed now
    with pytest.raises(ValueError, match=r"started with train\.accumulate=1, now 2: type 1, as it may only change"):
        find_shares(train, checkpoint(1, (1, 1)))


def test_times_of_other_shares_are_measured_anew() -> None:
    adapt: Any = SimpleNamespace(budget_latency=0.5)
    assert learner_state(checkpoint(2, (2, 1)), adapt) == {"plain_cost": None}
    assert learner_state(checkpoint(1, (2, 1)), adapt) == {"plain_cost": 0.5}
    adapt.budget_latency = None
    assert learner_state(checkpoint(2, (2, 1)), adapt) == {"plain_cost": 0.5}


def test_statistics_of_each_process_stay_those_of_as_many_images(tmp_path: Path) -> None:
    """Two processes with statistics of their own go on as one that takes their shares as two parts."""
    folder, alone = tmp_path / "run", "train.sync_batchnorm=false"
    run_two(tmp_path / "first", f"run.dir={folder}", alone, "run.stop_after_epochs=1")
    run(folder, alone, "run.resume=auto", "run.stop_after_epochs=2", base=ORDERED)
    (change,) = events(folder, "processes")
    assert "each with 16 images at once (train.accumulate=2)" in change["change"]
    assert change["change"].endswith("BatchNorm's statistics are those of 16 images")
    assert json.loads((folder / "status.json").read_text())["state"] == "stopped"
    assert load_checkpoint(folder).state["shares"] == (2, 1)
