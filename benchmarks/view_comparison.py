"""Comparison of two random views of a batch: ours, torchvision's on PIL images, kornia's own operations."""

from typing import Any

import kornia.augmentation
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision import transforms

from benchmarks.timing import Comparison
from ssl_adapt.views import ResizedCropSettings, Views, resized_crop_view

Pair = tuple[Tensor, Tensor]


def compare_views(batch_size: int, *, device: torch.device, image_px: int = 32) -> Comparison:
    """Two views of every image under the settings of SimCLR for CIFAR-10."""
    settings = ResizedCropSettings(
        size_px=image_px,
        crop_scale=(0.08, 1.0),
        crop_ratio=(3 / 4, 4 / 3),
        antialias=True,
        flip_p=0.5,
        jitter=(0.4, 0.4, 0.4, 0.1),
        jitter_p=0.8,
        grayscale_p=0.2,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2023, 0.1994, 0.2010),
    )
    images = torch.randint(256, (batch_size, 3, image_px, image_px), dtype=torch.uint8)
    arrays = images.permute(0, 2, 3, 1).contiguous().numpy()  # as torchvision's CIFAR10 keeps them
    on_device = images.to(device)
    ours, pil = Views([resized_crop_view(settings)] * 2), create_pil_transform(settings)
    kornia_operations = create_kornia_operations(settings).to(device)

    def make_pil_views() -> Pair:
        pairs = [(pil(image), pil(image)) for image in map(Image.fromarray, arrays)]
        view_a, view_b = (torch.stack(views).to(device) for views in zip(*pairs, strict=True))
        return view_a, view_b

    @torch.no_grad()
    def make_kornia_views() -> Pair:
        pixels = on_device.float() / 255
        return kornia_operations(pixels), kornia_operations(pixels)

    return Comparison(
        name=f"views: two of {image_px} px, batch {batch_size}",
        shows="how much faster views are made on the batch: the target is 10x torchvision on PIL images",
        contenders={
            "ours": lambda: ours(on_device),
            "torchvision on PIL images": make_pil_views,
            "kornia's own operations": make_kornia_views,
        },
        unit="images",
        units_per_call=batch_size,
        notes=(
            "all in this one process; PIL includes Image.fromarray and the stacking to a batch",
            "kornia's does less: one order of the jitter for the whole batch, no antialiasing",
        ),
    )


def create_pil_transform(settings: ResizedCropSettings) -> Any:
    """torchvision's transform (v1) from a PIL image to a view (3, size_px, size_px)."""
    return transforms.Compose(
        [
            transforms.RandomResizedCrop(settings.size_px, settings.crop_scale, settings.crop_ratio),
            transforms.RandomHorizontalFlip(settings.flip_p),
            transforms.RandomApply([transforms.ColorJitter(*settings.jitter)], settings.jitter_p),
            transforms.RandomGrayscale(settings.grayscale_p),
            transforms.ToTensor(),
            transforms.Normalize(settings.mean, settings.std),
        ]
    )


def create_kornia_operations(settings: ResizedCropSettings) -> nn.Sequential:
    """kornia's operations that agree with torchvision's; pixels (B, 3, H, W) in [0, 1] -> views."""
    size = (settings.size_px, settings.size_px)
    crop = kornia.augmentation.RandomResizedCrop(
        size, settings.crop_scale, settings.crop_ratio, cropping_mode="slice", align_corners=False
    )
    return nn.Sequential(
        crop,
        kornia.augmentation.RandomHorizontalFlip(settings.flip_p),
        kornia.augmentation.ColorJitter(*settings.jitter, p=settings.jitter_p),
        kornia.augmentation.RandomGrayscale(p=settings.grayscale_p),
        kornia.augmentation.Normalize(torch.tensor(settings.mean), torch.tensor(settings.std)),
    )
