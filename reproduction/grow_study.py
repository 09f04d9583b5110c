"""Networks that grow beside the whole network from the start: `python -m reproduction.grow_study --root TAR`.

A finished row is a line of FOLDER/rows.jsonl; a second call goes on where the first one ended.
"""

import argparse
import json
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ssl_adapt.recipe import load_recipe
from ssl_adapt.training.loop import pretrain

ARMS = ("whole", "gradmax", "random", "uniform", "whole_equal_time", "half_equal_time", "small_equal_time")
EQUAL_TIME = ARMS[4:]
LAYERS = {"half_equal_time": [2, 2, 2], "small_equal_time": [1, 1, 1]}  # blocks of a stage, elsewhere 4
Rows = dict[tuple[int, str], dict[str, Any]]  # by seed and arm


@dataclass(frozen=True)
class Row:
    """One finished run.

    Attributes:
        seconds: of its epochs and choices, evaluations aside.
        shares: multiply-adds over those at the end, after each round.
        opened: the branches that each round opened.
    """

    seed: int
    arm: str
    epochs: int
    accuracy: float
    seconds: float
    shares: list[float]
    opened: list[list[str]]
    commit: str


def run_arm(arm: str, seed: int, epochs: int, arguments: argparse.Namespace) -> Row:
    """Train one arm; `whole` and those of equal time are networks that stay as they are."""
    folder = Path(arguments.folder) / f"{arm}_{seed}_{epochs}"
    values: dict[str, Any] = {
        "seed": seed, "data.name": arguments.data, "data.root": arguments.root, "data.image_px": arguments.image_px,
        "data.train_images": arguments.images, "data.batch_size": 96, "views.pad_px": 2, "train.lr": 0.1,
        "train.weight_decay": 5e-4, "train.epochs": epochs, "run.dir": str(folder), "model.name": "resnet20",
        "model.args": {"layers": LAYERS.get(arm, [4, 4, 4]), "width": 8}, "run.resume": "auto",
    }  # fmt: skip
    growing = {
        "score": arm, "start_share": arguments.start_share, "rounds": arguments.rounds, "granularity": "branch",
        "epochs": epochs / 2, "mode": "hard", "anneal_epochs": 0, "score_batches": arguments.score_batches,
    }  # fmt: skip
    if arm == "whole" or arm in EQUAL_TIME:
        values["adapt"] = None
    else:
        values |= {f"adapt.{key}": value for key, value in growing.items()}
    pretrain(load_recipe("supervised_resnet20", values))
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    events = [json.loads(line) for line in lines]
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    macs = [event["macs"] for event in events if event["event"] in ("round", "fix")]
    return Row(
        seed, arm, epochs, round(100 * result["accuracy_top1"]["result"], 2),
        round(sum(event["seconds"] for event in events if event["event"] in ("epoch", "choice")), 1),
        [round(count / macs[-1], 4) for count in macs],
        [[*event["choices"]] for event in events if event["event"] == "choice"], arguments.commit,
    )  # fmt: skip


def equal_time_epochs(arm: str, seed: int, rows: Rows, arguments: argparse.Namespace) -> int:
    """Epochs that fit into the seconds of `gradmax`; other networks than the whole one are timed in a run of two."""
    timed = rows[seed, "whole"] if arm == "whole_equal_time" else asdict(run_arm(arm, seed, 2, arguments))
    epochs: float = rows[seed, "gradmax"]["seconds"] * timed["epochs"] / timed["seconds"]
    return max(1, round(epochs))


def main(given: Sequence[str] | None = None) -> None:
    """Run all rows that are not in the folder yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", help="tar or folder of the images")
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--image-px", type=int, default=16)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--folder", default="runs/grow_study")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--score-batches", type=int, default=16)
    parser.add_argument("--start-share", type=float, default=0.3)
    arguments = parser.parse_args(given)
    head = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    arguments.commit = head.stdout.strip() or "unknown"
    path = Path(arguments.folder) / "rows.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    rows: Rows = {(row["seed"], row["arm"]): row for row in map(json.loads, lines)}
    for seed in arguments.seeds:
        for arm in arguments.arms:
            if (seed, arm) in rows:
                continue
            epochs = equal_time_epochs(arm, seed, rows, arguments) if arm in EQUAL_TIME else arguments.epochs
            rows[seed, arm] = asdict(run_arm(arm, seed, epochs, arguments))
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(rows[seed, arm]) + "\n")


if __name__ == "__main__":
    main()
