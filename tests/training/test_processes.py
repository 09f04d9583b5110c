"""Two real processes compute what one does: loss, gradients, theta, architecture, weights."""

import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import processes_run
import pytest
import timm
import torch
from accelerate.state import AcceleratorState
from checkout import ROOT
from forked import Ended, run_processes, run_script

from ssl_adapt import Architecture
from ssl_adapt.training.setting import has_unread_weights

PRETRAIN = ROOT / "scripts" / "pretrain.py"
# One process takes the shares of two as parts: BatchNorm then sees the same images together.
AS_PARTS = {"statistics of each": 2, "statistics of each, 2 parts": 4, "vicreg, 2 parts": 4}


@pytest.fixture(scope="module")
def folder_of_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("processes")
    ended = run_processes(2, folder, processes_run.main, folder)
    assert [process.code for process in ended] == [0, 0], ended
    # It was told to look where there are some.
    assert not any("did not find any unused parameters" in process.err for process in ended)
    return folder


@pytest.fixture(scope="module")
def of_two(folder_of_two: Path) -> list[dict[str, Any]]:
    found = [torch.load(folder_of_two / f"process{index}.pt") for index in range(2)]
    assert all(case["processes"] == 2 for process in found for case in process.values())
    return found


def of_one(name: str) -> dict[str, Any]:
    arguments, lengths = processes_run.CASES[name]
    kept = [a for a in arguments if not a.startswith("train.accumulate")]
    parts = [f"train.accumulate={AS_PARTS[name]}"] if name in AS_PARTS else []
    dtype = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        with patch.dict(processes_run.CASES, {name: ([*kept, *parts], lengths)}):
            return processes_run.measure(name)
    finally:
        torch.set_default_dtype(dtype)
        AcceleratorState._reset_state(reset_partial_state=True)


def test_all_processes_do_what_one_must(folder_of_two: Path) -> None:
    """One has a loss that is not finite, or was told to stop: none of them moves, or all learn it, by the same pass."""
    first, second = (torch.load(folder_of_two / f"agreed{index}.pt") for index in range(2))
    assert first == second
    assert [loss is None for loss, _ in first] == 3 * [True] + 6 * [False]
    assert [must_stop for _, must_stop in first] == 6 * [False] + 3 * [True]


def assert_close(
    found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], least: int, rtol: float = 1e-6
) -> None:
    assert list(found) == list(expected)
    assert len(found) >= least
    for key, value in expected.items():
        torch.testing.assert_close(
            found[key], value, rtol=rtol, atol=rtol / 100, msg=lambda text, key=key: f"{key}: {text}"
        )


@pytest.mark.parametrize("name", processes_run.CASES)
def test_two_processes_compute_what_one_does(of_two: list[dict[str, Any]], name: str) -> None:
    first, second = (process[name] for process in of_two)
    expected = of_one(name)
    assert expected["processes"] == 1
    for found in (first, second):
        torch.testing.assert_close(found["loss"], expected["loss"], rtol=1e-10, atol=0)
        torch.testing.assert_close(found["losses"], expected["losses"], rtol=1e-7, atol=0)
        assert_close(found["gradients"], expected["gradients"], 8, rtol=1e-9)
        is_adapting = "adapt=null" not in processes_run.CASES[name][0]
        assert ("theta" in found) == is_adapting
        if is_adapting:
            assert_close(found["theta"], expected["theta"], 4)
            assert found["architecture"] == expected["architecture"]
        statistics = ("running_mean", "running_var", "num_batches_tracked") if name in AS_PARTS else ()
        kept = {n for n in expected["network"] if not n.endswith(statistics or "-")}
        assert_close(*({n: side["network"][n] for n in kept} for side in (found, expected)), 8)
    assert all(torch.equal(first["network"][n], second["network"][n]) for n in first["network"])


def test_statistics_that_are_the_mean_of_all_batches(folder_of_two: Path) -> None:
    dtype = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        expected = processes_run.mean_statistics()
    finally:
        torch.set_default_dtype(dtype)
    for index in range(2):
        assert_close(torch.load(folder_of_two / f"statistics{index}.pt"), expected, 3, rtol=1e-9)


@pytest.mark.parametrize("score", processes_run.SCORES)
def test_two_processes_choose_the_same_changes_as_one(folder_of_two: Path, score: str) -> None:
    """Scores, choices of two rounds, annealing and weights."""
    first, second = (torch.load(folder_of_two / f"chosen_{score}{index}.pt") for index in range(2))
    dtype = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        expected = processes_run.chosen(score)
    finally:
        torch.set_default_dtype(dtype)
        AcceleratorState._reset_state(reset_partial_state=True)
    assert len(expected["changes"]) == 2
    assert all(expected["changes"])
    for found in (first, second):
        assert found["changes"] == expected["changes"]
        assert found["architecture"] == expected["architecture"]
        torch.testing.assert_close(found["scores"], expected["scores"], rtol=1e-5, atol=5e-7)  # of float32 losses
        assert_close(found["network"], expected["network"], 10)
    assert torch.equal(first["scores"], second["scores"])
    assert all(torch.equal(first["network"][name], second["network"][name]) for name in first["network"])


def test_most_comparisons_are_of_architectures_that_changed(of_two: list[dict[str, Any]]) -> None:
    edges = [case["architecture"]["edges"].values() for case in of_two[0].values() if "architecture" in case]
    assert len(edges) == sum("adapt=null" not in arguments for arguments, _ in processes_run.CASES.values())
    assert sum(set(choices) > {"original"} for choices in edges) >= 4


def test_the_comparison_would_see_a_wrong_factor(of_two: list[dict[str, Any]]) -> None:
    """Halved gradients, as of a loss that is divided by the number of processes once too often, are far off."""
    expected = of_one("simclr")["gradients"]
    halved = {name: value / 2 for name, value in of_two[0]["simclr"]["gradients"].items()}
    with pytest.raises(AssertionError):
        assert_close(halved, expected, 10)


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("resnet20", {"width": 4, "layers": [1, 1]}, False),
        ("resnet20_nat", {"channels": 4, "cells": 3}, True),
        ("darts", {"channels": 4, "cells": 3, "auxiliary": True, "drop_path_rate": 0.5}, False),
        ("vit_tiny_patch16_224", {"depth": 1}, False),  # takes no such images: said elsewhere
    ],
)
@pytest.mark.parametrize("recomputes", [False, True])
def test_looking_for_unread_weights_leaves_nothing_behind(
    name: str, arguments: dict[str, Any], expected: bool, recomputes: bool
) -> None:
    network = timm.create_model(name, num_classes=4, **arguments)
    network.set_grad_checkpointing(recomputes)
    before = copy.deepcopy(network.state_dict())
    random_before = torch.get_rng_state()
    assert has_unread_weights(network, 16) is expected
    assert torch.equal(torch.get_rng_state(), random_before)
    after = network.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert all(weight.grad is None for weight in network.parameters())


def forks(folder: Path, *arguments: str) -> Ended:
    """How scripts/pretrain.py ended in two processes, and all that they said."""
    ended = run_processes(2, folder, run_script, PRETRAIN, list(arguments))
    codes, outs, errs = zip(*ended, strict=True)
    return Ended(max(map(abs, codes)), "".join(outs), "".join(errs))


def torchrun(folder: Path, *arguments: str) -> Ended:
    """The same by the command that users type."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(PRETRAIN)]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "1"}
    done = subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True, timeout=240)
    return Ended(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("start", [forks, pytest.param(torchrun, marks=pytest.mark.slow)])
def test_a_whole_run_in_two_processes(tmp_path: Path, start: Callable[..., Ended]) -> None:
    """Both stages, kNN and export; and what is refused is said once."""
    folder = tmp_path / "run"
    arguments = [
        "recipe=debug", "data.image_px=8", "model.args={width: 4, layers: [1, 2]}", "train.max_steps=6",
        "adapt.theta_lr=0.5", "train.accumulate=2", "train.precision=bfloat16", "run.report=false", f"run.dir={folder}",
    ]  # fmt: skip
    done = start(tmp_path / "first", *arguments)
    assert done.code == 0, done.err
    assert done.out.count("exported: ") == 1
    assert "batch 64 in 2 processes of 2 parts" in done.out
    result = json.loads((folder / "result.json").read_text())
    assert set(result["knn_top1"]) == {"raw_pixels", "untrained", "before_fix", "after_fix", "recalibrated", "result"}
    loaded = timm.create_model(f"local-dir:{folder / 'export'}", pretrained=True, num_classes=0)
    assert Architecture.of(loaded).changed
    (checkpoint,) = (folder / "checkpoints").iterdir()
    assert checkpoint.name == "step_000000006"

    refused = start(tmp_path / "second", *arguments[:-1], f"run.dir={tmp_path / 'other'}", "data.batch_size=63")
    assert refused.code != 0
    assert refused.err.count("error: data.batch_size=63 can't be shared by 2 process(es)") == 1
    assert not (tmp_path / "other").exists()
