"""The path of a drawing, as an option of commands, and whether one can be made."""

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator

from ssl_adapt.errors import UserError
from ssl_adapt.recipe.values import Expected

SUFFIXES = (".svg", ".png", ".pdf")


def _drawing_path(value: object) -> Path:
    path = Path(value) if isinstance(value, str) and value else None
    if path is None or not (path.is_dir() or (path.suffix in SUFFIXES and path.parent.is_dir())):
        raise UserError("not the path of a drawing")
    return path


def check_can_draw() -> None:
    """Matplotlib, which is an extra, is installed.

    Raises:
        UserError: it is not; the message says what to type.
    """
    if find_spec("matplotlib") is None:
        raise UserError("drawings need matplotlib, which is not installed: pip install 'ssl-adapt[report]'")


DrawingPath = Annotated[
    Path,
    BeforeValidator(_drawing_path),
    Expected(f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]} file in a folder that exists, or a folder"),
]
