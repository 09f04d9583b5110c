"""The network that `ssl-adapt inspect` shows."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from ssl_adapt.adaptation.architecture import Architecture
from ssl_adapt.adaptation.edge import Adaptable
from ssl_adapt.backbones.adaptable import adaptable
from ssl_adapt.errors import UserError
from ssl_adapt.evaluation.frozen_network import LOCAL, find_network, input_size_px, load_network
from ssl_adapt.export.check import build_on_meta, check_arguments
from ssl_adapt.json_text import read_text
from ssl_adapt.report.distinct_cells import drawn_one_by_one
from ssl_adapt.report.drawings import draw_architecture
from ssl_adapt.report.edge_table import NetworkTable


def load_for_inspection(given: Mapping[str, Any]) -> tuple[nn.Module, int]:
    """The network, with edges, and the side of its images.

    Raises:
        ValueError: there is no such network, or it has no edges; the message says what to type.
    """
    path = _find_architecture(given["model"])
    if path is not None:
        _refuse_arguments(given)
        model = _load_architecture(path)
    else:
        model = _load_by_name(find_network(given["model"]), given)
    if not isinstance(model, Adaptable):
        model = adaptable(model, given.get("edges"), model_args=given.get("args"))
    elif "edges" in given:
        raise UserError(f"edges={given['edges']}: {given['model']} declares its own edges; leave it out")
    return model, input_size_px(model, given.get("image_px"))


def draw_network(network: NetworkTable, path: Path) -> None:
    """Draw the distinct cells into the file, or as `cells.svg` and `cells.png` into the folder."""
    specs = drawn_one_by_one(network.architecture.model, network.specs)
    for file in (path / "cells.svg", path / "cells.png") if path.is_dir() else (path,):
        draw_architecture(specs, network.architecture, file, title=network.model)


def _find_architecture(model: str) -> Path | None:
    """A file of an architecture, or that of a run which has fixed its architecture but is not exported yet."""
    path = Path(os.path.expanduser(model))  # os.path gives no error for a name that cannot be
    if os.path.isfile(path):
        return path
    file = path / "architecture.json"
    return file if os.path.isfile(file) and not os.path.isfile(path / "export" / "config.json") else None


def _load_architecture(path: Path) -> nn.Module:
    try:
        architecture = Architecture.from_json(read_text(path, "an architecture's file"))
        check_arguments(architecture.model, architecture.model_args)
        arguments = {**architecture.model_args, "architecture": architecture}
        build_on_meta(architecture.model, arguments)
        return _create(architecture.model, arguments)
    except (ValueError, RuntimeError) as error:  # torch raises RuntimeError where memory is short
        raise UserError(f"{path}: {error}; type the architecture.json of a run, or a folder") from None


def _load_by_name(name: str, given: Mapping[str, Any]) -> nn.Module:
    if name.startswith(LOCAL):
        _refuse_arguments(given)
        return load_network(name, pretrained=True)
    try:
        return _create(name, given.get("args", {}))
    except (RuntimeError, TypeError) as error:
        raise UserError(f"model={name} with args={given.get('args')}: {error}") from None


def _create(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    """The network with random weights; torch's global random state is not touched."""
    with torch.random.fork_rng(devices=[]):
        model: nn.Module = timm.create_model(name, **arguments)
    return model


def _refuse_arguments(given: Mapping[str, Any]) -> None:
    if "args" in given:
        raise UserError("args is for names of timm; a folder or file knows its own arguments: leave it out")
