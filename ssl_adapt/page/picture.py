"""Pictures that lie inside the page, as data: URIs."""

import base64
import io

from PIL import Image
from torch import Tensor

MOST_PX = 64  # side of a picture, at most: larger ones are made smaller
LOSSLESS = 101


def picture_uri(pixels: Tensor, quality: int = 90, most_px: int = MOST_PX) -> str:
    """An image, uint8 (3, H, W), as a data: URI of WebP, at most `most_px` wide and high.

    Lossy WebP takes a third to a sixth of the bytes of lossless WebP or PNG, and halves the resolution of colours.
    """
    image = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    image.thumbnail((most_px, most_px))
    file = io.BytesIO()
    image.save(file, "WEBP", lossless=quality == LOSSLESS, quality=min(quality, 100))
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
