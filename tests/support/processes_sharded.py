"""What each of several processes computes for tests/training/test_sharding.py, with whole weights or with a part."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import processes_run
import torch
from processes_run import SMALL, images

from ssl_adapt.processes import process_count, process_index
from ssl_adapt.training.sharding import plain_network, shard_weights

CASES = {
    "sgd": ["train.optimizer=sgd", "train.momentum=0.9", "train.clip_grad_norm=0.5"],
    "adam, 2 parts": ["train.optimizer=adam", "train.accumulate=2"],
}


def measure(arguments: list[str], *, sharded: bool) -> dict[str, Any]:
    """Losses of three steps after the fix, the weights and what the optimiser keeps, and how many numbers are here."""
    overridden = {argument.partition("=")[0] for argument in arguments}
    small = [argument for argument in SMALL if argument.partition("=")[0] not in overridden]
    learner = processes_run.create([*small, *arguments, f"train.shard_weights={str(sharded).lower()}"])

    def train(step: int) -> float | None:
        views = [view.chunk(process_count())[process_index()] for view in images(step, learner.image_px)]
        return learner.train_weights(views, 0.05, 0.5)

    assert train(0) is not None
    learner.fix()
    shard_weights(learner)
    shard_weights(learner)  # changes nothing
    losses = [train(step) for step in range(1, 4)]
    found = deepcopy(learner.state_dict())
    plain = plain_network(learner)
    features = plain.backbone.eval()(images(0, 8)[0]).detach()
    plain.train()  # of whole weights it is the network itself
    return {
        "losses": torch.tensor(losses),
        "norm": learner.gradient_norm,
        "network": found["network"],
        "optimizer": found["weight_optimizer"]["state"],
        "numbers": sum(getattr(p, "to_local", lambda p=p: p)().numel() for p in learner.network.parameters()),
        "features": features,
        "again": train(4),
    }


def main(folder: Path) -> None:
    torch.set_default_dtype(torch.float64)
    found = {
        name: [measure(arguments, sharded=sharded) for sharded in (False, True)] for name, arguments in CASES.items()
    }
    torch.save(found, folder / f"sharded{process_index()}.pt")
