"""A batch of images becomes two augmented views: the SimCLR recipe, on the device of the images."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ssl_adapt.views.color import ImagewiseColorJitter, ImagewiseGrayscale
from ssl_adapt.views.crop import RandomResizedCropFlip
from ssl_adapt.views.images import check_images

__all__ = [
    "ImagewiseColorJitter",
    "ImagewiseGrayscale",
    "RandomResizedCropFlip",
    "SimclrViews",
    "ViewSettings",
]


@dataclass(frozen=True)
class ViewSettings:
    """What is drawn for a view. Every field changes results, so none has a default.

    Args:
        size_px: height and width of a view.
        crop_scale: smallest and largest area of the crop, as a fraction of the image's, within (0, 1].
        crop_ratio: smallest and largest width / height of the crop.
        antialias: whether the resize filters what it shrinks (PIL always does).
        flip_p: probability of a horizontal flip.
        jitter: strength of brightness, contrast, saturation and hue (hue in turns, at most 0.5).
        jitter_p: probability of the jitter.
        grayscale_p: probability of turning gray.
        mean: per channel, of pixels in [0, 1], taken off at the end.
        std: per channel, divided by at the end.

    Raises:
        ValueError: a value is outside its range; the message says which and what the range is.
    """

    size_px: int
    crop_scale: tuple[float, float]
    crop_ratio: tuple[float, float]
    antialias: bool
    flip_p: float
    jitter: tuple[float, float, float, float]
    jitter_p: float
    grayscale_p: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        probabilities = (self.flip_p, self.jitter_p, self.grayscale_p)
        rules = [
            ("size_px", "a whole number of at least 1", self.size_px >= 1),
            ("crop_scale", "(low, high) with 0 < low <= high <= 1", _is_range(self.crop_scale, 1.0)),
            ("crop_ratio", "(low, high) with 0 < low <= high", _is_range(self.crop_ratio, float("inf"))),
            *(
                (name, "a probability in 0..1", 0 <= value <= 1)
                for name, value in zip(("flip_p", "jitter_p", "grayscale_p"), probabilities, strict=True)
            ),
            (
                "jitter",
                "four numbers (brightness, contrast, saturation, hue), none negative, hue at most 0.5",
                len(self.jitter) == 4 and min(self.jitter) >= 0 and self.jitter[3] <= 0.5,
            ),
            ("mean", "three numbers", len(self.mean) == 3),
            ("std", "three numbers above 0", len(self.std) == 3 and min(self.std) > 0),
        ]
        for name, meaning, holds in rules:
            if not holds:
                raise ValueError(f"{name} must be {meaning}, got {getattr(self, name)!r}")


def _is_range(pair: tuple[float, float], largest: float) -> bool:
    return len(pair) == 2 and 0 < pair[0] <= pair[1] <= largest


class SimclrViews(nn.Module):
    """Two independent random views of every image: crop, flip, colour jitter, grayscale, normalise.

    All draws come from torch's CPU generator, once per view and call, so that restoring its state repeats the
    views, on any device.

    Args:
        settings: what is drawn.

    Source: SimCLR (Chen et al. 2020), appendix A, without blur, as github.com/leftthomas/SimCLR for CIFAR-10.
    Each operation equals torchvision's on float tensors at equal parameters, and as there every image draws
    its own order of the four jitter operations.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, settings: ViewSettings) -> None:
        super().__init__()
        self.settings = settings
        # In a tuple they are no submodules: `to(device)` would move their random draws to that device.
        self.operations = (
            RandomResizedCropFlip(
                settings.size_px,
                settings.crop_scale,
                settings.crop_ratio,
                settings.flip_p,
                settings.antialias,
            ),
            ImagewiseColorJitter(settings.jitter, p=settings.jitter_p),
            ImagewiseGrayscale(p=settings.grayscale_p),
        )
        self.register_buffer("mean", torch.tensor(settings.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(settings.std).view(3, 1, 1), persistent=False)

    def extra_repr(self) -> str:
        """Returns the settings, for `print`."""
        return str(self.settings)

    @torch.no_grad()
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Returns two views, each (B, 3, size_px, size_px) float32, normalised, on the device of the images.

        Args:
            images: (B, 3, H, W) uint8 in 0..255, any H and W.

        Raises:
            ValueError: the images are not uint8 or not of that shape; the message says what to pass.
        """
        check_images(images)
        with torch.autocast(images.device.type, enabled=False):
            # In memory line by line, as the crop reads them: otherwise each view would have to copy them.
            lines = images.transpose(1, 2).contiguous().to(torch.float32).div_(255.0)
            pixels = lines.transpose(1, 2)
            return self._view(pixels), self._view(pixels)

    def _view(self, pixels: Tensor) -> Tensor:
        for operation in self.operations:
            pixels = operation(pixels)
        device = pixels.device
        return pixels.sub_(self.mean.to(device)).div_(self.std.to(device))
