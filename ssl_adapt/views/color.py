"""Colour jitter and grayscale of a whole batch, with the same result as torchvision's for every image."""

from typing import Any

import torch
from kornia.augmentation import IntensityAugmentationBase2D
from kornia.augmentation.random_generator.base import RandomGeneratorBase
from torch import Tensor

# Number of each operation in an order and in the columns of the factors, as torchvision numbers them.
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
BLENDS = 3  # all but the hue

TINY = 1e-30  # far below any chroma that differs from 0 in float32 pixels of an image, and not 0 to divide by


def luma(images: Tensor) -> Tensor:
    """Returns the (N, 1, H, W) gray of RGB images (N, 3, H, W).

    Source: torchvision.transforms.functional.rgb_to_grayscale (its 0.2989, where kornia has 0.299).
    """
    red, green, blue = images.split(1, dim=1)
    gray: Tensor = (red * 0.2989).add_(green, alpha=0.587).add_(blue, alpha=0.114)
    return gray


def blend_(images: Tensor, kept: Tensor, gray_share: Tensor, mean_share: Tensor) -> Tensor:
    """Returns `images` (N, 3, H, W), changed in place: blended with their gray or its mean, cut to [0, 1].

    x becomes kept * x + gray_share * gray + mean_share * mean(gray). Brightness, contrast and saturation by a
    factor f are all such a blend: kept is f, and 1 - f goes to black, to the mean gray or to the gray. So one
    call serves images of all three kinds.

    Args:
        images: float32 in [0, 1].
        kept: (N, 1, 1, 1), as are `gray_share` and `mean_share`.
        gray_share: share of each pixel's own gray.
        mean_share: share of the image's mean gray.

    Source: torchvision.transforms.functional.adjust_brightness, adjust_contrast, adjust_saturation.
    """
    gray = luma(images)
    mean = gray.mean((2, 3), keepdim=True)
    reference = gray.mul_(gray_share).add_(mean.mul_(mean_share))
    return torch.addcmul(reference, images, kept, out=images).clamp_(0.0, 1.0)


def rotate_hue_(images: Tensor, turns: Tensor) -> Tensor:
    """Returns `images` (N, 3, H, W), changed in place: the hue rotated, highest and lowest channel kept.

    With p = (rgb - low) / chroma, the hue in sixths of a turn is +-(1 - p_red + p_green + p_blue), negative
    where blue exceeds green; and back, rgb = low + chroma * clamp(offset + slope * |hue - centre|, 0, 1).
    These closed forms need no case for each sixth of the circle, which makes a conversion to HSV slow.

    Args:
        images: float32 in [0, 1].
        turns: (N, 1, 1, 1) rotation in turns, -0.5..0.5.

    Source: the same function as torchvision.transforms.functional.adjust_hue.
    """
    red, green, blue = images.split(1, dim=1)
    low = torch.minimum(torch.minimum(red, green), blue)
    high = torch.maximum(torch.maximum(red, green), blue)
    chroma = high - low
    hue = (green + blue).sub_(red).add_(high).sub_(low, alpha=2.0)
    # Where chroma is 0 the hue is 0 too, any value would do: the chroma is what it gets multiplied by.
    hue.div_((chroma * 6.0).clamp_min_(TINY)).copysign_(green - blue).add_(turns)
    hue.sub_(hue.floor()).mul_(6.0)
    # Numbers rather than a tensor of them: nothing has to be copied to a GPU.
    for channel, centre, slope, offset in (
        (red, 3.0, 1.0, -1.0),
        (green, 2.0, -1.0, 2.0),
        (blue, 4.0, -1.0, 2.0),
    ):
        share = (hue - centre).abs_().mul_(slope).add_(offset).clamp_(0.0, 1.0)
        torch.addcmul(low, chroma, share, out=channel)
    return images


def jitter_colors(images: Tensor, factors: Tensor, order: Tensor, chosen: Tensor) -> Tensor:
    """Returns (N, 3, H, W): the chosen images after their four operations in their own order, others as is.

    Three of the four are blends, so what happens to an image is: some blends, the hue, the other blends.
    Sorted by the number of blends that come first, the images that share a step are a slice: every step runs
    on just the images that have it, without masks or copies. The sorting happens on the CPU, where the
    parameters were drawn, so that there is no waiting for a GPU.

    Args:
        images: (N, 3, H, W) float32 in [0, 1], left unchanged.
        factors: (N, 4) on the CPU, columns as BRIGHTNESS, CONTRAST, SATURATION, HUE.
        order: (N, 4) int64 on the CPU, each row a permutation of the four, first to last.
        chosen: (N,) bool on the CPU.

    Source: torchvision.transforms.ColorJitter.forward on float tensors.
    """
    blends_first = (order == HUE).int().argmax(1)
    index = blends_first.argsort(descending=True)
    index = index[chosen[index]]
    factors, order = factors[index], order[index]
    counts = [int((blends_first[index] > step).sum()) for step in range(BLENDS)]

    blends = order[order != HUE].view(-1, BLENDS)
    kept = factors.gather(1, blends)
    shares = torch.stack([kept, (1 - kept) * (blends == SATURATION), (1 - kept) * (blends == CONTRAST)])
    shares = shares[..., None, None, None].to(images.device, non_blocking=True)
    turns = factors[:, HUE, None, None, None].to(images.device, non_blocking=True)
    index = index.to(images.device, non_blocking=True)

    jittered = images.index_select(0, index)
    for step, count in enumerate(counts):
        blend_(jittered[:count], *shares[:, :count, step])
    rotate_hue_(jittered, turns)
    for step, count in enumerate(counts):
        blend_(jittered[count:], *shares[:, count:, step])
    return images.index_copy(0, index, jittered)


class JitterGenerator(RandomGeneratorBase):
    """Draws which images are jittered, and for every image the four factors and the order of the operations.

    Draws come from torch's CPU generator whatever the device of the images: the same seed then gives the same
    views everywhere.

    Args:
        strength: brightness, contrast, saturation and hue: factors are uniform within this distance of 1, cut
            at 0; the hue, in turns, within this distance of 0.
        p: probability that an image is jittered.

    Source: torchvision.transforms.ColorJitter.get_params, inside RandomApply.
    """

    def __init__(self, strength: tuple[float, float, float, float], p: float) -> None:
        super().__init__()
        self.strength = strength
        self.p = p

    def __repr__(self) -> str:
        return f"strength={self.strength}, p={self.p}"

    def make_samplers(self, device: torch.device, dtype: torch.dtype) -> None:
        """Does nothing: there is no sampler to move to `device`."""

    def forward(self, batch_shape: tuple[int, ...], same_on_batch: bool = False) -> dict[str, Tensor]:
        """Returns "chosen" (B,) bool, "factors" (B, 4) float32, "order" (B, 4) int64, see `jitter_colors`."""
        batch = batch_shape[0]
        draws = 1 if same_on_batch else batch
        strength = torch.tensor(self.strength)
        neutral = torch.tensor([1.0, 1.0, 1.0, 0.0])
        low = neutral - strength
        low[:HUE].clamp_min_(0.0)
        factors = torch.lerp(low, neutral + strength, torch.rand(draws, 4))
        order = torch.rand(draws, 4).argsort(1)
        chosen = torch.rand(draws) < self.p
        return {
            "chosen": chosen.expand(batch),
            "factors": factors.expand(batch, 4),
            "order": order.expand(batch, 4),
        }


class ImagewiseColorJitter(IntensityAugmentationBase2D):
    """Jitters brightness, contrast, saturation and hue, in an order that each image draws for itself.

    The probability belongs to the generator: kornia's own `p` would jitter every image and choose afterwards.

    Args:
        strength: brightness, contrast, saturation, hue, see `JitterGenerator`.
        p: probability that an image is jittered at all.
    """

    def __init__(self, strength: tuple[float, float, float, float], p: float) -> None:
        super().__init__(p=1.0)
        self._param_generator = JitterGenerator(strength, p)

    def apply_transform(
        self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        """Returns (B, 3, H, W), see `jitter_colors`; `input` is float32 in [0, 1]."""
        return jitter_colors(input, params["factors"], params["order"], params["chosen"])


class GrayscaleGenerator(RandomGeneratorBase):
    """Draws which images turn gray, on the CPU.

    Args:
        p: probability that an image turns gray.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def __repr__(self) -> str:
        return f"p={self.p}"

    def make_samplers(self, device: torch.device, dtype: torch.dtype) -> None:
        """Does nothing: there is no sampler to move to `device`."""

    def forward(self, batch_shape: tuple[int, ...], same_on_batch: bool = False) -> dict[str, Tensor]:
        """Returns "chosen" (B,) bool."""
        draws = 1 if same_on_batch else batch_shape[0]
        return {"chosen": (torch.rand(draws) < self.p).expand(batch_shape[0])}


class ImagewiseGrayscale(IntensityAugmentationBase2D):
    """Turns images gray, with torchvision's weights (kornia's differ in the fourth digit).

    Args:
        p: probability that an image turns gray.
    """

    def __init__(self, p: float) -> None:
        super().__init__(p=1.0)
        self._param_generator = GrayscaleGenerator(p)

    def apply_transform(
        self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        """Returns (B, 3, H, W), the chosen images with three equal channels."""
        index = params["chosen"].nonzero().squeeze(1).to(input.device, non_blocking=True)
        gray = luma(input.index_select(0, index))
        return input.index_copy(0, index, gray.expand(-1, 3, -1, -1))
