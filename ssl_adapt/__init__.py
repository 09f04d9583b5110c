"""Training, self-supervised or supervised, in which the network adapts its own architecture.

Importing this package registers its networks with timm: at once if timm is imported already, else as soon as it is.
This package itself imports neither timm nor torch until they are needed, so that a command answers --help or reports a
mistyped key at once.

For the same reason each of the names below is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ssl_adapt.import_hook import after_import

if TYPE_CHECKING:
    from ssl_adapt import objectives, views
    from ssl_adapt.adaptation.adaptation import Adaptation
    from ssl_adapt.adaptation.architecture import Architecture, apply_architecture
    from ssl_adapt.backbones.adaptable import adaptable
    from ssl_adapt.evaluation.knn import evaluate_knn
    from ssl_adapt.evaluation.protocol import KnnProtocol
    from ssl_adapt.export import export_timm, load_export
    from ssl_adapt.export.graph import export_graph
    from ssl_adapt.objectives.nt_xent import nt_xent
    from ssl_adapt.recipe import load_recipe
    from ssl_adapt.training.loop import pretrain

__all__ = [
    "Adaptation",
    "Architecture",
    "KnnProtocol",
    "adaptable",
    "apply_architecture",
    "evaluate_knn",
    "export_graph",
    "export_timm",
    "load_export",
    "load_recipe",
    "nt_xent",
    "objectives",
    "pretrain",
    "views",
]

_MODULES = {
    "Adaptation": "ssl_adapt.adaptation.adaptation",
    "Architecture": "ssl_adapt.adaptation.architecture",
    "KnnProtocol": "ssl_adapt.evaluation.protocol",
    "adaptable": "ssl_adapt.backbones.adaptable",
    "apply_architecture": "ssl_adapt.adaptation.architecture",
    "evaluate_knn": "ssl_adapt.evaluation.knn",
    "export_graph": "ssl_adapt.export.graph",
    "export_timm": "ssl_adapt.export",
    "load_export": "ssl_adapt.export",
    "load_recipe": "ssl_adapt.recipe",
    "nt_xent": "ssl_adapt.objectives.nt_xent",
    "pretrain": "ssl_adapt.training.loop",
}
_PACKAGES = ("objectives", "views")

after_import("timm", lambda: import_module("ssl_adapt.backbones"))


def __getattr__(name: str) -> Any:
    """The public name, imported now (PEP 562); `__version__` is that of the installation."""
    if name == "__version__":
        return import_module("importlib.metadata").version("ssl-adapt")
    if name in _PACKAGES:
        return import_module(f"{__name__}.{name}")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_MODULES[name]), name)
    return value


def __dir__() -> list[str]:
    return __all__
