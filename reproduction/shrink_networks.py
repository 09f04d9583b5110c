"""The networks of Table 5, and how they are trained."""

from typing import Any

from torch import nn

from ssl_adapt.adaptation.edge import Choice
from ssl_adapt.backbones.adaptable import adaptable
from ssl_adapt.recipe import Recipe, load_recipe

RESNET = {"layers": [4, 4, 4], "width": 8}
VIT = {
    "model.name": "vit_tiny_patch16_224",
    "model.args": {"img_size": 16, "patch_size": 4, "embed_dim": 64, "depth": 8, "num_heads": 4},
}
NETWORKS: dict[str, dict[str, Any]] = {
    "resnet": {"model.name": "resnet20", "model.args": {**RESNET, "granularity": "branch"}},
    "resnet_operations": {"model.name": "resnet20", "model.args": RESNET},
    "vit": VIT,
    "vit_simclr": VIT,
    "convnext": {
        "model.name": "convnext_atto",
        "model.args": {
            "patch_size": 1, "depths": [3, 3, 9, 3], "dims": [16, 24, 32, 48], "kernel_sizes": 3, "ls_init_value": 0.1,
        },
    },
    "efficientnet": {
        "model.name": "tf_efficientnet_lite0", "model.args": {}, "data.image_px": 48, "data.batch_size": 50,
        "data.mean": [0.5, 0.5, 0.5], "data.std": [0.5, 0.5, 0.5], "views.pad_px": 6,
    },
}  # fmt: skip
# What is put in the place of a block or convolution, or of a branch of a vit.
REMOVED: dict[str, Choice] = {name: "none" if name.startswith("vit") else "identity" for name in NETWORKS}
START = {network: network.removesuffix("_operations") for network in NETWORKS}  # whose trained start is taken


def create_recipe(network: str, seed: int, root: str, images: int, *, width: int = 8, image_px: int = 16) -> Recipe:
    """Images from a tar; labels with a padded crop and a flip, or SimCLR; SGD for ResNets, else AdamW."""
    values: dict[str, Any] = {
        "seed": seed, "data.root": root, "data.image_px": image_px, "data.train_images": images, "data.batch_size": 96,
        **NETWORKS[network],
    }  # fmt: skip
    if network.startswith("resnet"):
        values["model.args"] = {**values["model.args"], "width": width}
        values |= {"train.lr": 0.1, "train.weight_decay": 5e-4, "views.pad_px": 2}
        return load_recipe("supervised_resnet20", values)
    values |= {
        "train.optimizer": "adamw", "train.momentum": None, "train.lr": 1e-3, "train.weight_decay": 0.05,
        "adapt": None, "train.clip_grad_norm": 1.0,
    }  # fmt: skip
    if network == "vit_simclr":
        return load_recipe("simclr_resnet20", values)
    return load_recipe("supervised_resnet20", {"views.pad_px": 2, **values})


def declare_branches(network: str, backbone: nn.Module, model_args: dict[str, Any]) -> None:
    """Make the residual branches of a timm network edges: attention and MLP of a vit, else whole blocks."""
    if network.startswith("vit"):
        adaptable(backbone, ["blocks.*.attn", "blocks.*.mlp"], model_args=model_args)
    elif network in ("convnext", "efficientnet"):
        adaptable(backbone, granularity="branch", model_args=model_args)
