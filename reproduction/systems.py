"""The networks, methods and settings of each table at both scales, as arguments of the commands."""

from dataclasses import dataclass
from typing import Literal

Scale = Literal["full", "cpu"]
How = Literal["run", "nat", "from scratch", "random changes", "skips", "skips at the fix"]


@dataclass(frozen=True)
class Network:
    """A network of a table.

    Attributes:
        key: names its runs.
        label: as the tables have it, with the size.
        paper: the paper's name for it, or "" where the paper has no such row.
        arguments: of `ssl-adapt pretrain`.
        methods: keys of METHODS.
        rules: key of RULES; "": the scale's.
    """

    key: str
    label: str
    paper: str
    arguments: tuple[str, ...]
    methods: tuple[str, ...]
    rules: str = ""


@dataclass(frozen=True)
class Method:
    """A row of a network.

    Attributes:
        key: names its runs.
        label: as the tables have it.
        paper: the paper's name for it, or "".
        rule: key of RULES: how theta is trained and read; "" without adaptation.
        sharing: of theta.
        how: "run": an ordinary run; "nat": NAT's search, then its cells from scratch; the controls: the architecture
            of the same seed's run of `source` from scratch, as many changes of the same kinds at random edges at the
            same moment, and every none edge as a skip from the start or from the fix on.
        source: the method whose architecture it starts from.
        against: the method that it is compared with beside the Original; "": its source, if it has one.
    """

    key: str
    label: str
    paper: str = ""
    rule: str = ""
    sharing: str = "full"
    how: How = "run"
    source: str = ""
    against: str = ""


METHODS = {
    method.key: method
    for method in (
        Method("original", "Original", "Original"),
        Method("nat", "NAT", "NAT", how="nat"),
        Method("cell", "Cell, as the paper has it", "Cell", "literal", "cell"),
        Method("full", "Full, as the paper has it", "Full", "literal"),
        Method("cell_early", "Cell early", "", "early", "cell"),
        Method("full_early", "Full early", "", "early"),
        Method("full_present", "Full skips first", "", "present", against="skips"),
        Method("full_grown", "Full skips first, strict", "", "grown", against="skips"),
        Method("measured", "Skips first, those that hurt taken away", "", "measured", against="skips"),
        Method("scratch", "control: what Full early found, from scratch", how="from scratch", source="full_early"),
        Method("random", "control: random, as many as Full early", "", "early",
               how="random changes", source="full_early"),
        Method("random_present", "control: random, as many as Full skips first", "", "present",
               how="random changes", source="full_present"),
        Method("random_grown", "control: random, as many as Full skips first, strict", "", "grown",
               how="random changes", source="full_grown"),
        Method("skips", "control: all none edges skips from the start", how="skips"),
        Method("switched", "control: all none edges skips at the fix", "", "early",
               how="skips at the fix", against="skips"),
    )
}  # fmt: skip


def _rules(literal: tuple[str, str], stage_epochs: str) -> dict[str, tuple[str, ...]]:
    """How theta is trained and read; the paper's own rule with its stage and learning rate, and ours."""
    fix = ("adapt.mode=hard", "adapt.anneal_epochs=0")
    threshold = ("adapt.none_rule=threshold", f"adapt.epochs={stage_epochs}", *fix)
    present = (*threshold, "adapt.none_start=1.0", "adapt.theta_lr=1e-2")
    return {
        "literal": ("adapt.none_rule=literal", *fix, *literal),
        "early": (*threshold, "adapt.none_threshold=0.0", "adapt.theta_lr=3e-2"),
        "present": (*present, "adapt.none_threshold=0.9"),
        "grown": (*present, "adapt.none_threshold=1.0"),
        "measured": (
            "adapt.score=removal",
            "adapt.none_start=1",
            "adapt.score_batches=4",
            f"adapt.epochs={stage_epochs}",
            *fix,
        ),
    }


# The paper does not say how long the stage is or how theta moves; at full scale the literal values are the recipes'.
# Our stages have 26 steps of theta everywhere; SimCLR's epochs have fewer, as its batches are larger.
RULES: dict[str, dict[str, tuple[str, ...]]] = {
    "full": _rules(("adapt.epochs=50", "adapt.theta_lr=3e-4"), "0.05"),
    "cpu": _rules(("adapt.epochs=2", "adapt.theta_lr=3e-2"), "0.25"),
    "cpu, SimCLR": _rules(("adapt.epochs=2", "adapt.theta_lr=3e-2"), "0.67"),
}

_CELL_FORM = tuple(METHODS)
_HAND_MADE = ("original", "cell", "full")
_CIFAR = (
    "data.image_px=16", "data.train_images=10000", "views.pad_px=2", "train.lr=0.1", "run.accuracy_every_epochs=0",
)  # fmt: skip
_CIFAR_CPU = (*_CIFAR, "train.epochs=8")
_TINY_CPU = (
    "data.name=tiny_imagenet", "data.image_px=32", "data.train_images=10000", "data.mean=[0.4802, 0.4481, 0.3975]",
    "data.std=[0.2770, 0.2691, 0.2821]", "train.epochs=24", "train.lr=0.1", "run.accuracy_every_epochs=0",
)  # fmt: skip
_TINY_FULL = (
    "data.name=tiny_imagenet", "data.image_px=64", "data.mean=[0.4802, 0.4481, 0.3975]",
    "data.std=[0.2770, 0.2691, 0.2821]",
)  # fmt: skip
_SSL_CPU = ("data.train_images=10000", "train.epochs=6", "knn.every_epochs=0", "train.max_steps=null")


def _resnet20(*arguments: str) -> tuple[str, ...]:
    return ("recipe=supervised_resnet20", *arguments)


NETWORKS: dict[tuple[int, Scale], tuple[Network, ...]] = {
    (1, "cpu"): (
        Network("resnet20_nat", "ResNet20, NAT form, C 8, 9 cells", "ResNet20",
                _resnet20("model.name=resnet20_nat", "model.args.channels=8", *_CIFAR_CPU),
                tuple(method for method in _CELL_FORM if method != "cell_early")),
        Network("resnet20_nat_long", "ResNet20, NAT form, 24 epochs", "ResNet20",
                _resnet20("model.name=resnet20_nat", "model.args.channels=8", *_CIFAR, "train.epochs=24"),
                ("original", "cell", "full", "full_present", "measured", "skips")),
        Network("resnet20", "ResNet20, He form, width 8", "ResNet20",
                _resnet20("model.args.width=8", *_CIFAR_CPU), _HAND_MADE),
        Network("mobilenetv2_nat", "MobileNetV2, NAT form, C 8, 9 cells", "MobileNetV2",
                ("recipe=supervised_mobilenetv2", "model.name=mobilenetv2_nat", "model.args.channels=8", *_CIFAR_CPU),
                ("original", "nat", "cell", "full", "full_present", "measured", "skips")),
        Network("darts", "DARTS, C 8, 6 cells", "DARTS",
                ("recipe=supervised_darts", "model.args.channels=8", "model.args.cells=6",
                 "views.cutout_px=8", *_CIFAR_CPU), ("original", "nat", "cell", "full")),
        Network("proxyless", "ProxylessNAS, width 0.25", "ProxylessNAS",
                ("recipe=supervised_proxyless", "model.args.width=0.25", "views.cutout_px=8", *_CIFAR_CPU),
                ("original", "full")),
    ),
    (1, "full"): (
        Network("resnet20", "ResNet20, He form", "ResNet20", _resnet20(), _HAND_MADE),
        Network("resnet20_nat", "ResNet20, NAT form, C 16, 9 cells", "ResNet20",
                _resnet20("model.name=resnet20_nat"), _CELL_FORM),
        Network("mobilenetv2", "MobileNetV2 for CIFAR", "MobileNetV2", ("recipe=supervised_mobilenetv2",), _HAND_MADE),
        Network("mobilenetv2_nat", "MobileNetV2, NAT form, C 16, 9 cells", "MobileNetV2",
                ("recipe=supervised_mobilenetv2", "model.name=mobilenetv2_nat"), _CELL_FORM),
        Network("darts", "DARTS, C 36, 9 cells", "DARTS", ("recipe=supervised_darts",),
                ("original", "nat", "cell", "full")),
        Network("proxyless", "ProxylessNAS mobile", "ProxylessNAS", ("recipe=supervised_proxyless",),
                ("original", "full")),
    ),
    (3, "cpu"): (
        Network("resnet20", "ResNet20, He form, width 8", "ResNet20",
                _resnet20("model.args.width=8", *_TINY_CPU), _HAND_MADE),
    ),
    (3, "full"): (
        Network("resnet20", "ResNet20, He form", "ResNet20", _resnet20(*_TINY_FULL), _HAND_MADE),
        Network("mobilenetv2", "MobileNetV2 for CIFAR", "MobileNetV2",
                ("recipe=supervised_mobilenetv2", *_TINY_FULL, "train.epochs=300"), _HAND_MADE),
        Network("darts", "DARTS, C 36, 9 cells", "DARTS",
                ("recipe=supervised_darts", *_TINY_FULL, "train.epochs=300"), _HAND_MADE),
    ),
    (4, "cpu"): (
        Network("resnet20_bottleneck", "ResNet of 20 layers, bottlenecks, width 8", "ResNet50",
                ("recipe=quickstart_cifar10", "model.args.width=8", *_SSL_CPU),
                ("original", "full", "full_present"), "cpu, SimCLR"),
        Network("resnet20_nat", "ResNet20, NAT form, C 8, 9 cells", "",
                ("recipe=quickstart_cifar10", "model.name=resnet20_nat", "model.args.channels=8", *_SSL_CPU),
                ("original", "full", "full_present", "measured", "skips"), "cpu, SimCLR"),
        Network("darts", "DARTS, C 6, 6 cells", "DARTS",
                ("recipe=quickstart_cifar10", "model.name=darts", "model.args.channels=6", "model.args.cells=6",
                 *_SSL_CPU),
                ("original", "full"), "cpu, SimCLR"),
    ),
    (4, "full"): (
        Network("resnet50", "ResNet50, CIFAR stem", "ResNet50", ("recipe=simclr_resnet50",), ("original", "full")),
        Network("darts24", "DARTS, C 90, 24 cells", "DARTS", ("recipe=simclr_darts24",), ("original", "full")),
    ),
}  # fmt: skip

# NAT's search: the published one at full scale; the other has its width, depth and length cut.
NAT_ARGUMENTS: dict[Scale, tuple[str, ...]] = {
    "full": (),
    "cpu": ("channels=8", "cells=6", "epochs=8"),
}
SEEDS: dict[Scale, tuple[int, ...]] = {"full": (1, 2, 3, 4, 5), "cpu": (1, 2, 3, 4, 5)}
