"""The view of self-supervised learning: resized crop, flip, colour jitter, grayscale, blur, solarise."""

from dataclasses import dataclass
from typing import Any

from kornia.augmentation import RandomGaussianBlur, RandomSolarize

from ssl_adapt.errors import UserError
from ssl_adapt.views.color import ImagewiseColorJitter, ImagewiseGrayscale
from ssl_adapt.views.crop import RandomResizedCropFlip
from ssl_adapt.views.view import View

BLUR_SHARE = 0.1  # of the side of a view: the side of the blur's kernel
SOLARIZE_ABOVE = 0.5  # pixels above it are inverted


@dataclass(frozen=True)
class ResizedCropSettings:
    """The parameters of a view. Those that change results have no default, unless the default turns them off.

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
        blur_p: probability of the Gaussian blur, with a kernel of a tenth of the view's side; 0: no blur.
        blur_sigma: smallest and largest standard deviation of the blur, in pixels.
        solarize_p: probability of inverting the pixels above 0.5; 0: never.

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
    blur_p: float = 0.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarize_p: float = 0.0

    def __post_init__(self) -> None:
        names = ("flip_p", "jitter_p", "grayscale_p", "blur_p", "solarize_p")
        rules = [
            ("size_px", "a whole number of at least 1", self.size_px >= 1),
            ("crop_scale", "(low, high) with 0 < low <= high <= 1", _is_range(self.crop_scale, 1.0)),
            ("crop_ratio", "(low, high) with 0 < low <= high", _is_range(self.crop_ratio, float("inf"))),
            ("blur_sigma", "(low, high) with 0 < low <= high", _is_range(self.blur_sigma, float("inf"))),
            *((name, "a probability in 0..1", 0 <= getattr(self, name) <= 1) for name in names),
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
                raise UserError(f"{name} must be {meaning}, got {getattr(self, name)!r}")


def _is_range(pair: tuple[float, float], largest: float) -> bool:
    return len(pair) == 2 and 0 < pair[0] <= pair[1] <= largest


def resized_crop_view(settings: ResizedCropSettings) -> View:
    """The view that the settings describe.

    Source: SimCLR (Chen et al. 2020), appendix A, without blur as github.com/leftthomas/SimCLR for CIFAR-10; blur and
    solarise as in BYOL (Grill et al. 2020), appendix B. Crop, jitter and grayscale equal torchvision's on float tensors
    at equal parameters, and as there every image draws its own order of the four jitter operations; blur and solarise
    are kornia's.
    """
    s = settings
    augmentations: list[Any] = [
        RandomResizedCropFlip(s.size_px, s.crop_scale, s.crop_ratio, s.flip_p, s.antialias),
        ImagewiseColorJitter(s.jitter, p=s.jitter_p),
        ImagewiseGrayscale(p=s.grayscale_p),
    ]
    if s.blur_p > 0:
        side = max(3, round(BLUR_SHARE * s.size_px) | 1)  # odd
        augmentations.append(RandomGaussianBlur((side, side), s.blur_sigma, p=s.blur_p))
    if s.solarize_p > 0:
        augmentations.append(RandomSolarize((SOLARIZE_ABOVE, SOLARIZE_ABOVE), (0.0, 0.0), p=s.solarize_p))
    return View(augmentations, mean=s.mean, std=s.std)
