"""A network handed on: `ssl-adapt export model=NETWORK out=PATH key=value ...`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from ssl_adapt.errors import UserError
from ssl_adapt.recipe.help import describe_options
from ssl_adapt.recipe.read import read_options
from ssl_adapt.recipe.section import Section
from ssl_adapt.recipe.values import Expected, Positive, Text

USAGE = """\
usage: ssl-adapt export model=MODEL out=PATH [KEY=VALUE ...]
       ssl-adapt export model=MODEL push=USER/NAME [KEY=VALUE ...]

Writes a network for others: a folder for timm with a model card, an ONNX file, or a .pt2 file of torch.export:
  model=runs/quickstart out=quickstart    out=quickstart.onnx normalize=true    out=quickstart.pt2    push=me/quickstart
"""
ENDINGS = {".onnx": "onnx", ".pt2": "torch_export"}
GRAPH_KEYS, FOLDER_KEYS = ("outputs", "normalize", "tolerance"), ("plain", "push", "private")
Repository = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$", max_length=96),
    Expected("USER/NAME of the Hugging Face hub"),
]


class ExportOptions(Section):
    """Which network is written, where, and in which form."""

    model: Text = Field(description="a run folder, an export folder, local-dir:FOLDER, hf-hub:NAME or a name of timm")
    out: Text | None = Field(
        default=None, description="a new folder for timm, or a file that ends in .onnx or .pt2; null: push alone"
    )
    format: Literal["timm", "onnx", "torch_export"] | None = Field(
        default=None, description="what is written; null: what the ending of out says"
    )
    outputs: Literal["features", "logits", "both"] | None = Field(
        default=None, description="of a file; null: logits where the network has a classifier, else features"
    )
    normalize: bool = Field(
        default=False, description="of a file: it takes images from 0 to 1 and normalises them itself"
    )
    tolerance: Positive = Field(
        default=1e-4, description="of a file: it may differ from the network by this share of the largest output"
    )
    plain: bool | None = Field(
        default=None,
        description="of a folder: true: timm alone must load it; false: it keeps its edges, to adapt on, and needs "
        "ssl_adapt; null: timm alone, where it can",
    )
    push: Repository | None = Field(default=None, description="upload the folder to this repository of the hub")
    private: bool = Field(default=True, description="of push: a repository that is made can be seen by its owner alone")

    @model_validator(mode="after")
    def _what_belongs_together(self) -> ExportOptions:
        if self.out is None and self.push is None:
            raise UserError("out is missing: add out=PATH, or push=USER/NAME")
        own = ENDINGS.get(Path(self.out or "").suffix, "timm")
        if self.format not in (None, own):
            ending = next((end for end, name in ENDINGS.items() if name == self.format), None)
            expected = f"a path that ends in {ending}" if ending else "a path that ends in neither .onnx nor .pt2"
            raise UserError(
                f"format={self.format} needs {expected}, and out={self.out} is for {own}: change one of them"
            )
        given = self.model_fields_set
        for key in FOLDER_KEYS if own != "timm" else GRAPH_KEYS:
            if key in given and getattr(self, key) is not None:
                other = "a folder for timm" if own != "timm" else "a file: out=NAME.onnx or out=NAME.pt2"
                raise UserError(f"{key} has a meaning for {other}: leave it out, or change out")
        if "private" in given and self.push is None:
            raise UserError("private has a meaning with push=USER/NAME: leave it out")
        if own != "timm" and not os.path.isdir(Path(os.path.expanduser(self.out or "")).parent):
            raise UserError(f"out={self.out} lies in no folder that exists: make it first, or name another")
        return self


def help_text() -> str:
    """The text of --help."""
    return describe_options(USAGE, ExportOptions)


def run(arguments: Sequence[str]) -> None:
    """Write the network, push it if asked, and print what was done."""
    options = read_options(ExportOptions, arguments)
    from ssl_adapt.report.hand_on import hand_on

    form = ENDINGS.get(Path(options.out or "").suffix, "timm")
    for line in hand_on({**options.model_dump(exclude_none=True), "format": form}):
        print(line)
