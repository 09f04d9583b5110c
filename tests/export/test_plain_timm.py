"""Networks of timm from which blocks were removed, as timm's own arguments express them."""

import json
from pathlib import Path

import pytest
import timm
import torch
from adapted_networks import PX32, adapted_network
from torch import nn

from ssl_adapt import Adaptation, adaptable, export_timm
from ssl_adapt.errors import UserError
from ssl_adapt.export.plain_timm import plain_timm

pytestmark = pytest.mark.exactness

BRANCHES = {"blocks__1__attn": "none", "blocks__1__mlp": "none", "blocks__3__attn": "none", "blocks__3__mlp": "none"}


@pytest.mark.parametrize(
    ("family", "choices", "key", "left"),
    [
        ("resnet18 of timm", {"layer1__1": "identity", "layer3__1": "identity"}, "layers", [1, 2, 2, 1]),
        ("vit of timm, blocks", {"blocks__0": "identity", "blocks__2": "identity"}, "depth", 2),
        ("vit of timm, branches", BRANCHES, "depth", 2),
        ("convnext of timm", {"stages__2__blocks__1": "identity"}, "depths", [2, 1, 2, 1]),
        ("convnext of timm", {"stages__0__blocks__0": "original"}, "depths", [2, 1, 3, 1]),
    ],
)
def test_timm_alone_builds_what_is_left(family: str, choices: dict, key: str, left: object, tmp_path: Path) -> None:
    model = adapted_network(family, **choices)
    plain, arguments = plain_timm(model)
    assert arguments[key] == left
    assert {type(module).__module__.partition(".")[0] for module in plain.modules()} <= {"timm", "torch"}
    folder = export_timm(plain, tmp_path / "net", extra_args=arguments)
    config = json.loads((folder / "config.json").read_text())
    assert (timm.model_entrypoint(config["architecture"]).__module__).startswith("timm.models.")
    assert "ssl_adapt" not in (folder / "config.json").read_text()
    loaded = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    x = torch.randn(3, *model.pretrained_cfg["input_size"])
    assert torch.equal(loaded(x), model(x))
    assert loaded.num_classes == 5


def fixed(model: nn.Module, **choices: str) -> nn.Module:
    given = {name.replace("__", "."): choice for name, choice in choices.items()}
    model = adaptable(model)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    Adaptation(model, choices={spec.name: given.get(spec.name, "original") for spec in model.edge_specs()}).fix()
    return model


def shifted() -> nn.Module:
    """Blocks whose windows are shifted in turn, so that the third is another one in the second's place."""
    swin = {"img_size": 16, "window_size": 2, "patch_size": 2, "embed_dim": 8, "depths": [4], "num_heads": [2]}
    return fixed(timm.create_model("swin_tiny_patch4_window7_224", **swin), layers__0__blocks__1="identity")


@pytest.mark.parametrize(
    ("create", "reason"),
    [
        (lambda: timm.create_model("resnet20", width=4, layers=[1]), "^resnet20 is a network of ssl_adapt$"),
        (
            lambda: adapted_network("vit of timm, branches", blocks__1__attn="none"),
            r"^blocks\.1\.attn gives zeros, and blocks\.1\.mlp is left$",
        ),
        (shifted, r"^timm's network computes something else without layers\.0\.blocks\.1$"),
        (
            lambda: fixed(timm.create_model("mobilenetv3_small_050", **PX32), blocks__3__1="identity"),
            r"^timm's mobilenetv3_small_050 has no argument that leaves out blocks\.3\.1$",
        ),
    ],
)
def test_what_timm_can_not_express(create, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        plain_timm(create())


def test_a_network_of_timm_without_edges_is_plain_already() -> None:
    model = timm.create_model("resnet10t", stem_width=16)
    assert plain_timm(model, {"stem_width": 16}) == (model, {"stem_width": 16})
