"""The two things a network can be trained for: what a batch becomes, what the network is, and what is minimised."""

import difflib
from typing import Any, Protocol

import timm
import torch
from timm.layers.drop import DropPath
from torch import Tensor, nn

from ssl_adapt.adaptation.edge import Adaptable
from ssl_adapt.backbones.adaptable import adaptable
from ssl_adapt.data import Batch, ImageSet
from ssl_adapt.objectives.nt_xent import nt_xent
from ssl_adapt.objectives.simclr import SimclrNetwork, create_projector
from ssl_adapt.objectives.supervised import SupervisedObjective
from ssl_adapt.recipe import Recipe
from ssl_adapt.views import SimclrViews, ViewSettings
from ssl_adapt.views.supervised import SupervisedViews, SupervisedViewSettings

Inputs = tuple[Tensor, Tensor]  # two views, or images and targets


class Task(Protocol):
    """What a run trains for."""

    score: str  # what is measured of the network: "kNN" or "accuracy"

    def create_network(self) -> nn.Module:
        """A fresh network with weights drawn from torch's generator: `backbone` adapts, `heads` stand behind it."""
        ...

    def augment(self, batch: Batch) -> Inputs:
        """A batch of uint8 images -> what the network and the loss take; draws from torch's CPU generator."""
        ...

    def forward(self, network: nn.Module, inputs: Inputs) -> Any:
        """The network's outputs."""
        ...

    def loss(self, outputs: Any, inputs: Inputs) -> Tensor:
        """A scalar, in float32."""
        ...


class SimclrTask:
    """NT-Xent on two views of every image; labels are not used."""

    score = "kNN"

    def __init__(self, recipe: Recipe) -> None:
        assert recipe.views is not None
        data = recipe.data
        self.recipe = recipe
        self.views = SimclrViews(
            ViewSettings(size_px=data.image_px, mean=data.mean, std=data.std, **recipe.views.model_dump())
        )

    def create_network(self) -> SimclrNetwork:
        """The backbone without a classifier, and the projector."""
        objective = self.recipe.objective
        assert objective.projector_hidden is not None
        assert objective.projector_out is not None
        backbone: Any = create_backbone(self.recipe, num_classes=0)
        projector = create_projector(backbone.num_features, objective.projector_hidden, objective.projector_out)
        return SimclrNetwork(backbone, projector)

    def augment(self, batch: Batch) -> Inputs:
        """Two views, each (B, 3, H, W) float32."""
        view_a, view_b = self.views(batch.images)
        return view_a, view_b

    def forward(self, network: nn.Module, inputs: Inputs) -> Any:
        """The projections of both views."""
        if self.recipe.objective.view_forward == "joint":
            return network(torch.cat(inputs)).chunk(2)
        return network(inputs[0]), network(inputs[1])

    def loss(self, outputs: Any, inputs: Inputs) -> Tensor:
        """NT-Xent."""
        assert self.recipe.objective.temperature is not None
        return nt_xent(*outputs, temperature=self.recipe.objective.temperature)


class SupervisedNetwork(nn.Module):
    """A backbone with its own classifier; there is nothing behind it."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.heads: tuple[nn.Module, ...] = ()

    def forward(self, images: Tensor) -> Any:
        """Images (B, 3, H, W) -> logits (B, classes), in training perhaps with an auxiliary head's."""
        return self.backbone(images)


class SupervisedTask:
    """Cross-entropy on randomly cropped and flipped images.

    Raises:
        ValueError: if the images have no labels.
    """

    score = "accuracy"

    def __init__(self, recipe: Recipe, train_set: ImageSet) -> None:
        if train_set.labels is None:
            raise ValueError(
                f"objective.name=supervised needs labels, and data.name={recipe.data.name} has none: "
                "give the images in one folder for each class, or take a recipe of simclr"
            )
        if len(train_set.classes) < 2:
            raise ValueError(f"data.name={recipe.data.name} has one class alone: a classifier needs two or more")
        assert recipe.augment is not None
        data, objective = recipe.data, recipe.objective
        self.recipe = recipe
        self.class_count = len(train_set.classes)
        self.views = SupervisedViews(
            SupervisedViewSettings(size_px=data.image_px, mean=data.mean, std=data.std, **recipe.augment.model_dump())
        )
        self.objective = SupervisedObjective(
            num_classes=self.class_count,
            label_smoothing=objective.label_smoothing or 0.0,
            mixup_alpha=objective.mixup_alpha or 0.0,
            auxiliary_weight=objective.auxiliary_weight or 0.0,
        )

    def create_network(self) -> SupervisedNetwork:
        """The network with a classifier for the classes of the data."""
        return SupervisedNetwork(create_backbone(self.recipe, num_classes=self.class_count))

    def augment(self, batch: Batch) -> Inputs:
        """Images (B, 3, H, W) float32 and their targets, both mixed where the recipe asks for mixup."""
        assert batch.labels is not None
        images, targets = self.objective.mix(self.views(batch.images), batch.labels)
        return images, targets

    def forward(self, network: nn.Module, inputs: Inputs) -> Any:
        """Logits, or a pair with the auxiliary head's."""
        return network(inputs[0])

    def loss(self, outputs: Any, inputs: Inputs) -> Tensor:
        """Cross-entropy."""
        return self.objective.loss(outputs, inputs[1])


def create_task(recipe: Recipe, train_set: ImageSet) -> Task:
    """The task that the recipe names."""
    return SimclrTask(recipe) if recipe.objective.name == "simclr" else SupervisedTask(recipe, train_set)


def create_backbone(recipe: Recipe, *, num_classes: int) -> nn.Module:
    """The plain timm model of the recipe, with weights drawn from torch's generator.

    Raises:
        ValueError: if timm does not know the model or refuses its arguments, or it has no edges to
            adapt or no paths to drop.
    """
    px = recipe.data.image_px
    cfg = {"input_size": (3, px, px), "mean": recipe.data.mean, "std": recipe.data.std, "crop_pct": 1.0}
    try:
        backbone: nn.Module = timm.create_model(
            recipe.model.name, num_classes=num_classes, pretrained_cfg_overlay=cfg, **recipe.model.args
        )
    except (
        ArithmeticError,
        AssertionError,
        AttributeError,
        LookupError,
        OSError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        hint = "" if timm.is_model(recipe.model.name) else _nearest_models(recipe.model.name)
        raise ValueError(
            f"model.name={recipe.model.name!r} with model.args={recipe.model.args}: {reason}{hint}"
        ) from error
    if recipe.train.drop_path is not None and not any(isinstance(module, DropPath) for module in backbone.modules()):
        raise ValueError(
            f"train.drop_path={recipe.train.drop_path}: {recipe.model.name} has no drop-path; set it to null "
            "(many timm models have one with model.args.drop_path_rate=0.1)"
        )
    if recipe.adapt is None:
        return backbone
    if not isinstance(backbone, Adaptable):
        return adaptable(backbone, recipe.adapt.edges, model_args=recipe.model.args)
    if recipe.adapt.edges is not None:
        raise ValueError(f"adapt.edges={recipe.adapt.edges}: {recipe.model.name} declares its own edges; leave it out")
    return backbone


def _nearest_models(name: str) -> str:
    near = difflib.get_close_matches(name, timm.list_models(), n=2)
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else "; timm.list_models() has the names"
