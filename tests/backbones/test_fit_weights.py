"""Trained weights for a network that differs in its classifier, its first convolution, or the size of its images."""

from collections.abc import Callable

import pytest
import timm
import torch
import torchvision
from small_networks import small
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

import ssl_adapt
from ssl_adapt.backbones.fit_weights import fit_weights
from ssl_adapt.errors import UserError

VIT = {"patch_size": 4, "embed_dim": 8, "depth": 1, "num_heads": 2}
CLASSIFIER = ("fc.weight", "fc.bias")


def vit(**arguments: object) -> nn.Module:
    return timm.create_model("vit_tiny_patch16_224", **VIT, **arguments)


def test_the_same_network_takes_all_weights() -> None:
    state = small(num_classes=3).state_dict()
    fitted = fit_weights(small(num_classes=3), state)
    assert list(fitted.tensors) == list(state)
    assert all(fitted.tensors[name] is value for name, value in state.items())
    assert fitted.new == fitted.left_out == fitted.changes == ()


def test_the_classifier_may_differ() -> None:
    without, three, four = (small(num_classes=count) for count in (0, 3, 4))
    fitted = fit_weights(four, three.state_dict())
    assert (fitted.new, fitted.left_out) == (CLASSIFIER, CLASSIFIER)
    assert len(fitted.tensors) == len(without.state_dict()) > 10
    assert (fit_weights(four, without.state_dict()).new, fit_weights(without, four.state_dict()).left_out) == (
        CLASSIFIER, CLASSIFIER,
    )  # fmt: skip


@pytest.mark.parametrize(("there", "here"), [(1, 3), (3, 1)])
def test_a_grey_image_gives_the_same_whatever_the_channels(there: int, here: int) -> None:
    old, new = small(in_chans=there).eval(), small(in_chans=here).eval()
    fitted = fit_weights(new, old.state_dict())
    new.load_state_dict(fitted.tensors)
    grey = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(new(grey.expand(2, here, 8, 8)), old(grey.expand(2, there, 8, 8)))
    assert fitted.changes == (f"stem.conv.weight from {there} to {here} channels",)


def test_old_releases_did_not_count_batches() -> None:
    state = {name: value for name, value in small().state_dict().items() if "num_batches" not in name}
    model = small()
    assert len(model.state_dict()) > len(state)
    model.load_state_dict(fit_weights(model, state).tensors, strict=False)
    assert torch.equal(model.state_dict()["stem.conv.weight"], state["stem.conv.weight"])


def test_positions_of_another_size_are_resampled() -> None:
    old, new = vit(img_size=16), vit(img_size=24)
    fitted = fit_weights(new, old.state_dict())
    expected = resample_abs_pos_embed(old.pos_embed, (6, 6))
    assert torch.equal(fitted.tensors["pos_embed"], expected)
    assert fitted.changes == ("converted by timm's checkpoint_filter_fn",)
    assert fitted.new == ()


def test_a_resnet_of_torchvision_fits_into_ours() -> None:
    other = torchvision.models.ResNet(torchvision.models.resnet.Bottleneck, [1, 1, 1, 1], num_classes=5)
    model = timm.create_model("resnet50_cifar", layers=(1, 1, 1, 1), num_classes=4)
    fitted = fit_weights(model, other.state_dict())
    assert fitted.new == ("stem.conv.weight", *CLASSIFIER)  # 7x7 there
    assert fitted.left_out == ("stem.conv.weight", *CLASSIFIER)
    assert fitted.changes == ("renamed from a torchvision or timm ResNet",)
    assert len(fitted.tensors) == len(model.state_dict()) - 3
    deeper = torchvision.models.ResNet(torchvision.models.resnet.Bottleneck, [2, 1, 1, 1])
    with pytest.raises(UserError, match=r"^'layer1.1.conv1.conv.weight' is none of the network's"):
        fit_weights(model, deeper.state_dict())


def drop(state: dict[str, Tensor]) -> None:
    del state["layer1.0.conv1.conv.weight"]


def reshape(state: dict[str, Tensor]) -> None:
    state["layer1.0.conv1.conv.weight"] = torch.ones(1)


def add(state: dict[str, Tensor]) -> None:
    state["projector.weight"] = torch.ones(1)


def drop_first(state: dict[str, Tensor]) -> None:
    del state["stem.conv.weight"]


def drop_all(state: dict[str, Tensor]) -> None:
    for name in [*state][:-3]:
        del state[name]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop, r"^'layer1.0.conv1.conv.weight' is missing$"),
        (reshape, r"^'layer1.0.conv1.conv.weight' is \(1,\) there and \(4, 4, 3, 3\) in the network$"),
        (add, r"^'projector.weight' is none of the network's$"),
        (drop_first, r"^'stem.conv.weight' is missing$"),
        (drop_all, r"^'stem.conv.weight' is missing; .*\(\d+ do not fit in all\)$"),
    ],
)
def test_everything_else_is_refused(change: Callable[[dict[str, Tensor]], None], message: str) -> None:
    state = dict(small().state_dict())
    change(state)
    with pytest.raises(UserError, match=message):
        fit_weights(small(), state)


def test_weights_of_another_family_are_refused() -> None:
    assert ssl_adapt  # registers the networks
    with pytest.raises(UserError, match=r"'cls_token' is missing; 'pos_embed' is missing"):
        fit_weights(vit(img_size=16), small().state_dict())
