"""The multiply-adds and time that timm networks save when some of their blocks become the identity."""

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import timm
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from benchmarks.timing import Comparison, DisagreementError, Result, time_contenders
from ssl_adapt.adaptation.architecture import Architecture, apply_architecture, edge_specs
from ssl_adapt.adaptation.cost import count_macs
from ssl_adapt.backbones.adaptable import adaptable

BATCH_SIZE = 8
EVERY = 3  # of this many edges in a row, the first becomes the identity
ORIGINAL, SKIPPED = "original", "a third skipped"

# A small member of each family, with the arguments that timm takes beside its name.
FAMILIES: Mapping[str, Mapping[str, Any]] = {
    "resnet18": {},
    "convnext_atto": {},
    "vit_tiny_patch16_224": {},
    "mixer_s32_224": {},
    "resmlp_12_224": {},
    "efficientnet_b0": {},
    "mobilenetv3_small_050": {},
    "regnetx_002": {},
    "swin_tiny_patch4_window7_224": {},
    "poolformer_s12": {},
}


@dataclass(frozen=True)
class Family:
    """An adaptable network, plain and with a third of its edges skipped.

    Attributes:
        name: timm's name of the network.
        plain: the network as it is.
        skipped: its copy in which every third edge is the identity.
        images: one batch of the network's own size.
        edges: how many of its modules became edges.
        looked_at: how many modules the globs matched.
        skipped_edges: how many became the identity.
    """

    name: str
    plain: nn.Module
    skipped: nn.Module
    images: Tensor
    edges: int
    looked_at: int
    skipped_edges: int


@dataclass(frozen=True)
class FamilyRow:
    """The figures of one network; multiply-adds are for one image."""

    name: str
    edges: int
    looked_at: int
    skipped_edges: int
    macs: int
    macs_skipped: int
    result: Result

    @property
    def macs_ratio(self) -> float:
        """Multiply-adds with the skipped edges over those of the plain network."""
        return self.macs_skipped / self.macs


def create_family(
    name: str, arguments: Mapping[str, Any], *, device: torch.device, batch_size: int = BATCH_SIZE
) -> Family:
    """The network in eval mode and its thinned copy, on the device, and random images for both."""
    plain: Any = adaptable(timm.create_model(name, **arguments).eval())
    skipped = deepcopy(plain)
    able = [spec.name for spec in edge_specs(plain) if "identity" in spec.candidates][::EVERY]
    original = Architecture.of(plain)
    choices = {**original.edges, **dict.fromkeys(able, "identity")}
    apply_architecture(skipped, Architecture(original.model, original.model_args, choices))  # type: ignore[arg-type]
    images = torch.randn(batch_size, *plain.pretrained_cfg["input_size"])
    report = plain.edge_report
    return Family(
        name=name,
        plain=plain.to(device),
        skipped=skipped.to(device),
        images=images.to(device),
        edges=sum(row.taken for row in report),
        looked_at=len(report),
        skipped_edges=len(able),
    )


def compare_family(family: Family) -> Comparison:
    """The plain network against its thinned copy, forward in eval mode."""
    size_px, batch_size = family.images.shape[-1], len(family.images)
    macs, macs_skipped = (count_macs(network, family.images[:1]) for network in (family.plain, family.skipped))
    return Comparison(
        name=f"adaptable: {family.name}, {size_px} px, batch {batch_size}",
        shows=f"what is saved when {family.skipped_edges} of {family.edges} edges are the identity: "
        f"{macs_skipped / macs:.2f}x the multiply-adds",
        contenders={ORIGINAL: _forward(family.plain, family), SKIPPED: _forward(family.skipped, family)},
        unit="images",
        units_per_call=batch_size,
        notes=(
            f"edges: {family.edges} of {family.looked_at} modules; {macs / 1e6:,.1f} -> {macs_skipped / 1e6:,.1f} M",
        ),
        check=_check_shapes,
    )


def compare_families(
    device: torch.device, families: Mapping[str, Mapping[str, Any]] = FAMILIES
) -> Iterator[Comparison]:
    """The comparison of each family, one after the other, so that only one is in memory."""
    for name, arguments in families.items():
        yield compare_family(create_family(name, arguments, device=device))


def measure_families(
    families: Mapping[str, Mapping[str, Any]] = FAMILIES,
    *,
    repeats: int = 10,
    device: torch.device | None = None,
    batch_size: int = BATCH_SIZE,
    console: Console | None = None,
) -> list[FamilyRow]:
    """A row for each family; with a console, also printed as a table.

    Args:
        families: timm's name of a network -> its arguments.
        repeats: timed calls of each of the two networks, which take turns.
        device: where they compute; None is the CPU.
        batch_size: images in a batch.
        console: where the table goes.
    """
    device = device or torch.device("cpu")
    rows = []
    for name, arguments in families.items():
        family = create_family(name, arguments, device=device, batch_size=batch_size)
        result = time_contenders(compare_family(family), repeats=repeats, device=device)
        macs, macs_skipped = (count_macs(network, family.images[:1]) for network in (family.plain, family.skipped))
        counts = family.edges, family.looked_at, family.skipped_edges
        rows.append(FamilyRow(name, *counts, macs, macs_skipped, result))
    if console is not None:
        show_families(console, rows)
    return rows


def show_families(console: Console, rows: list[FamilyRow]) -> None:
    """Print a row for each network."""
    table = Table(header_style="dim", box=None, pad_edge=False)
    table.add_column("network")
    for column in ("edges", "of modules", "skipped", "M MACs", "then", "ratio", "median ms", "then", "ratio"):
        table.add_column(column, justify="right")
    for row in rows:
        before, after = (1e3 * row.result.timings[name].median_sec for name in (ORIGINAL, SKIPPED))
        macs = f"{row.macs / 1e6:,.1f}", f"{row.macs_skipped / 1e6:,.1f}", f"{row.macs_ratio:.2f}x"
        times = f"{before:,.2f}", f"{after:,.2f}", f"{row.result.ratio(SKIPPED):.2f}x"
        table.add_row(row.name, str(row.edges), str(row.looked_at), str(row.skipped_edges), *macs, *times)
    console.print(table)


def _forward(network: nn.Module, family: Family) -> Callable[[], Tensor]:
    @torch.no_grad()
    def forward() -> Tensor:
        output: Tensor = network(family.images)
        return output

    return forward


def _check_shapes(answers: Mapping[str, Tensor]) -> None:
    if answers[ORIGINAL].shape != answers[SKIPPED].shape:
        raise DisagreementError("the thinned network's output has another shape")
