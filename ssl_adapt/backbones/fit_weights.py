"""Trained weights for a network that has another classifier, another first convolution, or other positions."""

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ssl_adapt.backbones.cell_network import CellNetwork
from ssl_adapt.backbones.resnet_weights import rename_torchvision_weights
from ssl_adapt.errors import UserError
from ssl_adapt.json_text import shown

FROM_TORCHVISION = "renamed from a torchvision or timm ResNet"
SHOWN_KEYS = 3  # of those that do not fit


@dataclass(frozen=True)
class FittedWeights:
    """What a network is given.

    Attributes:
        tensors: for `load_state_dict`.
        new: names in the network that nothing was found for, and that stay as they are.
        left_out: names that the network has no place for.
        changes: what was done so that they fit, in words.
        has_classifier: whether the network's classifier is among the tensors.
    """

    tensors: Mapping[str, Tensor]
    new: tuple[str, ...]
    left_out: tuple[str, ...]
    changes: tuple[str, ...]
    has_classifier: bool


def fit_weights(model: nn.Module, state: Mapping[str, Tensor], *, new_classifier: bool = False) -> FittedWeights:
    """The weights for a network that timm built, as they fit into it; the network is not changed.

    The classifier and an auxiliary head may be missing, or be for other classes. The first convolution may be for other
    channels: each then gets the sum over the old ones, divided by their new number, so that a grey image gives what it
    gave. Everything else must be there, and nothing more. Names and positions of other releases and sizes go through
    timm's own `checkpoint_filter_fn`, where the network's family has one; a torchvision or timm ResNet fits into ours,
    without its first convolution where that has another size.

    Args:
        model: the network.
        state: the weights by name.
        new_classifier: leave out a classifier even if it is for as many classes.

    Raises:
        ValueError: naming the first weights that are missing, unknown, or of another shape.
    """
    fewest: list[str] = []
    for change, converted in _conversions(model, state):
        fitted, wrong = _fit(model, converted, change, new_classifier)
        if not wrong:
            return fitted
        fewest = min(fewest or wrong, wrong, key=len)
    more = f" ({len(fewest)} do not fit in all)" if len(fewest) > SHOWN_KEYS else ""
    raise UserError("; ".join(fewest[:SHOWN_KEYS]) + more)


def _conversions(model: nn.Module, state: Mapping[str, Tensor]) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
    """The weights as they are, and as other names and sizes would have them."""
    yield "", state
    if isinstance(model, CellNetwork):
        renamed = rename_torchvision_weights(state)
        if renamed.keys() != state.keys():
            yield FROM_TORCHVISION, renamed
        return
    filter_fn: Callable[..., Any] | None = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if filter_fn is not None:
        try:
            converted = filter_fn({name: value.clone() for name, value in state.items()}, model)
        except Exception:  # weights of another family raise any kind of error there
            return
        yield "converted by timm's checkpoint_filter_fn", converted


def _fit(
    model: nn.Module, state: Mapping[str, Tensor], change: str, new_classifier: bool
) -> tuple[FittedWeights, list[str]]:
    """The weights that fit, and of each that should and does not why."""
    heads, firsts = _places(model, "classifier", "auxiliary"), _places(model, "first_conv")
    renewed = heads if new_classifier else ()
    expected = model.state_dict()
    tensors: dict[str, Tensor] = {}
    new, changes, wrong = [], [change] if change else [], []
    for name, value in expected.items():
        found, is_first = None if name.startswith(renewed) else state.get(name), name.startswith(firsts)
        if found is not None and found.shape == value.shape:
            tensors[name] = found
        elif found is not None and is_first and _differ_in_channels(found, value):
            tensors[name] = (found.float().sum(1, keepdim=True) / value.shape[1]).expand_as(value)
            changes.append(f"{name} from {found.shape[1]} to {value.shape[1]} channels")
        elif name.startswith(heads) or (is_first and change == FROM_TORCHVISION):
            new.append(name)
        elif found is not None:
            wrong.append(f"{name!r} is {tuple(found.shape)} there and {tuple(value.shape)} in the network")
        elif not name.endswith("num_batches_tracked"):  # which old releases of torch did not save
            wrong.append(f"{name!r} is missing")
    left_out = [name for name in state if name not in tensors]
    unknown = [name for name in left_out if name not in expected and not name.startswith(heads)]
    wrong += [f"{shown(name)} is none of the network's" for name in unknown]
    has_classifier = any(name.startswith(_places(model, "classifier")) for name in tensors)
    return FittedWeights(tensors, tuple(new), tuple(left_out), tuple(changes), has_classifier), wrong


def _places(model: nn.Module, key: str, *others: str) -> tuple[str, ...]:
    """How the names begin of the weights that timm's configuration of the network calls so."""
    cfg: Any = getattr(model, "pretrained_cfg", None) or {}
    given = cfg.get(key) or ()
    return tuple(f"{name}." for name in (*((given,) if isinstance(given, str) else given), *others))


def _differ_in_channels(found: Tensor, value: Tensor) -> bool:
    return found.ndim == 4 == value.ndim and found[:, 0].shape == value[:, 0].shape and found.shape[1] > 0
