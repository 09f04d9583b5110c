"""Weights of torchvision's and timm's ResNets, under the names that our ResNet gives them."""

import re
from collections.abc import Mapping

from torch import Tensor, nn

from ssl_adapt.errors import UserError


def rename_torchvision_weights(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A torchvision or timm ResNet's weights under the names that they have in ours."""
    renamed = {}
    for name, value in state_dict.items():
        name = re.sub(r"(^|\.)downsample\.0\.", r"\1shortcut.conv.", name)
        name = re.sub(r"(^|\.)downsample\.1\.", r"\1shortcut.bn.", name)
        name = re.sub(r"^conv1\.(?=weight)", "stem.conv.", name)
        name = re.sub(r"^bn1\.", "stem.bn.", name)
        name = re.sub(r"\.conv(\d)\.(?=weight$)", r".conv\1.conv.", name)
        name = re.sub(r"\.bn(\d)\.", r".conv\1.bn.", name)
        renamed[name] = value
    return renamed


def load_torchvision_weights(model: nn.Module, state_dict: Mapping[str, Tensor]) -> list[str]:
    """Copy a torchvision or timm ResNet's weights into `model`, and name what it has not provided.

    A 7x7 stem and a classifier for another number of classes are the usual ones that do not fit, and are left out.

    Raises:
        ValueError: if nothing fits: the two are different networks.
    """
    expected = model.state_dict()
    renamed = rename_torchvision_weights(state_dict)
    fitting = {name: v for name, v in renamed.items() if name in expected and expected[name].shape == v.shape}
    if not fitting:
        raise UserError("none of these weights fits: give the state dict of a torchvision or timm ResNet of this depth")
    return list(model.load_state_dict(fitting, strict=False).missing_keys)
