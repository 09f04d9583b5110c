"""RGB pixels of a given size from one picture of any kind."""

import io
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ssl_adapt.errors import UserError

# Those of torchvision's IMG_EXTENSIONS, and GIF, whose files often have another format's extension. All other formats
# of Pillow are refused whatever the file's name: above all EPS, for which Pillow starts ghostscript.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "PPM", "GIF")


def decode_pixels(content: bytes, image_px: int) -> Tensor:
    """The pixels of a file, as `rgb_pixels` gives them; the first picture where there are several.

    Raises:
        ValueError: it is empty, in none of the formats, or has more pixels than `PIL.Image.MAX_IMAGE_PIXELS`,
            which is found before they take memory.
        Exception: Pillow's errors on a broken file, which are of many kinds.
    """
    if not content:
        raise UserError("it is empty")
    with _open(content) as image:
        width, height = image.size
        limit = Image.MAX_IMAGE_PIXELS
        if limit is not None and width * height > limit:
            raise UserError(f"it has {width:,} x {height:,} pixels, more than {limit:,}")
        return rgb_pixels(image, image_px)


@contextmanager
def without_pillow_warnings() -> Iterator[None]:
    """Hides Pillow's warnings about files that it can read; for one thread only."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def _open(content: bytes) -> Image.Image:
    """The same as Image.open without its check of the size, which warns and does not name the size."""
    Image.init()
    for name in _FORMATS:
        factory, accepts = Image.OPEN[name]
        if accepts is not None and accepts(content[:16]) is True:
            try:
                return factory(io.BytesIO(content), "")
            except (SyntaxError, IndexError, TypeError, struct.error):  # those that Image.open expects
                raise UserError(f"a {name} file with a damaged header") from None
    raise UserError("no image format")


def rgb_pixels(image: Image.Image, image_px: int) -> Tensor:
    """RGB pixels, uint8 (3, image_px, image_px): shorter side resized (bilinear, antialiased), centre kept.

    An RGB picture that already has the size keeps its bytes. Alpha is dropped and EXIF orientation ignored,
    as in timm's and torchvision's image folders, so that a model sees the same pixels when it is used with
    these later. Integer grey of more than 8 bits is read as 16 bits, 0..65535 -> 0..255.

    Raises:
        ValueError: a floating-point picture, whose range is unknown.
    """
    # Resamples the central square alone: resizing the whole and cropping after would round the crop's edges
    # to whole pixels, and could need gigabytes for a picture that is long and thin.
    square = ImageOps.fit(_to_rgb(image), (image_px, image_px), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(square)).permute(2, 0, 1)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode == "F":
        raise UserError("floating-point pixels, save the picture with 8 or 16 bits a channel instead")
    if image.mode == "I" or image.mode.startswith("I;16"):
        # Pillow's own conversion clips at 255 where it should scale.
        grey = np.asarray(image).astype(np.float64).clip(0, 65535) / 257
        return Image.fromarray(grey.round().astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # the same colours, without a warning for every file
    return image.convert("RGB")
