"""Training objectives, one class each, see `base.Objective`. Each is imported when it is first used."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ssl_adapt.objectives.base import Objective
    from ssl_adapt.objectives.byol import Byol
    from ssl_adapt.objectives.simclr import Simclr
    from ssl_adapt.objectives.supervised import Supervised
    from ssl_adapt.objectives.vicreg import Vicreg

__all__ = ["Byol", "Objective", "Simclr", "Supervised", "Vicreg"]

_FILES = {"Objective": "base"}  # of the others: the name in small letters


def __getattr__(name: str) -> Any:
    """The public name, imported now (PEP 562): NT-Xent alone, `ssl_adapt.nt_xent`, needs none of them."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_FILES.get(name, name.lower())}"), name)
