"""The moving average of a network's weights, which is evaluated and exported in the network's place."""

from collections.abc import Mapping
from typing import Any, cast

import torch
from timm.utils.model_ema import ModelEmaV3
from torch import nn


class WeightAverage:
    """An exponential moving average of a backbone and of the head behind it.

    Its backbone follows the adaptation, as a teacher does: it sees the network's own theta, which is not averaged, and
    becomes what the network becomes. Averaged are the weights and, as timm does, BatchNorm's running statistics; the
    numbers of batches are copied.

    Args:
        network: an objective's, plain, with the weights that it starts from.
        decay: the share of itself that the average keeps at a step, at most: at its n-th it keeps 1 - n ** (-2/3) where
            that is less, so that the first step's weights are forgotten in short runs too.

    Source: timm's `ModelEmaV3` with its warm-up. torch's `AveragedModel` has none, and either averages the numbers of
        batches or leaves BatchNorm's statistics out.
    """

    def __init__(self, network: Any, decay: float) -> None:
        self._followed = nn.ModuleList([network.backbone, *network.heads[:1]])
        self._average = ModelEmaV3(self._followed, decay=decay, use_warmup=True).requires_grad_(False)
        self._steps = 0

    @property
    def backbone(self) -> nn.Module:
        """The average of the backbone, in evaluation mode."""
        return cast(nn.ModuleList, self._average.module)[0]

    @property
    def heads(self) -> tuple[nn.Module, ...]:
        """The average of the first head, where there is one."""
        return tuple(cast(nn.ModuleList, self._average.module)[1:])

    def update(self) -> None:
        """Move towards the network as it is after a step of its weights."""
        self._steps += 1
        self._average.update(self._followed, step=self._steps)

    def set_memory_format(self, memory_format: torch.memory_format) -> None:
        """Lay the average out as the network is."""
        self._average.to(memory_format=memory_format)

    def state_dict(self) -> dict[str, Any]:
        """The average, and how many steps are in it."""
        return {"steps": self._steps, "weights": self._average.module.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave; the architecture must be that one."""
        self._steps = state["steps"]
        self._average.module.load_state_dict(state["weights"])
