"""The networks of Table 5, and how they are trained."""

from typing import Any

from ssl_adapt.recipe import Recipe, load_recipe

NETWORKS: dict[str, dict[str, Any]] = {
    "resnet": {"model.name": "resnet20", "model.args": {"layers": [4, 4, 4], "width": 8, "granularity": "branch"}},
    "resnet_operations": {"model.name": "resnet20", "model.args": {"layers": [4, 4, 4], "width": 8}},
    "vit": {
        "model.name": "vit_tiny_patch16_224",
        "model.args": {"img_size": 16, "patch_size": 4, "embed_dim": 64, "depth": 8, "num_heads": 4},
    },
}
BRANCHES = ["blocks.*.attn", "blocks.*.mlp"]  # of the vit
REMOVED = {"resnet": "identity", "resnet_operations": "identity", "vit": "none"}  # block or convolution; branch


def create_recipe(network: str, seed: int, root: str, images: int) -> Recipe:
    """Images of 16 px from a tar, a padded crop and a flip; SGD for the ResNet, AdamW for the vit."""
    values: dict[str, Any] = {
        "seed": seed, "data.root": root, "data.image_px": 16, "data.train_images": images,
        "data.batch_size": 96, "views.pad_px": 2, "train.lr": 0.1, "train.weight_decay": 5e-4, **NETWORKS[network],
    }  # fmt: skip
    if network == "vit":
        values |= {
            "train.optimizer": "adamw", "train.momentum": None, "train.lr": 1e-3, "train.weight_decay": 0.05,
            "adapt": None, "train.clip_grad_norm": 1.0,
        }  # fmt: skip
    return load_recipe("supervised_resnet20", values)
