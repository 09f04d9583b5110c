"""From the sections of a recipe to the objective: its backbone, its views, and what is minimised."""

import difflib
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import timm
import torch
from timm.layers.drop import DropPath
from torch import nn

from ssl_adapt.adaptation.edge import Adaptable
from ssl_adapt.backbones.adaptable import adaptable
from ssl_adapt.data import ImageSet
from ssl_adapt.errors import UserError
from ssl_adapt.objectives import Byol, Objective, Simclr, Supervised, Vicreg
from ssl_adapt.recipe import AdaptSection, DataSection, ModelSection, Recipe, ResizedCropSection, ViewSection
from ssl_adapt.views import PaddedCropSettings, ResizedCropSettings, View, Views, padded_crop_view, resized_crop_view

OBJECTIVES: dict[str, Any] = {"simclr": Simclr, "byol": Byol, "vicreg": Vicreg, "supervised": Supervised}


def create_objective(recipe: Recipe, train_set: ImageSet, *, on_meta: bool = False) -> Objective:
    """The objective that the recipe names, on a fresh network with weights drawn from torch's generator.

    Args:
        recipe: its objective, views, data and model are used.
        train_set: the images, of which the labels count.
        on_meta: build the backbone without memory, for what only asks for views and loss.

    Raises:
        ValueError: if it needs labels that the images have not, or the network can't be created.
    """
    kind = OBJECTIVES[recipe.objective.name]
    if kind.needs_labels:
        check_labels(recipe.objective.name, recipe.data.name, train_set)
    with torch.device("meta") if on_meta else nullcontext():
        backbone = create_backbone(
            recipe.model,
            recipe.data,
            recipe.adapt,
            drop_path=recipe.train.drop_path,
            num_classes=len(train_set.classes) if kind.needs_labels else 0,
        )
    views = create_views(recipe.views, recipe.data, recipe.objective.views_per_image)
    objective: Objective = kind(backbone, views, **recipe.objective.model_dump(exclude={"name"}))
    return objective


def check_labels(objective_name: str, data_name: str, train_set: ImageSet) -> None:
    """Refuse images that a classifier can't be trained on.

    Raises:
        ValueError: if they have no labels, or those of one class alone.
    """
    if train_set.labels is None:
        raise UserError(
            f"objective.name={objective_name} needs labels, and data.name={data_name} has none: "
            "give images in one folder for each class, or a list or shards that have labels, or take a recipe of simclr"
        )
    if len(train_set.classes) < 2:
        raise UserError(f"data.name={data_name} has one class alone: a classifier needs two or more")


def create_views(sections: Sequence[ViewSection], data: DataSection, count: int) -> Views:
    """The views that the sections describe, `count` of them: one section serves all."""
    views = [create_view(section, data) for section in sections]
    return Views(views * count if len(views) == 1 else views)


def create_view(section: ViewSection, data: DataSection) -> View:
    """The view that a section describes, at the size and with the normalisation of the data."""
    own = section.model_dump(exclude={"name"})
    shared: dict[str, Any] = {"size_px": data.image_px, "mean": data.mean, "std": data.std}
    if isinstance(section, ResizedCropSection):
        return resized_crop_view(ResizedCropSettings(**shared, **own))
    return padded_crop_view(PaddedCropSettings(**shared, **own))


def create_backbone(
    model: ModelSection,
    data: DataSection,
    adapt: AdaptSection | None,
    *,
    num_classes: int,
    drop_path: float | None = None,
) -> nn.Module:
    """The plain timm model of a recipe's sections, with weights drawn from torch's generator.

    Args:
        model: its name and arguments; `args.architecture` is not looked at, see `find_start`.
        data: size and normalisation of its images.
        adapt: which edges a network gets that declares none; None: it needs none.
        num_classes: of its classifier; 0: none.
        drop_path: `train.drop_path`; unless it is None, the network must have paths to drop.

    Raises:
        ValueError: if timm does not know the model or refuses its arguments, or it has no edges to
            adapt or no paths to drop.
    """
    arguments = arguments_with_granularity(model, adapt.granularity if adapt else None)
    arguments = {name: value for name, value in arguments.items() if name != "architecture"}
    cfg = {"input_size": (3, data.image_px, data.image_px), "mean": data.mean, "std": data.std, "crop_pct": 1.0}
    try:
        backbone: nn.Module = timm.create_model(
            model.name, num_classes=num_classes, pretrained_cfg_overlay=cfg, **arguments
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
        hint = "" if timm.is_model(model.name) else _nearest_models(model.name)
        name, given = model.args.get("base", model.name), model.args.get("base_args", model.args)  # of an adapted one
        raise UserError(f"model.name={name!r} with model.args={given}: {reason}{hint}") from error
    if drop_path is not None and not any(isinstance(module, DropPath) for module in backbone.modules()):
        raise UserError(
            f"train.drop_path={drop_path}: {model.name} has no drop-path; set it to null "
            "(many timm models have one with model.args.drop_path_rate=0.1)"
        )
    if adapt is None:
        return backbone
    if not isinstance(backbone, Adaptable):
        if adapt.granularity == "operation":
            raise UserError(f"adapt.granularity=operation: the edges of {model.name} are block or branch")
        return adaptable(backbone, adapt.edges, granularity=adapt.granularity or "block", model_args=model.args)
    if adapt.edges is not None:
        raise UserError(f"adapt.edges={adapt.edges}: {model.name} declares its own edges; leave it out")
    return backbone


def arguments_with_granularity(model: ModelSection, granularity: str | None) -> dict[str, Any]:
    """The arguments of the model, with `adapt.granularity` among them where it is one of ours.

    Raises:
        ValueError: if it is one that has no such edges.
    """
    is_ours = timm.is_model(model.name) and timm.model_entrypoint(model.name).__module__.startswith("ssl_adapt.")
    if granularity is None or not is_ours:
        return dict(model.args)
    if "granularity" in model.args:
        raise UserError(f"adapt.granularity={granularity} and model.args.granularity say the same: give one of them")
    has_operations_alone = timm.model_entrypoint(model.name).__module__.endswith(".darts")
    if has_operations_alone and granularity != "operation":
        raise UserError(
            f"adapt.granularity={granularity}: {model.name} has no residual blocks; its edges are operations: "
            "leave it out"
        )
    own = "op" if granularity == "operation" else granularity
    return dict(model.args) if has_operations_alone else {**model.args, "granularity": own}


def _nearest_models(name: str) -> str:
    near = difflib.get_close_matches(name, timm.list_models(), n=2)
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else "; timm.list_models() has the names"
