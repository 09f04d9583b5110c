"""Training, self-supervised or supervised, in which the network adapts its own architecture.

Importing this package registers its backbones with timm.
"""

# Importing a module of backbones registers them with timm.
import ssl_adapt.backbones.darts
import ssl_adapt.backbones.mobilenet
import ssl_adapt.backbones.proxyless
import ssl_adapt.backbones.resnet  # noqa: F401
from ssl_adapt.adaptation.adaptation import Adaptation
from ssl_adapt.adaptation.architecture import Architecture, apply_architecture
from ssl_adapt.backbones.adaptable import adaptable
from ssl_adapt.evaluation.knn import KnnProtocol, evaluate_knn
from ssl_adapt.export import export_timm
from ssl_adapt.objectives.nt_xent import nt_xent
from ssl_adapt.recipe import load_recipe
from ssl_adapt.training.pretrain import pretrain

__all__ = [
    "Adaptation",
    "Architecture",
    "KnnProtocol",
    "adaptable",
    "apply_architecture",
    "evaluate_knn",
    "export_timm",
    "load_recipe",
    "nt_xent",
    "pretrain",
]
