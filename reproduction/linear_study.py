"""Linear probes and few labels of what `linear_runs` trained: python -m reproduction.linear_study root=TAR folder=RUNS.

Each score is a line of FOLDER/scores.jsonl; a second call goes on where the first one ended. results/linear.md has the
plan and what came out.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from pydantic import Field
from torch import nn

from reproduction.linear_runs import LinearRunsOptions, run_folder
from reproduction.linear_summary import write_results
from ssl_adapt.commands.ending import run_command
from ssl_adapt.data import ImageSplits, load_image_splits
from ssl_adapt.evaluation.accuracy import wilson_interval
from ssl_adapt.evaluation.features import extract_features
from ssl_adapt.evaluation.frozen_network import find_network, load_network
from ssl_adapt.evaluation.knn import evaluate_knn
from ssl_adapt.evaluation.linear import evaluate_linear
from ssl_adapt.evaluation.linear_protocol import FeaturesProtocol, LinearProtocol, SgdProtocol, create_sgd_plain
from ssl_adapt.evaluation.protocol import KnnProtocol
from ssl_adapt.recipe.help import describe_options
from ssl_adapt.recipe.read import read_options
from ssl_adapt.recipe.values import Count, Text

USAGE = """\
usage: python -m reproduction.linear_study root=TAR folder=RUNS [KEY=VALUE ...]

Scores the networks of results/linear.md, and every other ARM-seed=N in the folder that has an export.
"""
PX = 16
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
SHARES = (1.0, 0.1, 0.01)
CLASSIC_ARMS = ("random", "simclr", "simclr_adapted", "labels-1")  # of which the classic probe is made too


class LinearStudyOptions(LinearRunsOptions):
    """What is scored, and where the scores go."""

    epochs: Count = Field(default=20, description="of the classic probe")
    results: Text | None = Field(default=None, description="folder for the table; null: none is written")


def run(arguments: Sequence[str]) -> None:
    """Score what has no line yet, and write the table if a folder for it is given."""
    if not arguments or {"-h", "--help"} & set(arguments):
        print(describe_options(USAGE, LinearStudyOptions), end="")
        return
    options = read_options(LinearStudyOptions, arguments)
    folder = Path(options.folder).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    scores = folder / "scores.jsonl"
    lines = scores.read_text(encoding="utf-8").splitlines() if scores.exists() else []
    done = {(row["arm"], row["seed"], row["measure"]) for row in map(json.loads, lines)}
    train, test = load_image_splits("cifar10", root=options.root, image_px=PX, train_images=options.images)
    splits = {share: ImageSplits(train.labelled_part(share), test) for share in SHARES}
    for seed in options.seeds:
        for arm in ["random", *find_arms(folder, seed)]:
            for row in _score(arm, run_folder(folder, arm, seed), seed, splits, options.epochs, done):
                line = json.dumps({"arm": arm, "seed": seed, **row})
                with scores.open("a", encoding="utf-8") as file:
                    file.write(line + "\n")
                print(line, flush=True)
    if options.results is not None:
        write_results(scores, Path(options.results).expanduser() / "linear_table.md")


def find_arms(folder: Path, seed: int) -> list[str]:
    """The arms of which the folder has a finished run with that seed, ARM-seed=N, by name."""
    return sorted(path.parent.name.rpartition("-seed=")[0] for path in folder.glob(f"*-seed={seed}/export"))


def create_random(seed: int) -> nn.Module:
    """The network with weights of that seed."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network: nn.Module = timm.create_model("resnet20_nat", channels=8, num_classes=0)
    return network.eval()


def _score(
    arm: str, folder: Path, seed: int, splits: dict[float, ImageSplits], epochs: int, done: set[tuple[str, int, str]]
) -> Iterator[dict[str, Any]]:
    """The scores of a network that are not done."""
    network = create_random(seed) if arm == "random" else load_network(find_network(str(folder)), pretrained=True)
    result = folder / "result.json"
    if (arm, seed, "own classifier") not in done and result.exists():
        found = json.loads(result.read_text(encoding="utf-8"))
        if "accuracy_top1" in found:
            top1 = found["accuracy_top1"]["result"]
            yield _row("own classifier", top1, found.get("labels"), wilson_interval(top1, len(splits[1.0].test or ())))
    settings: dict[str, Any] = {
        "mean": MEAN,
        "std": STD,
        "batch_size": 500,
        "device": torch.device("cpu"),
        "workers": 0,
    }
    if (arm, seed, "knn") not in done:
        train, test = splits[1.0]
        assert train.labels is not None
        assert test is not None
        assert test.labels is not None
        bank, queries = (extract_features(network, images, **settings) for images in (train, test))
        knn = evaluate_knn(bank, train.labels, queries, test.labels, KnnProtocol.preset("simclr_cifar"))
        yield _row("knn", knn.top1, None, wilson_interval(knn.top1, knn.query_count))
    probes: list[tuple[float, LinearProtocol]] = [(share, FeaturesProtocol()) for share in SHARES]
    if arm in CLASSIC_ARMS:
        probes += [(1.0, SgdProtocol(epochs=epochs)), (1.0, create_sgd_plain(epochs=epochs))]
    for share, protocol in probes:
        measure = f"{protocol.name}-{share:g}"
        if (arm, seed, measure) not in done:
            train, test = splits[share]
            assert test is not None
            assert train.label_split is not None
            probed = evaluate_linear(network, train, test, protocol, **settings)
            chosen = {"chosen": probed.chosen, "seconds": round(probed.seconds, 2)}
            yield {**_row(measure, probed.top1, train.label_split.to_dict(), probed.interval), **chosen}


def _row(measure: str, top1: float, labels: dict[str, Any] | None, interval: tuple[float, float]) -> dict[str, Any]:
    return {"measure": measure, "top1": top1, "low": interval[0], "high": interval[1], "labels": labels}


if __name__ == "__main__":
    run_command(partial(run, sys.argv[1:]))
