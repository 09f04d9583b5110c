"""What `scripts/inspect_network.py` and `scripts/report.py` are told; no torch is needed to read it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ssl_adapt.arguments import NEW_FILE, TEXT, Key, Kind, read_arguments, whole_number
from ssl_adapt.errors import UserError
from ssl_adapt.json_text import read_json

SUFFIXES = (".svg", ".png", ".pdf")  # of drawings
INSPECT_USAGE = """\
usage: python scripts/inspect_network.py model=NAME_OR_FOLDER [KEY=VALUE ...]

Shows the edges of a network: of a name that timm knows, of a run's or an export's folder, or of an architecture.json:
  model=resnet20    model=darts args='{"cells": 20}' drawing=cells.svg    model=runs/quickstart json=edges.json
"""
REPORT_USAGE = """\
usage: python scripts/report.py before=NETWORK after=NETWORK drawing=FILE
       python scripts/report.py theta=RUN plot=FILE

Draws the cells of two networks side by side, with what differs in red, and how theta moved in a run. A network is a
name that timm knows, the folder of a run or an export, or an architecture.json:
  before=resnet20_nat after=runs/adapted drawing=figures/        theta=runs/adapted plot=theta.svg
"""


def _read_arguments(text: str) -> dict[str, Any]:
    values = read_json(text, "args")
    if not isinstance(values, dict):
        raise ValueError
    return values


def _drawing_path(text: str) -> Path:
    path = Path(text)
    if not text or not (path.is_dir() or (path.suffix in SUFFIXES and path.parent.is_dir())):
        raise ValueError
    return path


DRAWING = Kind(f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]} file in a folder that exists, or a folder", _drawing_path)
INSPECT_KEYS = {
    "model": Key(TEXT, "name of a timm model, folder of a run or an export, or architecture.json", None),
    "args": Key(Kind("JSON object", _read_arguments), "further arguments of timm.create_model", "{}"),
    "edges": Key(TEXT, "glob over the modules of a timm model without edges of its own", "the usual ones"),
    "image_px": Key(whole_number(1), "side of the images in pixels", "the network's own"),
    "drawing": Key(DRAWING, "draw the cells: into this file, or cells.svg and cells.png in this folder", "no drawing"),
    "json": Key(NEW_FILE, "write everything to this file", "not written"),
}
REPORT_KEYS = {
    "before": Key(TEXT, "the network before", "none"),
    "after": Key(TEXT, "the network after", "none"),
    "drawing": Key(DRAWING, "of both: this file, or cells.svg and cells.png in this folder", "none"),
    "theta": Key(TEXT, "folder of a run", "none"),
    "plot": Key(DRAWING, "of its theta over time: this file, or theta.svg and theta.png in this folder", "none"),
}


def read_report_arguments(arguments: Sequence[str]) -> dict[str, Any]:
    """The values of `REPORT_KEYS` that were given.

    Raises:
        ValueError: an argument is wrong, or keys that belong together were not given together.
    """
    given = read_arguments(arguments, REPORT_KEYS)
    for together in (("before", "after", "drawing"), ("theta", "plot")):
        if missing := [key for key in together if key not in given and any(other in given for other in together)]:
            raise UserError(f"{missing[0]} is missing: add {missing[0]}=VALUE, {REPORT_KEYS[missing[0]].meaning}")
    return given
