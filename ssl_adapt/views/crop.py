"""Random resized crop and horizontal flip of a whole batch, with the same result as torchvision's for every image."""

import math
from typing import Any

import torch
from kornia.augmentation import GeometricAugmentationBase2D
from kornia.augmentation.random_generator.base import RandomGeneratorBase
from torch import Tensor

CROP_ATTEMPTS = 10  # after which torchvision takes the central box


def central_box(height: int, width: int, ratio: tuple[float, float]) -> tuple[int, int, int, int]:
    """Returns (top, left, height, width) of the largest central box whose width / height lies in `ratio`.

    Source: torchvision.transforms.RandomResizedCrop.get_params, its fallback; ours has at least one pixel.
    """
    box_height, box_width = height, width
    if width / height < ratio[0]:
        box_height = max(1, round(width / ratio[0]))
    elif width / height > ratio[1]:
        box_width = max(1, round(height * ratio[1]))
    return (height - box_height) // 2, (width - box_width) // 2, box_height, box_width


class CropFlipGenerator(RandomGeneratorBase):
    """Draws one integer box and one flip per image, distributed as in torchvision.

    Draws come from torch's CPU generator whatever the device of the images: the same seed then gives the same
    views everywhere.

    Args:
        scale: smallest and largest area of the box, as a fraction of the image's.
        ratio: smallest and largest width / height of the box; its logarithm is uniform.
        flip_p: probability of a horizontal flip.

    Source: torchvision.transforms.RandomResizedCrop.get_params. Deviation: all ten attempts of an image are
    drawn at once and the first that fits is kept.
    """

    def __init__(self, scale: tuple[float, float], ratio: tuple[float, float], flip_p: float) -> None:
        super().__init__()
        self.scale = scale
        self.ratio = ratio
        self.flip_p = flip_p

    def __repr__(self) -> str:
        return f"scale={self.scale}, ratio={self.ratio}, flip_p={self.flip_p}"

    def make_samplers(self, device: torch.device, dtype: torch.dtype) -> None:
        """Does nothing: there is no sampler to move to `device`."""

    def forward(self, batch_shape: tuple[int, ...], same_on_batch: bool = False) -> dict[str, Tensor]:
        """Returns "box" (B, 4) int64 as top, left, height, width, and "flip" (B,) bool, both on the CPU."""
        batch, (height, width) = batch_shape[0], batch_shape[-2:]
        draws = 1 if same_on_batch else batch
        # float64, so that rounding never lifts a position to one past the last.
        uniform = torch.rand(2, draws, CROP_ATTEMPTS, dtype=torch.float64)
        log_ratio = [math.log(bound) for bound in self.ratio]
        area = height * width * torch.lerp(*_bounds(self.scale), uniform[0])
        ratio = torch.lerp(*_bounds(log_ratio), uniform[1]).exp()
        sizes = torch.stack([(area / ratio).sqrt(), (area * ratio).sqrt()], dim=-1).round()
        fits = ((sizes > 0) & (sizes <= torch.tensor([height, width]))).all(-1)
        first = fits.int().argmax(1)  # argmax returns the first of equals
        size = sizes[torch.arange(draws), first]
        space = torch.tensor([height + 1, width + 1]) - size
        corner = (torch.rand(draws, 2, dtype=torch.float64) * space).floor()
        drawn = torch.cat([corner, size], dim=1).long()
        central = torch.tensor(central_box(height, width, self.ratio))
        box = torch.where(fits.any(1, keepdim=True), drawn, central)
        flip = torch.rand(draws) < self.flip_p
        return {"box": box.expand(batch, 4), "flip": flip.expand(batch)}


def _bounds(pair: tuple[float, float] | list[float]) -> tuple[Tensor, Tensor]:
    low, high = torch.tensor(pair, dtype=torch.float64)
    return low, high


def resize_weights(
    start: Tensor, length: Tensor, position: Tensor, size_in: int, size_out: int, antialias: bool
) -> Tensor:
    """Returns the (B, P, size_in) float32 matrices that read bilinear samples of one axis.

    Row p of image b gives the pixel at output `position[b, p]` after the interval of `length` pixels from
    `start` was cut out and resized to `size_out` pixels. Rows sum to 1 and are 0 outside the interval.

    Both kinds of bilinear resizing weigh pixels by a triangle around the sampled point. It reaches one pixel
    far, or with `antialias` as far as the step between samples when shrinking. Dropping the pixels outside
    the interval and normalising equals what the kind without antialiasing does at the border: it clamps.

    Args:
        start: (B,) int64, the first pixel of the interval.
        length: (B,) int64, its pixels, at least 1.
        position: (B, P) int64 output pixels in 0..size_out - 1.
        size_in: pixels of the axis.
        size_out: pixels that the interval is resized to.
        antialias: whether the triangle widens when shrinking.

    Source: aten's upsample_bilinear2d and _upsample_bilinear2d_aa with align_corners=False.
    """
    step = (length.float() / size_out)[:, None]
    centre = step * (position + 0.5)
    # Counted from the start of the interval, so that no precision is lost far from the origin.
    pixel = torch.arange(size_in, device=start.device) - start[:, None]
    inside = (pixel >= 0) & (pixel < length[:, None])
    distance = (pixel + 0.5)[:, None, :] - centre[:, :, None]
    if antialias:
        distance /= step.clamp_min(1.0)[:, :, None]
    weights = distance.abs_().neg_().add_(1.0).clamp_min_(0.0).mul_(inside[:, None, :])
    return weights.div_(weights.sum(-1, keepdim=True))


def crop_resize_flip(images: Tensor, box: Tensor, flip: Tensor, size_px: int, antialias: bool) -> Tensor:
    """Returns (B, 3, size_px, size_px) float32: the box of each image, resized, mirrored where `flip` is set.

    The resize is separable, so each image has one matrix for its rows and one for its columns, and the batch
    takes two matrix products. A flip only reverses the rows of the second matrix and costs nothing. On a GPU
    that is allowed to multiply in TF32, values carry its rounding (5e-4).

    Args:
        images: (B, 3, H, W) float32.
        box: (B, 4) int64, top, left, height, width, inside the image.
        flip: (B,) bool.
        size_px: height and width of the output.
        antialias: as in torchvision's resized_crop.

    Source: torchvision.transforms.v2.functional.resized_crop, then horizontal_flip.
    """
    batch, channels, height, width = images.shape
    top, left, box_height, box_width = box.to(images.device, non_blocking=True).unbind(1)
    forward = torch.arange(size_px, device=images.device).expand(batch, -1)
    mirrored = torch.where(flip.to(images.device, non_blocking=True)[:, None], size_px - 1 - forward, forward)
    rows = resize_weights(top, box_height, forward, height, size_px, antialias)
    columns = resize_weights(left, box_width, mirrored, width, size_px, antialias)
    # Height first: then both products run over the images as they lie, without one matrix a channel.
    lines = images.transpose(1, 2).reshape(batch, height, channels * width)
    lines = torch.bmm(rows, lines).view(batch, size_px * channels, width)
    pixels = torch.bmm(lines, columns.transpose(1, 2))
    return pixels.view(batch, size_px, channels, size_px).transpose(1, 2).contiguous()


class RandomResizedCropFlip(GeometricAugmentationBase2D):
    """Crops a random box of every image, resizes it to a square and flips it at random.

    The flip is part of the crop because it costs nothing there.

    Args:
        size_px: height and width of the output.
        scale: smallest and largest area of the box, as a fraction of the image's.
        ratio: smallest and largest width / height of the box.
        flip_p: probability of a horizontal flip.
        antialias: whether the resize filters what it shrinks.
    """

    def __init__(
        self,
        size_px: int,
        scale: tuple[float, float],
        ratio: tuple[float, float],
        flip_p: float,
        antialias: bool,
    ) -> None:
        super().__init__(p=1.0)
        self._param_generator = CropFlipGenerator(scale, ratio, flip_p)
        self.flags = {"size_px": size_px, "antialias": antialias}

    def compute_transformation(self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any]) -> Tensor:
        """Returns (B, 3, 3): pixel centres (x, y, 1) of the input to those of the output."""
        box = params["box"].to(input.device, input.dtype, non_blocking=True)
        flip = params["flip"].to(input.device, non_blocking=True)
        corner, scale = box[:, :2], flags["size_px"] / box[:, 2:]
        # Pixels are squares around their centres: the edge at -0.5 maps to -0.5.
        shift = (0.5 - corner) * scale - 0.5
        matrix = torch.zeros(len(box), 3, 3, device=input.device, dtype=input.dtype)
        matrix[:, 0, 0] = torch.where(flip, -scale[:, 1], scale[:, 1])
        matrix[:, 0, 2] = torch.where(flip, flags["size_px"] - 1 - shift[:, 1], shift[:, 1])
        matrix[:, 1, 1] = scale[:, 0]
        matrix[:, 1, 2] = shift[:, 0]
        matrix[:, 2, 2] = 1.0
        return matrix

    def apply_transform(
        self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        """Returns (B, 3, size_px, size_px), see `crop_resize_flip`."""
        return crop_resize_flip(input, params["box"], params["flip"], flags["size_px"], flags["antialias"])
