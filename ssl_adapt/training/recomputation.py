"""Activations that are computed again in the backward pass instead of being kept."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ssl_adapt.errors import UserError


def recompute_activations(backbone: Any, name: str) -> None:
    """Let a backbone keep its blocks' inputs alone in a forward pass, by timm's contract, `set_grad_checkpointing`.

    Raises:
        ValueError: if it can't.
    """
    try:
        backbone.set_grad_checkpointing(True)
    except (AssertionError, AttributeError, NotImplementedError, TypeError) as error:
        reason = str(error) or type(error).__name__
        raise UserError(
            f"train.checkpoint_activations=true: {name} can't compute its activations again ({reason}): leave it out"
        ) from None


@contextmanager
def buffers_kept(network: nn.Module) -> Iterator[None]:
    """A context after which buffers, such as BatchNorm's running statistics, are what they were before it.

    For a backward pass that computes activations again: the first forward pass has moved them already.
    """
    copies = [(buffer, buffer.clone()) for buffer in network.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, copy in copies:
                buffer.copy_(copy)
