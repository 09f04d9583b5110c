"""One picture of any kind -> RGB pixels of the size asked for."""

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor


def rgb_pixels(image: Image.Image, image_px: int) -> Tensor:
    """RGB pixels, uint8 (3, image_px, image_px): shorter side resized (bilinear, antialiased), centre kept.

    An RGB picture that already has the size keeps its bytes. Alpha is dropped and EXIF orientation ignored,
    as timm's and torchvision's image folders do, so that a model sees the same pixels when it is used with
    them later. Integer grey of more than 8 bits is read as 16 bits, 0..65535 -> 0..255.

    Raises:
        ValueError: a floating-point picture, whose range nothing states.
    """
    # Resamples the central square alone: resizing the whole and cropping after would round the crop's edges
    # to whole pixels, and could need gigabytes for a picture that is long and thin.
    square = ImageOps.fit(_to_rgb(image), (image_px, image_px), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(square)).permute(2, 0, 1)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode == "F":
        raise ValueError("floating-point pixels, save the picture with 8 or 16 bits a channel instead")
    if image.mode == "I" or image.mode.startswith("I;16"):
        # Pillow's own conversion clips at 255 where it should scale.
        grey = np.asarray(image).astype(np.float64).clip(0, 65535) / 257
        return Image.fromarray(grey.round().astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # the same colours, without a warning for every file
    return image.convert("RGB")
