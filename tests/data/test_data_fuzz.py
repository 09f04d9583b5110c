"""Random bytes, and damaged images and tars: pixels or files come out, or a ValueError of one sentence, never more."""

import io
import tarfile
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from image_folders import PX, image_bytes, member, noise, png, write_tar
from PIL import Image

from ssl_adapt.data.image_dataset import FileImages
from ssl_adapt.data.image_source import open_image_files
from ssl_adapt.data.pixels import without_pillow_warnings

PICTURE = Image.fromarray(noise(15, 17))
TWO_PICTURES = {"save_all": True, "append_images": [Image.fromarray(noise(15, 17, seed=1))]}
IMAGES = [
    *(image_bytes(PICTURE, kind) for kind in ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM")),
    *(image_bytes(PICTURE, kind, **TWO_PICTURES) for kind in ("PNG", "GIF", "WEBP", "TIFF", "MPO")),
    image_bytes(PICTURE, "JPEG", progressive=True),
    image_bytes(PICTURE.quantize(16), "PNG", transparency=b"\0\x80"),
    image_bytes(PICTURE.convert("CMYK"), "JPEG"),
    *(image_bytes(PICTURE, "TIFF", compression=kind) for kind in ("tiff_lzw", "tiff_deflate", "jpeg", "packbits")),
    image_bytes(PICTURE.convert("1"), "TIFF", compression="group4"),
]


def tars() -> list[bytes]:
    members = [
        ("a/0.png", png()),
        member("a", kind=tarfile.DIRTYPE),
        member("a/1.png", kind=tarfile.SYMTYPE, target="0.png"),
        ("é" * 120 + ".png", png(1)),
    ]
    with tempfile.TemporaryDirectory() as folder:
        modes = ("w", "w:gz", "w:bz2", "w:xz")
        return [write_tar(Path(folder) / "a.tar", *members, mode=mode).read_bytes() for mode in modes]


@st.composite
def damaged(draw: st.DrawFn, originals: list[bytes]) -> bytes:
    """One of the originals with up to four changes: bytes are flipped, cut, inserted, or come from another one."""
    content = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(content)))
        change = draw(st.sampled_from(["flip", "cut", "insert", "remove", "splice"]))
        if change == "flip" and place < len(content):
            content[place] = draw(st.integers(0, 255))
        elif change == "cut":
            del content[max(place, len(content) // 4) :]
        elif change == "insert":
            content[place:place] = draw(st.binary(max_size=8))
        elif change == "remove":
            del content[place : place + draw(st.integers(0, 8))]
        elif change == "splice":
            other = draw(st.sampled_from(originals))
            start = draw(st.integers(0, len(other)))
            content[place:] = other[start:]
    return bytes(content)


class OneFile:
    """A folder of one image whose bytes are given."""

    root, names, left_out = Path("there"), ("a.png",), {}

    def __init__(self, content: bytes) -> None:
        self._content = content

    def read(self, name: str, *, max_bytes: int) -> bytes:
        return self._content

    def all_names(self) -> list[str]:
        return ["a.png"]


def run(examples: int, contents: st.SearchStrategy[bytes], try_one: Callable[[bytes, int], bool]) -> Counter[str]:
    """How many of the examples were read, and how many refused; the few of the fast tests are always the same."""
    outcomes: Counter[str] = Counter()

    @settings(
        max_examples=examples,
        derandomize=examples < 1000,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(content=contents, image_px=st.sampled_from([1, PX, 33]))
    def run_one(content: bytes, image_px: int) -> None:
        outcomes["read" if try_one(content, image_px) else "refused"] += 1

    with without_pillow_warnings():
        run_one()
    return outcomes


Result = TypeVar("Result")


def result_or_message(make: Callable[[], Result]) -> Result | str:
    try:
        return make()
    except ValueError as error:
        return str(error)


def is_read_as_image(content: bytes, image_px: int) -> bool:
    images = FileImages(OneFile(content), ("a.png",), (None,), image_px, "error", {})
    pixels = result_or_message(lambda: images[0])
    if isinstance(pixels, str):
        assert pixels.startswith("cannot read the image 'a.png' in there (")
        assert pixels.endswith("): replace or remove it, or train with data.on_bad_image=replace")
        assert "\n" not in pixels
        return False
    assert pixels.dtype == torch.uint8
    assert pixels.shape == (3, image_px, image_px)
    return True


def is_read_as_tar(tar: Path, content: bytes) -> bool:
    tar.write_bytes(content)
    files = result_or_message(lambda: open_image_files(tar, memory_limit_bytes=2**20))
    if isinstance(files, str):
        assert files.startswith(f"data.root={tar} ")
        assert "\n" not in files
        return False
    assert all(files.read(name, max_bytes=2**20) is not None for name in files.names)
    assert not any(name.startswith(("/", "..")) for name in files.names)
    return True


def check_all(examples: int, folder: Path, record: object) -> None:
    random = st.binary(max_size=200)
    magic = st.tuples(st.sampled_from(IMAGES).map(lambda content: content[:16]), random).map(b"".join)

    def read_tar(content: bytes, image_px: int) -> bool:
        return is_read_as_tar(folder / "a.tar", content)

    outcomes = {
        "images": run(examples, damaged(IMAGES), is_read_as_image),
        "random images": run(examples // 3, st.one_of(random, magic), is_read_as_image),
        "tars": run(examples // 3, damaged(tars()), read_tar),
        "random tars": run(examples // 10, random, read_tar),
    }
    record("outcomes", {name: dict(counts) for name, counts in outcomes.items()})  # type: ignore[operator]
    print(outcomes)
    assert outcomes["images"].total() >= examples
    assert outcomes["tars"].total() >= examples // 3
    # Neither outcome is the only one, so that both were tried.
    assert min(outcomes["images"]["read"], outcomes["images"]["refused"]) > examples // 20
    assert min(outcomes["tars"]["read"], outcomes["tars"]["refused"]) > examples // 100
    assert outcomes["random images"]["refused"] > examples // 6


def test_damaged_images_and_tars(tmp_path: Path, record_property: object) -> None:
    check_all(300, tmp_path, record_property)


@pytest.mark.slow
def test_many_damaged_images_and_tars(tmp_path: Path, record_property: object) -> None:
    check_all(20_000, tmp_path, record_property)


def test_what_is_damaged_is_read_when_whole(tmp_path: Path) -> None:
    shapes = [FileImages(OneFile(content), ("a.png",), (None,), PX, "error", {})[0].shape for content in IMAGES]
    assert shapes == [(3, PX, PX)] * 20
    for number, content in enumerate(tars()):
        (tmp_path / f"{number}.tar").write_bytes(content)
        files = open_image_files(tmp_path / f"{number}.tar", memory_limit_bytes=2**20)
        assert [np.array(Image.open(io.BytesIO(files.read(n, max_bytes=2**20) or b""))).shape for n in files.names] == [
            (PX, PX, 3)
        ] * 3
