"""The augmentation of supervised training on small images: padded crop, flip, normalise, cutout."""

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from kornia.augmentation import RandomHorizontalFlip
from torch import Tensor, nn


@dataclass(frozen=True)
class SupervisedViewSettings:
    """What is drawn for an image. Every field changes results, so none has a default.

    Args:
        size_px: height and width of the images.
        pad_px: zeros on every side, before a crop of the images' own size.
        flip_p: probability of a horizontal flip.
        cutout_px: side of the square that is set to the mean colour; 0 leaves it out.
        mean: per channel, of pixels in [0, 1].
        std: per channel.

    Raises:
        ValueError: a value is outside its range; the message says which and what the range is.
    """

    size_px: int
    pad_px: int
    flip_p: float
    cutout_px: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        rules = [
            ("size_px", "a whole number of at least 1", self.size_px >= 1),
            ("pad_px", "a whole number of at least 0", self.pad_px >= 0),
            ("flip_p", "a probability in 0..1", 0 <= self.flip_p <= 1),
            ("cutout_px", "a whole number of at least 0", self.cutout_px >= 0),
            ("mean", "three numbers", len(self.mean) == 3),
            ("std", "three numbers above 0", len(self.std) == 3 and min(self.std) > 0),
        ]
        for name, meaning, holds in rules:
            if not holds:
                raise ValueError(f"{name} must be {meaning}, got {getattr(self, name)!r}")


class SupervisedViews(nn.Module):
    """Every image of a batch padded, cropped, flipped, normalised and, if asked for, cut out.

    All draws come from torch's CPU generator, so that restoring its state repeats them, on any device. kornia
    flips; its padded crop goes through the images one by one in Python, so crop and cutout are done here for
    the whole batch at once.

    Source: torchvision's RandomCrop(size, padding) and RandomHorizontalFlip; DeVries & Taylor 2017 for cutout,
    whose square is centred anywhere on the image and cut at its borders.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, settings: SupervisedViewSettings) -> None:
        super().__init__()
        self.settings = settings
        self.flip = (RandomHorizontalFlip(p=settings.flip_p),)  # in a tuple: its draws stay on the CPU
        self.register_buffer("mean", torch.tensor(settings.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(settings.std).view(3, 1, 1), persistent=False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, size_px, size_px) uint8 -> the same shape in float32, normalised, on the same device.

        Raises:
            ValueError: the images are not uint8 or not of that shape.
        """
        px = self.settings.size_px
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1:] != (3, px, px):
            raise ValueError(
                f"expected uint8 images (B, 3, {px}, {px}), got {images.dtype} {tuple(images.shape)}; "
                "load them at that size"
            )
        with torch.autocast(images.device.type, enabled=False):
            top, left = torch.randint(2 * self.settings.pad_px + 1, (2, len(images)))
            pixels = pad_and_crop(images, self.settings.pad_px, top, left).float().div_(255)
            pixels = cast(Tensor, self.flip[0](pixels))
            pixels = pixels.sub_(self.mean.to(pixels.device)).div_(self.std.to(pixels.device))
            if self.settings.cutout_px:
                centre_y, centre_x = torch.randint(px, (2, len(images)))
                pixels.masked_fill_(cutout_mask(px, self.settings.cutout_px, centre_y, centre_x).to(pixels.device), 0)
            return pixels

    def extra_repr(self) -> str:
        """The settings, for `print`."""
        return str(self.settings)


def pad_and_crop(images: Tensor, pad_px: int, top: Tensor, left: Tensor) -> Tensor:
    """Images (B, C, H, W) padded with zeros, each cropped to (C, H, W) at its own corner (top, left), each (B,)."""
    count, _, height, width = images.shape
    padded = F.pad(images, (pad_px, pad_px, pad_px, pad_px)).permute(0, 2, 3, 1)
    device = images.device
    rows = (top[:, None] + torch.arange(height)).to(device)
    columns = (left[:, None] + torch.arange(width)).to(device)
    which = torch.arange(count, device=device)[:, None, None]
    return padded[which, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def cutout_mask(px: int, cutout_px: int, centre_y: Tensor, centre_x: Tensor) -> Tensor:
    """Where the square of side `cutout_px` around each centre (B,) lies: bool (B, 1, px, px), cut at the borders."""
    places = torch.arange(px)
    half = cutout_px // 2
    rows, columns = (
        (places >= centre[:, None] - half) & (places < centre[:, None] - half + cutout_px)
        for centre in (centre_y, centre_x)
    )
    return (rows[:, :, None] & columns[:, None, :])[:, None]
