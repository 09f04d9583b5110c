"""What `ssl-adapt export` writes: a folder for timm with its model card, an ONNX file, a `.pt2` file; and the push."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import nn

from ssl_adapt.adaptation.edge import Adaptable
from ssl_adapt.errors import UserError
from ssl_adapt.evaluation.frozen_network import LOCAL, find_network, find_run_recipe, load_network
from ssl_adapt.export import export_timm
from ssl_adapt.export.check import CONFIG
from ssl_adapt.export.graph import Output, export_graph
from ssl_adapt.export.hub import push_folder
from ssl_adapt.export.plain_timm import plain_timm
from ssl_adapt.export.timm import CARD, DRAWING
from ssl_adapt.json_text import read_json, read_text
from ssl_adapt.report.edge_table import describe_network
from ssl_adapt.report.inspection import draw_network
from ssl_adapt.runs.atomic_file import write_text
from ssl_adapt.training.model_card import CardFacts, read_facts, write_card

OUTPUTS: dict[str | None, Sequence[Output] | None] = {
    None: None, "features": ("features",), "logits": ("logits",), "both": ("features", "logits"),
}  # fmt: skip


def hand_on(given: Mapping[str, Any]) -> list[str]:
    """Write, and push, what the keys of `ssl-adapt export` say; returns a line for each thing done.

    Raises:
        ValueError: there is no such network, it can't be written in that form, or the hub refuses it.
    """
    name = find_network(given["model"])
    network = load_network(name, pretrained=True, classifier=True)
    if given["format"] != "timm":
        return [_write_graph(network, given)]
    arguments = _noted_arguments(name)
    facts = _find_facts(given["model"])
    if "out" in given:
        return _write_folder(network, arguments, facts, given, Path(os.path.expanduser(given["out"])))
    with TemporaryDirectory() as folder:
        return _write_folder(network, arguments, facts, given, Path(folder) / "export")


def _write_graph(network: nn.Module, given: Mapping[str, Any]) -> str:
    path = Path(os.path.expanduser(given["out"]))
    outputs = OUTPUTS[given.get("outputs")]
    check = export_graph(network, path, outputs=outputs, normalize=given["normalize"], tolerance=given["tolerance"])
    return (
        f"{path}: the largest difference from the network is {check.largest:.2g}, {check.relative:.2g} of the largest "
        "output"
    )


def _write_folder(
    network: nn.Module, arguments: Mapping[str, Any], facts: CardFacts, given: Mapping[str, Any], folder: Path
) -> list[str]:
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UserError(f"out={folder} is there already: name a folder that is new")
    plain, reason = network, "plain=false keeps its edges"
    if given.get("plain") is not False or not isinstance(network, Adaptable):
        try:
            plain, arguments = plain_timm(network, arguments)
            reason = ""
        except UserError as error:
            reason = str(error)
            if given.get("plain"):
                raise UserError(f"plain=true: timm alone can't build it, as {reason}; leave plain out") from None
    export_timm(plain, folder, extra_args=arguments)
    drawing = _draw(network, folder)
    repository = given.get("push")
    card = write_card(plain, facts, drawing=drawing, repository=repository, before=network)
    write_text(folder / CARD, card)
    needs = f"with 'import ssl_adapt', as {reason}" if reason else "without ssl_adapt"
    lines = [f"timm loads it {needs}"]
    if repository is None:
        return [f"{folder}: timm.create_model('local-dir:{folder}', pretrained=True)", *lines]
    return lines + push_folder(folder, repository, private=given["private"])


def _draw(network: nn.Module, folder: Path) -> str | None:
    """The name of the drawing of the cells, or None where there are no edges."""
    config: Any = network.pretrained_cfg
    channels, height, width = config["input_size"]
    if not (isinstance(network, Adaptable) and channels == 3 and height == width):
        return None
    draw_network(describe_network(network, height), folder / DRAWING)
    return DRAWING


def _noted_arguments(name: str) -> dict[str, Any]:
    """Those in the config.json of a folder: a plain network of timm does not know its own."""
    if not name.startswith(LOCAL):
        return {}
    path = Path(os.path.expanduser(name.removeprefix(LOCAL))) / CONFIG
    return dict(read_json(read_text(path, CONFIG), CONFIG).get("model_args") or {})


def _find_facts(model: str) -> CardFacts:
    """Those of the run, where `model` is its folder or its export; else a name alone."""
    folder = Path(os.path.expanduser(model.removeprefix(LOCAL)))
    for run in (folder, folder.parent) if folder.name == "export" else (folder,):
        if find_run_recipe(str(run)) is not None:
            return read_facts(run)
    return CardFacts(folder.resolve().name if folder.is_dir() else model)
