"""What any picture becomes: RGB of the size asked for, or an error that names the file."""

import io
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from image_folders import PX, all_images, image_bytes, noise
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms import functional as transforms

from ssl_adapt.data import load_image_splits
from ssl_adapt.data.image_set import ArrayImages
from ssl_adapt.data.pixels import decode_pixels, rgb_pixels


def test_rgb_of_the_right_size_keeps_its_bytes() -> None:
    array = noise(PX, PX)
    assert np.array_equal(rgb_pixels(Image.fromarray(array), PX).permute(1, 2, 0).numpy(), array)


@pytest.mark.parametrize("shape", [(5, PX, PX), (5, PX, PX, 3)])
def test_pictures_of_the_right_size_are_those_that_come_one_by_one(shape: tuple[int, ...]) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    images = ArrayImages(pictures, PX)
    at_once = images.at_once()
    assert at_once is not None
    assert at_once.is_contiguous()
    assert torch.equal(at_once, torch.stack([images[index] for index in range(len(images))]))
    none = ArrayImages(pictures[:0], PX).at_once()
    assert none is not None
    assert none.shape == (0, 3, PX, PX)
    assert ArrayImages(pictures, PX - 1).at_once() is None


GREY = noise(PX, PX)[..., 0]
COLOUR = noise(PX, PX)
KINDS: list[tuple[str, Image.Image, NDArray[np.uint8]]] = [
    ("greyscale", Image.fromarray(GREY), np.stack([GREY] * 3, -1)),
    ("grey with alpha", Image.fromarray(np.stack([GREY, 255 - GREY], -1), "LA"), np.stack([GREY] * 3, -1)),
    ("16 bits", Image.fromarray(GREY.astype(np.uint16) * 257), np.stack([GREY] * 3, -1)),
    ("32 bits", Image.fromarray(GREY.astype(np.int32) * 257), np.stack([GREY] * 3, -1)),
    ("black and white", Image.fromarray(GREY > 99), np.stack([(GREY > 99) * np.uint8(255)] * 3, -1)),
    ("alpha", Image.fromarray(np.concatenate([COLOUR, GREY[..., None]], -1)), COLOUR),
    ("CMYK", Image.fromarray(np.concatenate([255 - COLOUR, GREY[..., None] * 0], -1), "CMYK"), COLOUR),
]


@pytest.mark.parametrize(("image", "expected"), [kind[1:] for kind in KINDS], ids=[kind[0] for kind in KINDS])
def test_every_kind_of_picture_becomes_rgb(image: Image.Image, expected: NDArray[np.uint8]) -> None:
    assert np.array_equal(rgb_pixels(image, PX).permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize("transparent", [False, True])
def test_palettes_become_rgb_without_a_warning(tmp_path: Path, transparent: bool) -> None:
    colours = np.array([[250, 10, 20], [30, 240, 50]], dtype=np.uint8)
    chosen = noise(PX, PX)[..., 0] % 2
    image = Image.fromarray(chosen, "P")
    image.putpalette(colours.tobytes())
    image.save(tmp_path / "a.png", **({"transparency": bytes([0, 128])} if transparent else {}))
    with warnings.catch_warnings(), Image.open(tmp_path / "a.png") as palette:
        warnings.simplefilter("error")
        assert palette.mode == "P"
        assert np.array_equal(rgb_pixels(palette, PX).permute(1, 2, 0).numpy(), colours[chosen])


def as_ycck(cmyk_jpeg: bytes) -> bytes:
    """The same bytes, read as luma, two chromas and black: the last byte of Adobe's mark says which it is."""
    place = cmyk_jpeg.index(b"Adobe") + 11
    return cmyk_jpeg[:place] + b"\2" + cmyk_jpeg[place + 1 :]


RED, GREEN = Image.new("RGB", (PX, PX), (255, 0, 0)), Image.new("RGB", (PX, PX), (0, 255, 0))
INKS = image_bytes(Image.new("CMYK", (PX, PX), (100, 150, 200, 0)), "JPEG")
PALETTE = RED.quantize(2)
FILES: dict[str, tuple[bytes, tuple[int, int, int]]] = {
    "GIF, animated": (image_bytes(RED, "GIF", save_all=True, append_images=[GREEN]), (255, 0, 0)),
    "PNG, animated": (image_bytes(RED, "PNG", save_all=True, append_images=[GREEN]), (255, 0, 0)),
    "WebP, animated": (
        image_bytes(RED, "WEBP", save_all=True, append_images=[GREEN], lossless=True),
        (255, 0, 0),
    ),
    "TIFF of two pages": (image_bytes(RED, "TIFF", save_all=True, append_images=[GREEN]), (255, 0, 0)),
    "JPEG of two pictures": (image_bytes(RED, "MPO", save_all=True, append_images=[GREEN]), (254, 0, 0)),
    "GIF, transparent": (image_bytes(PALETTE, "GIF", transparency=0), (255, 0, 0)),
    "PNG, transparent palette": (image_bytes(PALETTE, "PNG", transparency=b"\0"), (255, 0, 0)),
    "JPEG, CMYK": (INKS, (155, 105, 55)),
    # Stored are 255 - ink: Y, Cb, Cr = 155, 105, 55, of which ITU-R BT.601 makes the inks 53, 215, 114.
    "JPEG, YCCK": (as_ycck(INKS), (202, 40, 141)),
    "TIFF, CMYK, packed": (
        image_bytes(Image.new("CMYK", (PX, PX), (100, 150, 200, 0)), "TIFF", compression="tiff_lzw"),
        (155, 105, 55),
    ),
    "PGM, 16 bits": (b"P5 8 8 65535\n" + struct.pack(">H", 257 * 77) * 64, (77, 77, 77)),
    "PPM, text": (b"P3 1 1 255\n1 2 3\n", (1, 2, 3)),
    "PNG, 16 bits": (image_bytes(Image.new("I;16", (PX, PX), 257 * 77), "PNG"), (77, 77, 77)),
    "TIFF, 16 bits, big end first": (image_bytes(Image.new("I;16B", (PX, PX), 257 * 77), "TIFF"), (77, 77, 77)),
    "PNG, 1 bit": (image_bytes(Image.new("1", (PX, PX), 1), "PNG"), (255, 255, 255)),
    "TIFF, 1 bit, as a fax": (image_bytes(Image.new("1", (PX, PX), 1), "TIFF", compression="group4"), (255, 255, 255)),
    "BMP of 65,500 x 1": (image_bytes(Image.new("RGB", (65_500, 1), (1, 2, 3)), "BMP"), (1, 2, 3)),
    "PNG of 1 x 65,500": (image_bytes(Image.new("RGB", (1, 65_500), (1, 2, 3)), "PNG"), (1, 2, 3)),
}


@pytest.mark.parametrize(("content", "colour"), FILES.values(), ids=FILES)
def test_every_kind_of_file_becomes_rgb(content: bytes, colour: tuple[int, int, int]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pixels = decode_pixels(content, PX)
    assert torch.equal(pixels, torch.tensor(colour, dtype=torch.uint8)[:, None, None].expand(3, PX, PX))


@pytest.mark.parametrize("side", [1, 5, 8, 9, 40])
def test_squares_are_resized_as_torchvision_does(side: int) -> None:
    image = Image.fromarray(noise(side, side))
    assert torch.equal(rgb_pixels(image, PX), transforms.pil_to_tensor(transforms.resize(image, PX)))


@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize(("shorter", "longer"), [(20, 33), (6, 11), (8, 13), (8, 12)])
def test_the_centre_of_the_longer_side_is_kept(shorter: int, longer: int, wide: bool) -> None:
    ramp = np.broadcast_to(4 * np.arange(longer)[None, :, None], (shorter, longer, 3)).astype(np.uint8)
    image = Image.fromarray(ramp if wide else ramp.swapaxes(0, 1))
    pixels = rgb_pixels(image, PX).float()
    # Bilinear interpolation reproduces a ramp: its value where the centre of every new pixel lies.
    places = (longer - shorter) / 2 + (torch.arange(PX) + 0.5) * shorter / PX - 0.5
    expected = (4 * places).expand(3, PX, PX)
    torch.testing.assert_close(pixels, expected if wide else expected.mT, atol=1, rtol=0)


def test_long_and_thin_pictures_need_little_memory() -> None:
    assert rgb_pixels(Image.new("RGB", (200_000, 1), (1, 2, 3)), 256).float().mean((1, 2)).tolist() == [
        1,
        2,
        3,
    ]


def test_floating_point_pictures_are_refused() -> None:
    with pytest.raises(ValueError, match="floating-point"):
        rgb_pixels(Image.fromarray(np.zeros((PX, PX), np.float32)), PX)


def images_or_message(folder: Path) -> torch.Tensor | str:
    try:
        return all_images(load_image_splits("folder", root=folder, image_px=PX).train)
    except ValueError as error:
        return str(error)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF", "WEBP"])
def test_damaged_bytes_give_pixels_or_the_name(tmp_path: Path, kind: str) -> None:
    draw = np.random.default_rng(0)
    file = io.BytesIO()
    Image.fromarray(noise(15, 17)).save(file, format=kind)
    (tmp_path / "a.png").write_bytes(file.getvalue())
    outcomes = []
    for _ in range(60):
        content = np.frombuffer(file.getvalue(), dtype=np.uint8).copy()
        content[draw.integers(0, len(content), 3)] = draw.integers(0, 256, 3)
        (tmp_path / "b.png").write_bytes(content[: draw.integers(len(content) // 2, 2 * len(content))].tobytes())
        outcomes.append(images_or_message(tmp_path))
    images = [outcome for outcome in outcomes if isinstance(outcome, torch.Tensor)]
    messages = [outcome for outcome in outcomes if isinstance(outcome, str)]
    assert all(image.shape == (2, 3, PX, PX) for image in images)
    assert all(f"cannot read the image 'b.png' in {tmp_path}" in message for message in messages)
    assert len(messages) >= 5
    assert len(images) + len(messages) == 60
