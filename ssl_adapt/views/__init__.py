"""Augmented views of a batch of images, on the device of the images.

A view is a chain of kornia augmentations. Those of this package give the same pixels as torchvision's, draw their
parameters for each image, and are faster; they can be mixed with kornia's own in one chain, or in
`kornia.augmentation.AugmentationSequential`.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ssl_adapt.errors import UserError
from ssl_adapt.views.color import ImagewiseColorJitter, ImagewiseGrayscale
from ssl_adapt.views.crop import RandomResizedCropFlip
from ssl_adapt.views.images import check_images
from ssl_adapt.views.padded_crop import ImagewiseCutout, PaddedCropFlip, PaddedCropSettings, padded_crop_view
from ssl_adapt.views.resized_crop import ResizedCropSettings, resized_crop_view
from ssl_adapt.views.view import View

__all__ = [
    "ImagewiseColorJitter",
    "ImagewiseCutout",
    "ImagewiseGrayscale",
    "PaddedCropFlip",
    "PaddedCropSettings",
    "RandomResizedCropFlip",
    "ResizedCropSettings",
    "View",
    "Views",
    "padded_crop_view",
    "resized_crop_view",
]


class Views(nn.Module):
    """Several random views of every image, each drawn anew.

    All draws come from torch's CPU generator, view after view, so that restoring its state repeats the views, on any
    device.

    Args:
        views: each makes one view of float32 pixels (B, 3, H, W) in [0, 1]; the same one may be given twice.

    Raises:
        ValueError: no view is given.
    """

    def __init__(self, views: Sequence[Callable[[Tensor], Tensor]]) -> None:
        super().__init__()
        if not views:
            raise UserError("views=[]: an image needs at least one view; pass one, or the same one twice for pairs")
        self.views = tuple(views)  # in a tuple they are no submodules: `to(device)` would move their random draws

    def __len__(self) -> int:
        return len(self.views)

    def extra_repr(self) -> str:
        """The views, for `print`."""
        return ", ".join(map(str, self.views))

    @torch.no_grad()
    def forward(self, images: Tensor) -> list[Tensor]:
        """A list of views, each (B, 3, its height, its width) float32, on the device of the images.

        Args:
            images: (B, 3, H, W) uint8 in 0..255.

        Raises:
            ValueError: the images are not uint8 or not of that shape; the message says what to pass.
        """
        check_images(images)
        with torch.autocast(images.device.type, enabled=False):
            # In memory line by line, as the crop reads them: otherwise each view would have to copy them.
            lines = images.transpose(1, 2).contiguous().to(torch.float32).div_(255.0)
            return [view(lines.transpose(1, 2)) for view in self.views]
