"""The view of supervised learning on small images: padded crop, flip and cutout."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from kornia.augmentation import GeometricAugmentationBase2D, IntensityAugmentationBase2D
from kornia.augmentation.random_generator.base import RandomGeneratorBase
from torch import Tensor

from ssl_adapt.errors import UserError
from ssl_adapt.views.view import View


@dataclass(frozen=True)
class PaddedCropSettings:
    """The parameters of a view. Every field changes results, so none has a default.

    Args:
        size_px: height and width of the images and of a view.
        pad_px: black pixels put around an image before it is cropped to its size again; 0 leaves it in place.
        flip_p: probability of a horizontal flip.
        cutout_px: side of the square that is cut out, an even number; 0 cuts nothing out, DARTS uses 16.
        mean: per channel, of pixels in [0, 1], taken off after the flip.
        std: per channel, divided by after the flip.

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
            ("cutout_px", "an even number of at least 0", self.cutout_px >= 0 and self.cutout_px % 2 == 0),
            ("mean", "three numbers", len(self.mean) == 3),
            ("std", "three numbers above 0", len(self.std) == 3 and min(self.std) > 0),
        ]
        for name, meaning, holds in rules:
            if not holds:
                raise UserError(f"{name} must be {meaning}, got {getattr(self, name)!r}")


def padded_crop_view(settings: PaddedCropSettings) -> View:
    """The view that the settings describe; the images must have its size already.

    Source: the transforms of github.com/quark0/darts for CIFAR-10. Up to the cutout a view equals, bit for
    bit, what torchvision's pad, crop, horizontal_flip and normalize make at equal parameters.
    """
    s = settings
    cutout = (ImagewiseCutout(s.cutout_px),) if s.cutout_px else ()
    return View([PaddedCropFlip(s.pad_px, s.flip_p, s.size_px)], mean=s.mean, std=s.std, after_normalise=cutout)


class PaddedCropFlipGenerator(RandomGeneratorBase):
    """Draws one crop of the padded image and one flip per image, from torch's CPU generator on any device.

    Args:
        pad_px: pixels on each side; the crop then has 2 * pad_px + 1 places along each axis.
        flip_p: probability of a horizontal flip.

    Source: torchvision.transforms.RandomCrop.get_params and RandomHorizontalFlip.
    """

    def __init__(self, pad_px: int, flip_p: float) -> None:
        super().__init__()
        self.pad_px = pad_px
        self.flip_p = flip_p

    def __repr__(self) -> str:
        return f"pad_px={self.pad_px}, flip_p={self.flip_p}"

    def make_samplers(self, device: torch.device, dtype: torch.dtype) -> None:
        """Does nothing: there is no sampler to move to `device`."""

    def forward(self, batch_shape: tuple[int, ...], same_on_batch: bool = False) -> dict[str, Tensor]:
        """Returns "corner" (B, 2) int64 as top, left in the padded image, and "flip" (B,) bool, on the CPU."""
        batch = batch_shape[0]
        draws = 1 if same_on_batch else batch
        corner = torch.randint(2 * self.pad_px + 1, (draws, 2))
        flip = torch.rand(draws) < self.flip_p
        return {"corner": corner.expand(batch, 2), "flip": flip.expand(batch)}


def crop_padded_flip(images: Tensor, corner: Tensor, flip: Tensor, pad_px: int) -> Tensor:
    """Returns (B, C, H, W): each image padded with zeros, cropped at its corner, mirrored where `flip` is set.

    A crop and a flip only choose pixels, so one lookup does both for the whole batch.

    Args:
        images: (B, C, H, W).
        corner: (B, 2) int64, top and left in the padded image, each in 0..2 * pad_px.
        flip: (B,) bool.
        pad_px: zeros on each side.

    Source: torchvision.transforms.v2.functional.pad, then crop, then horizontal_flip.
    """
    batch, channels, height, width = images.shape
    device = images.device
    top, left = corner.to(device, non_blocking=True)[:, :, None].unbind(1)
    forward = torch.arange(width, device=device)
    mirrored = flip.to(device, non_blocking=True)[:, None]
    rows = top + torch.arange(height, device=device)
    columns = left + torch.where(mirrored, width - 1 - forward, forward)
    pixel = rows[:, :, None] * (width + 2 * pad_px) + columns[:, None, :]
    padded = F.pad(images, (pad_px, pad_px, pad_px, pad_px)).flatten(2)
    return padded.gather(2, pixel.view(batch, 1, -1).expand(-1, channels, -1)).view_as(images)


class PaddedCropFlip(GeometricAugmentationBase2D):
    """Pads every image with black, crops it at random to its size again and flips it at random.

    kornia's RandomCrop processes the images one after the other: with its flip it takes 1.8 ms, this 0.7 ms (96 images
    of 32 px on one core).

    Args:
        pad_px: pixels on each side.
        flip_p: probability of a horizontal flip.
        size_px: height and width that the images must have; None: any.
    """

    def __init__(self, pad_px: int, flip_p: float, size_px: int | None = None) -> None:
        super().__init__(p=1.0)
        self._param_generator = PaddedCropFlipGenerator(pad_px, flip_p)
        self.flags = {"pad_px": pad_px, "size_px": size_px}

    def compute_transformation(self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any]) -> Tensor:
        """Returns (B, 3, 3): pixel centres (x, y, 1) of the input to those of the output."""
        corner = params["corner"].to(input.device, input.dtype, non_blocking=True)
        flip = params["flip"].to(input.device, non_blocking=True)
        shift = flags["pad_px"] - corner
        matrix = torch.eye(3, device=input.device, dtype=input.dtype).repeat(len(corner), 1, 1)
        matrix[:, 0, 0] = torch.where(flip, -1.0, 1.0)
        matrix[:, 0, 2] = torch.where(flip, input.shape[-1] - 1 - shift[:, 1], shift[:, 1])
        matrix[:, 1, 2] = shift[:, 0]
        return matrix

    def apply_transform(
        self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        """Returns (B, C, H, W), see `crop_padded_flip`.

        Raises:
            ValueError: the images are not of the size that was asked for.
        """
        (height, width), size = input.shape[-2:], flags["size_px"]
        if size is not None and (height, width) != (size, size):
            raise UserError(
                f"a padded crop keeps the size of the images, got {height} x {width} px for views of {size} px; "
                f"load the images at {size} px"
            )
        return crop_padded_flip(input, params["corner"], params["flip"], flags["pad_px"])


class CutoutGenerator(RandomGeneratorBase):
    """Draws the centre of each image's square, uniform over its pixels, from torch's CPU generator."""

    def make_samplers(self, device: torch.device, dtype: torch.dtype) -> None:
        """Does nothing: there is no sampler to move to `device`."""

    def forward(self, batch_shape: tuple[int, ...], same_on_batch: bool = False) -> dict[str, Tensor]:
        """Returns "centre" (B, 2) int64 as y, x, on the CPU."""
        batch, (height, width) = batch_shape[0], batch_shape[-2:]
        draws = 1 if same_on_batch else batch
        centre = torch.stack([torch.randint(height, (draws,)), torch.randint(width, (draws,))], dim=1)
        return {"centre": centre.expand(batch, 2)}


def cut_out(images: Tensor, centre: Tensor, cutout_px: int) -> Tensor:
    """Returns (B, C, H, W): 0 in rows y - half..y + half - 1 and columns x - half..x + half - 1 of each image.

    Half is cutout_px // 2. Squares are cut off at the border of the image, so they are smaller there.

    Args:
        images: (B, C, H, W).
        centre: (B, 2) int64 as y, x, inside the image.
        cutout_px: side of the square, even.

    Source: DeVries & Taylor 2017; Cutout in github.com/quark0/darts, which also cuts normalised images.
    """
    half = cutout_px // 2
    y, x = centre.to(images.device, non_blocking=True)[:, :, None].unbind(1)
    above, left = (
        torch.arange(length, device=images.device) - middle
        for length, middle in zip(images.shape[-2:], (y, x), strict=True)
    )
    rows, columns = ((offset >= -half) & (offset < half) for offset in (above, left))
    return images.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0.0)


class ImagewiseCutout(IntensityAugmentationBase2D):
    """Cuts a square out of every image, at a place that each draws for itself.

    kornia's RandomErasing differs: its rectangles are always wholly inside the image, so they all have the same size.

    Args:
        cutout_px: side of the square, even.
    """

    def __init__(self, cutout_px: int) -> None:
        super().__init__(p=1.0)
        self._param_generator = CutoutGenerator()
        self.flags = {"cutout_px": cutout_px}

    def apply_transform(
        self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        """Returns (B, C, H, W), see `cut_out`."""
        return cut_out(input, params["centre"], flags["cutout_px"])
