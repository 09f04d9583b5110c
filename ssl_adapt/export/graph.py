"""A network as one file that needs neither this package nor timm: ONNX, or `.pt2` of torch.export."""

import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple, get_args

import torch
from timm.data.config import resolve_model_data_config
from torch import Tensor, nn

from ssl_adapt.adaptation.architecture import Architecture, model_name
from ssl_adapt.adaptation.edge import Adaptable
from ssl_adapt.backbones.cell_network import CellNetwork
from ssl_adapt.errors import UserError
from ssl_adapt.export import onnx, torch_export
from ssl_adapt.json_text import one_line

Output = Literal["features", "logits"]
WRITERS = {".onnx": onnx, ".pt2": torch_export}
TOLERANCE = 1e-4  # of the largest output
BATCHES = (1, 2, 5)  # with which the file is tried; it was traced with 2
Run = Callable[[Tensor], Sequence[Tensor]]


class GraphCheck(NamedTuple):
    """How a file's outputs differ from the network's, over images of all batches that were tried.

    Attributes:
        largest: the largest absolute difference.
        relative: the largest one, of any output, divided by the largest absolute value of that output.
    """

    largest: float
    relative: float


def export_graph(
    model: nn.Module,
    path: str | Path,
    *,
    outputs: Sequence[Output] | None = None,
    normalize: bool = False,
    tolerance: float = TOLERANCE,
) -> GraphCheck:
    """Write a network, in eval mode and float32, as a graph for any number of images; the difference from the network.

    The input `images` is (B, C, H, W) float32, of the network's size; outputs are named. The normalisation and all else
    that a user must know are in the file's metadata. The file is loaded by onnxruntime, or torch.export, and tried.

    Args:
        model: a network that timm built, plain or fixed; it is not changed.
        path: ends in .onnx or .pt2; a file there is replaced.
        outputs: "features" (B, D), "logits" (B, classes), or both, in this order; None: logits where there is a
            classifier, else features.
        normalize: take images from 0 to 1, and normalise them in the graph; else they come normalised.
        tolerance: the largest relative difference with which the file is kept.

    Raises:
        ValueError: for another ending, logits of a network without classifier, a network that is still mixed or can't
            be traced, if what writes the file is not installed, or if the file differs too much; it is not kept then.
    """
    path = Path(path).expanduser()
    writer = WRITERS.get(path.suffix)
    if writer is None:
        raise UserError(f"{path} ends in neither .onnx nor .pt2, the files of ONNX and torch.export")
    writer.check_installed()
    names = _check_outputs(model, outputs)
    if isinstance(model, Adaptable):
        Architecture.of(model)  # refuses one that is still mixed
    network: Any = deepcopy(model).to("cpu", torch.float32).eval()
    if isinstance(network, CellNetwork):
        network.remove_auxiliary()
    graph = _Graph(network, names, normalize).eval()
    program = _trace(graph, model_name(model))
    with TemporaryDirectory(prefix=".export-", dir=path.parent) as folder:
        written = Path(folder) / path.name
        writer.save(program, written, list(names), _metadata(model, graph))
        check = _compare(writer.load(written), graph)
        if not check.relative <= tolerance:
            raise UserError(
                f"{path.name} would differ from the network by up to {check.largest:.2g}, {check.relative:.2g} of its "
                f"largest output, more than tolerance={tolerance:g}: it was not kept"
            )
        for file in Path(folder).iterdir():  # above 2 GB the weights of ONNX lie beside it
            shutil.move(file, path.parent / file.name)
    return check


class _Graph(nn.Module):
    """What is written: normalisation, if wanted, and the outputs that are wanted."""

    mean: Tensor
    std: Tensor
    network: Any  # for timm's methods

    def __init__(self, network: nn.Module, outputs: Sequence[Output], normalize: bool) -> None:
        super().__init__()
        config = resolve_model_data_config(network)
        self.input_size: tuple[int, int, int] = config["input_size"]
        self.config, self.outputs, self.normalize = config, tuple(outputs), normalize
        if normalize and len(config["mean"]) != self.input_size[0]:
            raise UserError(
                f"images have {self.input_size[0]} channels here, and the network's mean {len(config['mean'])} values: "
                "leave normalize out"
            )
        for name in ("mean", "std"):
            values = torch.tensor(config[name], dtype=torch.float32).view(-1, 1, 1)
            self.register_buffer(name, values, persistent=normalize)
        self.network = network
        if self.outputs == ("features",):
            self.network.reset_classifier(0)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """One tensor for each of the outputs."""
        if self.normalize:
            images = (images - self.mean) / self.std
        if len(self.outputs) == 1:
            return (self.network(images),)
        maps = self.network.forward_features(images)
        return self.network.forward_head(maps, pre_logits=True), self.network.forward_head(maps)

    def networks(self) -> list[nn.Module]:
        """For each output the network that gives it by itself, from normalised images."""
        without = deepcopy(self.network)
        without.reset_classifier(0)
        return [without if name == "features" else self.network for name in self.outputs]


def _check_outputs(model: Any, outputs: Sequence[Output] | None) -> tuple[Output, ...]:
    has_classifier = bool(getattr(model, "num_classes", 0))
    names = tuple(outputs or (("logits",) if has_classifier else ("features",)))
    if names not in (("features",), ("logits",), ("features", "logits")):
        raise UserError(f"outputs={list(names)}: give {' or '.join(get_args(Output))}, or both in this order")
    if "logits" in names and not has_classifier:
        raise UserError("this network has no classifier, so it gives no logits: ask for features")
    return names


def _trace(graph: _Graph, name: str) -> torch.export.ExportedProgram:
    images = torch.zeros(2, *graph.input_size)
    try:
        with warnings.catch_warnings(action="ignore"):  # of torch's own code
            program = torch.export.export(graph, (images,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    except Exception as error:  # torch.export's errors have no common class
        raise UserError(f"torch.export can't trace {name} for any number of images: {one_line(error)[:300]}") from error
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # lines of code and paths of this machine
    return program


@torch.no_grad()
def _compare(run: Run, graph: _Graph) -> GraphCheck:
    networks = graph.networks()
    differences, shares = [], []
    for batch in BATCHES:
        draw, generator = torch.rand if graph.normalize else torch.randn, torch.Generator().manual_seed(batch)
        images = draw(batch, *graph.input_size, generator=generator)
        normalised = (images - graph.mean) / graph.std if graph.normalize else images
        for found, network in zip(run(images), networks, strict=True):
            expected = network(normalised)
            assert found.shape == expected.shape
            differences.append((found - expected).abs().max())
            shares.append(differences[-1] / expected.abs().max().clamp(min=1e-30))
    return GraphCheck(torch.stack(differences).max().item(), torch.stack(shares).max().item())  # NaN if any is


def _metadata(model: nn.Module, graph: _Graph) -> dict[str, Any]:
    """What a user of the file must know, as JSON values by name."""
    values: Mapping[str, Any] = graph.config
    return {
        "network": model_name(model),
        "architecture": Architecture.of(model).to_dict() if isinstance(model, Adaptable) else None,
        "input_size": list(graph.input_size),
        "input": "images from 0 to 1, which the graph normalises" if graph.normalize
        else "images from 0 to 1, minus mean, divided by std",
        "mean": list(values["mean"]),
        "std": list(values["std"]),
        "interpolation": values["interpolation"],
        "crop_pct": values["crop_pct"],
        "outputs": list(graph.outputs),
    }  # fmt: skip
