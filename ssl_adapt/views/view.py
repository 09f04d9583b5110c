"""One random view of a batch: a chain of augmentations, and the normalisation."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


class View(nn.Module):
    """Augmentations of pixels, then the normalisation, then augmentations of the normalised image.

    Args:
        augmentations: each maps float32 pixels (B, 3, H, W) in [0, 1] to the same, at any size; kornia's, for example.
        mean: per channel, of pixels in [0, 1], subtracted after them.
        std: per channel, divides the difference.
        after_normalise: further ones, of the normalised image: cutout then fills with the mean.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        augmentations: Sequence[Callable[[Tensor], Tensor]],
        *,
        mean: Sequence[float],
        std: Sequence[float],
        after_normalise: Sequence[Callable[[Tensor], Tensor]] = (),
    ) -> None:
        super().__init__()
        # In tuples they are no submodules: `to(device)` would move their random draws to that device.
        self.augmentations = tuple(augmentations)
        self.after_normalise = tuple(after_normalise)
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def extra_repr(self) -> str:
        """The augmentations, for `print`."""
        return ", ".join(map(str, (*self.augmentations, "normalise", *self.after_normalise)))

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) float32 in [0, 1], left unchanged -> the view (B, 3, height, width)."""
        for augment in self.augmentations:
            pixels = augment(pixels)
        device = pixels.device
        view = pixels.sub(self.mean.to(device)).div_(self.std.to(device))
        for augment in self.after_normalise:
            view = augment(view)
        return view
