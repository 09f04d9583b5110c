"""The check of the images that views are made of."""

import torch
from torch import Tensor

from ssl_adapt.errors import UserError


def check_images(images: Tensor) -> None:
    """Raise an error unless the tensor is a batch of images.

    Raises:
        ValueError: the images are not uint8 (B, 3, H, W), or there are none; the message says what to pass.
    """
    if images.dtype != torch.uint8:
        raise UserError(
            f"views are made of uint8 images, got {images.dtype}; "
            "for floats in [0, 1] pass (images * 255).round().to(torch.uint8)"
        )
    if images.ndim != 4 or images.shape[1] != 3 or images.numel() == 0:
        raise UserError(
            f"views are made of a batch of shape (B, 3, H, W) that is not empty, got {tuple(images.shape)}; "
            "pass one image as image[None] and channels-last images as images.permute(0, 3, 1, 2)"
        )
