"""Weights spread over two processes: the same steps to the last bits, half of the numbers in each, whole files."""

from typing import Any

import processes_run
import processes_sharded
import pytest
import torch
from forked import run_processes

from ssl_adapt.data import load_image_splits
from ssl_adapt.training.create_learner import create_learner
from ssl_adapt.training.objective import create_objective
from ssl_adapt.training.setting import create_accelerator

BYOL = ["recipe=byol_resnet20", *processes_run.SMALL, *processes_run.OTHERS, "train.shard_weights=true"]
Found = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def of_both(tmp_path_factory: pytest.TempPathFactory) -> list[Found]:
    folder = tmp_path_factory.mktemp("sharded")
    ended = run_processes(2, folder, processes_sharded.main, folder)
    assert [process.code for process in ended] == [0, 0], ended
    return [torch.load(folder / f"sharded{index}.pt") for index in range(2)]


@pytest.mark.parametrize("name", processes_sharded.CASES)
def test_steps_checkpoints_and_exports_are_those_of_whole_weights(of_both: list[Found], name: str) -> None:
    for found in of_both:
        whole, sharded = found[name]
        assert len(set(whole["losses"].tolist())) == 3
        for key in ("losses", "features"):
            torch.testing.assert_close(sharded[key], whole[key], rtol=1e-9, atol=1e-12)
        assert sharded["norm"] == pytest.approx(whole["norm"], rel=1e-9)
        assert sharded["again"] == pytest.approx(whole["again"], rel=1e-9)
        assert list(sharded["network"]) == list(whole["network"])
        torch.testing.assert_close(sharded["network"], whole["network"], rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(sharded["optimizer"], whole["optimizer"], rtol=1e-9, atol=1e-12)
        assert all(type(tensor) is torch.Tensor for tensor in sharded["network"].values())
    assert sum(found[name][1]["numbers"] for found in of_both) == of_both[0][name][0]["numbers"]
    assert max(found[name][1]["numbers"] for found in of_both) < 0.6 * of_both[0][name][0]["numbers"]


def test_a_teacher_is_refused() -> None:
    recipe = processes_run.read(BYOL)
    objective = create_objective(recipe, load_image_splits("digits", image_px=8).train)
    with pytest.raises(ValueError, match="was not tried with an objective that has a teacher, as BYOL has: set it to"):
        create_learner(recipe, objective, create_accelerator(recipe))
