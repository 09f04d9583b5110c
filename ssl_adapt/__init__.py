"""Self-supervised pre-training in which the network adapts its own architecture.

Importing this package registers its backbones with timm.
"""

import ssl_adapt.backbones.resnet  # noqa: F401 (registers with timm)
from ssl_adapt.adaptation.adaptation import Adaptation
from ssl_adapt.adaptation.architecture import Architecture, apply_architecture
from ssl_adapt.evaluation.knn import KnnProtocol, evaluate_knn
from ssl_adapt.export import export_timm
from ssl_adapt.objectives.simclr import nt_xent
from ssl_adapt.recipe import load_recipe
from ssl_adapt.training.pretrain import pretrain

__all__ = [
    "Adaptation",
    "Architecture",
    "KnnProtocol",
    "apply_architecture",
    "evaluate_knn",
    "export_timm",
    "load_recipe",
    "nt_xent",
    "pretrain",
]
