"""Train a network, then shrink it while it trains on: python examples/shrink_a_trained_network.py

It need not come from here: `model.weights` also takes files of weights, and `model.pretrained=true` those of timm.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import torch

import ssl_adapt

SETTING = {
    "data.image_px": 8,
    "model.args": {"width": 8, "layers": [2, 2, 2]},
    "train.epochs": 3,
    "knn.every_epochs": 0,
}


def run(folder: Path, **options: Any) -> tuple[Path, dict[str, Any]]:
    """The export and the result of SimCLR on the handwritten digits."""
    values = {name.replace("__", "."): value for name, value in options.items()}
    values |= {"knn.every_epochs": 0, "run.dir": str(folder)}
    export = ssl_adapt.pretrain(ssl_adapt.load_recipe("debug", {**SETTING, **values}))
    assert export is not None
    return export, json.loads((folder / "result.json").read_text())


def main() -> None:
    """Two epochs of the whole network, then two in which branches go until 60 % of the multiply-adds are left."""
    with tempfile.TemporaryDirectory() as folder:
        trained, before = run(Path(folder) / "trained", adapt=None)
        shrunk, after = run(
            Path(folder) / "shrunk",
            model__weights=str(trained),
            adapt__score="removal",
            adapt__granularity="branch",
            adapt__budget_macs=0.6,
            adapt__score_batches=2,
        )
        for name, result in ("before", before), ("after", after):
            print(f"{name}: kNN {result['knn_top1']['result']:.1%}, {result['macs']:,} multiply-adds")
        network = ssl_adapt.load_export(shrunk)
        parameters = sum(parameter.numel() for parameter in network.parameters())
        print(f"{', '.join(after['changed'])} removed: {parameters:,} parameters are left, loaded by timm")
        assert network(torch.rand(1, 3, 8, 8)).shape == (1, 32)


if __name__ == "__main__":
    main()
