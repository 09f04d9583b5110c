"""The path of a drawing, as an option of commands."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator

from ssl_adapt.errors import UserError
from ssl_adapt.recipe.values import Expected

SUFFIXES = (".svg", ".png", ".pdf")
CELL_SUFFIXES = (*SUFFIXES, ".dot", ".mmd")  # cells can be text too


def listed(suffixes: Sequence[str]) -> str:
    """The suffixes in words."""
    return f"{', '.join(suffixes[:-1])} or {suffixes[-1]}"


def _path_with(suffixes: Sequence[str], value: object) -> Path:
    path = Path(value) if isinstance(value, str) and value else None
    if path is None or not (path.is_dir() or (path.suffix in suffixes and path.parent.is_dir())):
        raise UserError("not the path of a drawing")
    return path


def _told(suffixes: Sequence[str]) -> Expected:
    return Expected(f"{listed(suffixes)} file in a folder that exists, or a folder")


DrawingPath = Annotated[
    Path, BeforeValidator(lambda value: _path_with(CELL_SUFFIXES, value)), _told(CELL_SUFFIXES)
]  # of cells
PlotPath = Annotated[Path, BeforeValidator(lambda value: _path_with(SUFFIXES, value)), _told(SUFFIXES)]
