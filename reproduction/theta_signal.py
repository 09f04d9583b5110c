"""What theta's gradient says of each edge while a network trains, beside what its removal would do to the loss.

    python -m reproduction.theta_signal data=cifar10 root=cifar10.tar folder=runs/theta_signal

Writes measurements.jsonl and figure.svg into the folder. results/theta_signal.md has the plan and what came out.
"""

import json
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

import timm
import torch
import torch.nn.functional as F
from matplotlib import rc_context
from matplotlib.figure import Figure
from pydantic import Field
from scipy.stats import kendalltau
from torch import Tensor, nn
from torch.optim import SGD

from ssl_adapt import Adaptation
from ssl_adapt.adaptation.statistics import statistics_at_rest
from ssl_adapt.data import ImageSet, epoch_order, iterate_batches, load_image_splits
from ssl_adapt.evaluation.features import normalise
from ssl_adapt.recipe.read import read_options
from ssl_adapt.recipe.section import Section
from ssl_adapt.recipe.values import Count, Text
from ssl_adapt.training.schedules import lr_at_step
from ssl_adapt.views.padded_crop import PaddedCropSettings, padded_crop_view

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
AFFINE = ("trained", "frozen")  # BatchNorm's weight and bias
TRAIN_BATCH, HELD_OUT_BATCH = 96, 128
LOOKS = {"conv1": "#4f73a6", "conv2": "#c0392b"}


class SignalOptions(Section):
    """What is trained and how often it is measured."""

    data: Text = Field(description="name of the image set")
    folder: Text = Field(description="where the measurements and the figure go")
    root: Text | None = Field(default=None, description="folder or tar of the images")
    image_px: Count = Field(default=16, description="height and width")
    width: Count = Field(default=8, description="of the ResNet20")
    train_images: Count = Field(default=10_000, description="the first of the training images in a drawn order")
    batches: Count = Field(default=32, description="held-out batches: the training images after those")
    removals: Count = Field(default=8, description="how many of those batches tell what removal does to the loss")
    epochs: Count = Field(default=7, description="of the weights, theta at its start")
    seeds: Count = Field(default=3, description="1, 2, ... up to this")


def main(arguments: Sequence[str]) -> None:
    """Train and measure every seed with BatchNorm's affine trained and frozen, then draw what came out."""
    options = read_options(SignalOptions, arguments)
    folder = Path(options.folder)
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    with (folder / "measurements.jsonl").open("w", encoding="utf-8") as file:
        for seed, affine in product(range(1, options.seeds + 1), AFFINE):
            for row in train_and_measure(options, seed, affine):
                rows.append(row)
                file.write(json.dumps(row) + "\n")
    draw(rows, folder / "figure.svg")
    for affine, epoch in product(AFFINE, sorted({row["epoch"] for row in rows})):
        print(describe(affine, epoch, [row for row in rows if (row["affine"], row["epoch"]) == (affine, epoch)]))


def train_and_measure(options: SignalOptions, seed: int, affine: str) -> list[dict[str, Any]]:
    """A measurement of every edge at the start, after a quarter of an epoch, and after each epoch."""
    images = load_image_splits(options.data, root=options.root, image_px=options.image_px).train
    order = epoch_order(len(images), seed=0, epoch=0)
    train = images.subset(order[: options.train_images])
    held_out = images.subset(order[options.train_images :][: options.batches * HELD_OUT_BATCH])
    torch.manual_seed(seed)
    network = timm.create_model("resnet20", width=options.width, num_classes=len(images.classes))
    adaptation = Adaptation(network)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and affine == "frozen":
            module.requires_grad_(False)
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    optimizer = SGD(weights, 0.1, momentum=0.9, weight_decay=3e-4)
    view = padded_crop_view(PaddedCropSettings(options.image_px, options.image_px // 8, 0.5, 0, MEAN, STD))
    steps = len(train) // TRAIN_BATCH
    total = steps * options.epochs
    measured_at = {0, steps // 4, *(steps * epoch for epoch in range(1, options.epochs + 1))}
    step, rows = 0, []
    for epoch in range(options.epochs + 1):
        for images_uint8, labels, _ in batches(train, epoch_order(len(train), seed=seed, epoch=epoch), TRAIN_BATCH):
            if step in measured_at:
                facts = {"seed": seed, "affine": affine, "step": step, "epoch": step / steps}
                rows += [{**facts, **row} for row in measure(adaptation, held_out, options.removals)]
                print(facts, file=sys.stderr)
            if step == total:
                return rows
            lr = lr_at_step(step, lr=0.1, schedule="cosine", warmup_steps=0, total_steps=total)
            optimizer.param_groups[0]["lr"] = lr
            optimizer.zero_grad()
            F.cross_entropy(network(view(images_uint8 / 255)), labels).backward()
            optimizer.step()
            step += 1
    return rows


def measure(adaptation: Adaptation, held_out: ImageSet, removals: int) -> list[dict[str, Any]]:
    """For each convolution: theta's gradient and the loss's change by the identity; means and standard errors.

    The weights rest, and BatchNorm normalises with the batch.
    """
    names = [spec.name for spec in adaptation.edges if spec.kind == "operation"]
    gradients: list[Tensor] = []
    changes: list[Tensor] = []
    for images, labels, _ in batches(held_out, torch.arange(len(held_out)), HELD_OUT_BATCH):
        x = normalise(images, MEAN, STD)
        with adaptation.architecture_pass():
            loss = F.cross_entropy(adaptation.model(x), labels)
            found = torch.autograd.grad(loss, [adaptation.theta[name] for name in names])
        gradients.append(torch.stack(found))
        if len(changes) < removals:
            changes.append(torch.stack([_loss_without(adaptation, name, x, labels) - loss.detach() for name in names]))
    slopes, removal = torch.stack(gradients).double(), torch.stack(changes).double()
    columns = {"same": slopes[..., 2], "predicted": slopes[..., 1] - slopes[..., 2], "removal": removal}
    facts = {key: torch.stack([c.mean(0), c.std(0) / len(c) ** 0.5], 1).tolist() for key, c in columns.items()}
    return [{"edge": name, **{key: facts[key][index] for key in facts}} for index, name in enumerate(names)]


@torch.no_grad()
def _loss_without(adaptation: Adaptation, name: str, x: Tensor, labels: Tensor) -> Tensor:
    """The loss with the identity in the edge's place: what `fix` would make of it."""
    theta = adaptation.theta[name]
    kept = theta.clone()
    theta.copy_(torch.tensor([0.0, 1.0, 0.0]))
    with statistics_at_rest(adaptation.model):
        loss = F.cross_entropy(adaptation.model(x), labels)
    theta.copy_(kept)
    return loss


def batches(images: ImageSet, order: Tensor, size: int) -> Any:
    """Full batches of images and labels on the CPU."""
    return iterate_batches(images, order, batch_size=size, device="cpu", workers=0, drop_last=True)


def taus(rows: Sequence[dict[str, Any]], score: str) -> list[float]:
    """Kendall's tau, seed by seed, between theta's score of the edges and what their removal does to the loss.

    The score is the first-order change of the loss: by the whole exchange ("predicted"), or, with the sign turned,
    by theta_same alone ("same").
    """
    sign = -1 if score == "same" else 1
    seeds = sorted({row["seed"] for row in rows})
    pairs = [[(sign * row[score][0], row["removal"][0]) for row in rows if row["seed"] == seed] for seed in seeds]
    return [float(kendalltau(*zip(*pair, strict=True)).statistic) for pair in pairs]


def t_sizes(rows: Sequence[dict[str, Any]], place: str) -> list[float]:
    """|mean| over standard error of theta_same's gradient, for the edges at that place of their cells."""
    found = [row["same"] for row in rows if row["edge"].endswith(place)]
    return [abs(mean) / error if error else 0.0 for mean, error in found]


def describe(affine: str, epoch: float, rows: Sequence[dict[str, Any]]) -> str:
    """A row of Markdown: for either place the mean |gradient| and the edges beyond two errors, then both taus."""
    cells = [affine, f"{epoch:.2f}"]
    for place in LOOKS:
        sizes = [abs(row["same"][0]) for row in rows if row["edge"].endswith(place)]
        cells += [f"{fmean(sizes):.1e}", f"{fmean(t > 2 for t in t_sizes(rows, place)):.2f}"]
    cells.append(f"{fmean(abs(row['removal'][0]) for row in rows):.3f}")
    for score in ("predicted", "same"):
        cells.append(" ".join(f"{tau:+.2f}" for tau in taus(rows, score)))
    return "| " + " | ".join(cells) + " |"


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """|t| of theta_same's gradient, edges beyond two errors, and tau with the true change, over training."""
    figure = Figure(figsize=(11, 6), layout="constrained")
    grid: Any = figure.subplots(2, 3, sharex=True, sharey="col")
    for line, affine in zip(grid, AFFINE, strict=True):
        epochs = sorted({row["epoch"] for row in rows})
        at = [[row for row in rows if (row["affine"], row["epoch"]) == (affine, epoch)] for epoch in epochs]
        for place, colour in LOOKS.items():
            sizes = [sorted(t_sizes(found, place)) for found in at]
            line[0].plot(epochs, [s[len(s) // 2] for s in sizes], color=colour, label=place)
            line[0].fill_between(epochs, [s[0] for s in sizes], [s[-1] for s in sizes], color=colour, alpha=0.15)
            line[1].plot(epochs, [fmean(t > 2 for t in s) for s in sizes], color=colour, label=place)
        for score, label, style in (("predicted", "g_id - g_same", "-"), ("same", "-g_same", ":")):
            line[2].plot(epochs, [fmean(taus(found, score)) for found in at], "k" + style, label=label)
        line[0].set(ylabel=f"affine {affine}", yscale="symlog")
        line[0].axhline(2, color="black", linewidth=0.8, linestyle="--")
        line[2].axhline(0, color="black", linewidth=0.8, linestyle="--")
    titles = ("|t| of theta_same's gradient (median, range)", "share of edges beyond 2 errors", "tau with true removal")
    for axis, bottom, title in zip(grid[0], grid[1], titles, strict=True):
        axis.set_title(title, fontsize=10)
        axis.legend(frameon=False)
        bottom.set_xlabel("epoch")
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "theta"}):
        figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main(sys.argv[1:])
