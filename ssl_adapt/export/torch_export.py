"""`.pt2` files: written and loaded by torch.export."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

METADATA = "metadata.json"


def check_installed() -> None:
    """Nothing but torch is needed."""


def save(
    program: torch.export.ExportedProgram, path: Path, outputs: Sequence[str], metadata: Mapping[str, Any]
) -> None:
    """Write the traced network; the metadata are JSON in the file's part `metadata.json`."""
    torch.export.save(program, path, extra_files={METADATA: json.dumps(metadata)})


def load(path: Path) -> Callable[[Tensor], Sequence[Tensor]]:
    """The file as a function of images, on the CPU."""
    module = torch.export.load(path).module()

    @torch.no_grad()
    def run(images: Tensor) -> Sequence[Tensor]:
        return cast(Sequence[Tensor], module(images))

    return run
