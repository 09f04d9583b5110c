"""What `scripts/inspect_network.py` is told, and the network that it shows."""

import json
from collections.abc import Mapping
from typing import Any

import timm
import torch
from torch import nn

from ssl_adapt.adaptation.edge import Adaptable
from ssl_adapt.arguments import NEW_FILE, TEXT, Key, Kind, whole_number
from ssl_adapt.backbones.adaptable import adaptable
from ssl_adapt.evaluation.network import LOCAL, find_network, input_size_px, load_network

INSPECT_USAGE = """\
usage: python scripts/inspect_network.py model=NAME_OR_FOLDER [KEY=VALUE ...]

Shows the edges of a network: of a name that timm knows, of a run's folder, or of an export's folder.
"""


def _read_arguments(text: str) -> dict[str, Any]:
    values = json.loads(text)  # a JSONDecodeError is a ValueError
    if not isinstance(values, dict):
        raise ValueError
    return values


INSPECT_KEYS = {
    "model": Key(TEXT, "name of a timm model, or the folder of a run or an export", None),
    "args": Key(Kind("JSON object", _read_arguments), "further arguments of timm.create_model", "{}"),
    "edges": Key(TEXT, "glob over the modules of a timm model without edges of its own", "the usual ones"),
    "image_px": Key(whole_number(1), "side of the images in pixels", "the network's own"),
    "drawing": Key(NEW_FILE, "draw the cells into this .svg, .png or .pdf file", "no drawing"),
    "json": Key(NEW_FILE, "write everything to this file", "not written"),
}


def load_for_inspection(given: Mapping[str, Any]) -> tuple[nn.Module, int]:
    """The network, with edges, and the side of its images.

    Raises:
        ValueError: there is no such network, or it has no edges; the message says what to type.
    """
    name = find_network(given["model"])
    if name.startswith(LOCAL):
        if "args" in given:
            raise ValueError("args is for names of timm; a folder knows its own arguments: leave it out")
        model = load_network(name, pretrained=True)
    else:
        try:
            with torch.random.fork_rng(devices=[]):
                model = timm.create_model(name, **given.get("args", {}))
        except (RuntimeError, TypeError) as error:
            raise ValueError(f"model={name} with args={given.get('args')}: {error}") from None
    if not isinstance(model, Adaptable):
        model = adaptable(model, given.get("edges"), model_args=given.get("args"))
    elif "edges" in given:
        raise ValueError(f"edges={given['edges']}: {given['model']} declares its own edges; leave it out")
    return model, input_size_px(model, given.get("image_px"))
