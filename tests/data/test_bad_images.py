"""Images that cannot be read: an error in one sentence, or the next of the class and a record of what was wrong."""

import os
import pickle
import resource
import tempfile
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from forked import CONTEXT
from image_folders import (
    PX,
    all_images,
    as_bare_tar,
    image_bytes,
    png,
    png_that_claims,
    png_with_two_animations,
    without_root_rights,
    write_images,
)
from PIL import Image

from ssl_adapt.data import ImageSet, iterate_batches, load_image_splits
from ssl_adapt.data.image_dataset import OnBadImage

COLOUR = Image.new("RGB", (PX, PX), (250, 20, 30))
FLOATING = Image.fromarray(np.zeros((PX, PX), np.float32))
TWO_LINES = b"<html>\nnot found\n</html>"

BAD_BYTES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "it is empty"),
    "web page": (TWO_LINES, "no image format"),
    "cut PNG": (png()[:-60], "image file is truncated"),
    "cut JPEG": (image_bytes(COLOUR, "JPEG")[:-20], "Truncated File Read"),
    "cut BMP": (image_bytes(COLOUR, "BMP")[:-20], "image file is truncated"),
    "cut WebP": (image_bytes(COLOUR, "WEBP")[:-8], "could not create decoder object"),
    "cut after the header": (png()[:33], "a PNG file with a damaged header"),
    "JPEG's first bytes": (b"\xff\xd8\xff", "a JPEG file with a damaged header"),
    "no width": (png_that_claims(0, PX), "a PNG file with a damaged header"),
    "bomb": (png_that_claims(10_000, 9_000), "it has 10,000 x 9,000 pixels, more than 89,478,485"),
    "large bomb": (png_that_claims(60_000, 60_000), "it has 60,000 x 60,000 pixels, more than 89,478,485"),
    "floating point": (image_bytes(FLOATING, "TIFF"), "floating-point pixels"),
    "EPS": (image_bytes(COLOUR, "EPS"), "no image format"),
    "ICO": (image_bytes(COLOUR, "ICO"), "no image format"),
    "PDF": (image_bytes(COLOUR, "PDF"), "no image format"),
    "PSD": (b"8BPS\0\1" + bytes(60), "no image format"),
}


def broken_link(path: Path) -> None:
    path.symlink_to("nowhere.png")


def link_to_itself(path: Path) -> None:
    path.symlink_to(path)


def pipe(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


BAD_FILES: list[Callable[[Path], None]] = [broken_link, link_to_itself, pipe, device]


def load(
    root: Path, *, streams: bool = False, on_bad_image: OnBadImage = "replace", memory_limit_bytes: int = 2**20
) -> ImageSet:
    return load_image_splits(
        "folder",
        root=root,
        image_px=PX,
        memory_limit_bytes=0 if streams else memory_limit_bytes,
        on_bad_image=on_bad_image,
    ).train


def streamed_images(image_set: ImageSet, *, workers: int) -> torch.Tensor:
    order = torch.arange(len(image_set))
    batches = iterate_batches(image_set, order, batch_size=4, device="cpu", workers=workers, drop_last=False)
    return torch.cat([batch.images for batch in batches])


def write_bad(path: Path, kind: str) -> str:
    """Writes the bad file; the reason that is expected."""
    if kind in BAD_BYTES:
        path.write_bytes(BAD_BYTES[kind][0])
        return BAD_BYTES[kind][1]
    next(make for make in BAD_FILES if make.__name__ == kind)(path)
    return "it is no file, or a link to none"


@pytest.mark.parametrize("kind", [*BAD_BYTES, *(make.__name__ for make in BAD_FILES)])
def test_every_bad_image_is_named_or_replaced(tmp_path: Path, kind: str) -> None:
    pixels = write_images(tmp_path, "a/0.png", "a/2.png", "b/0.png")
    reason = write_bad(tmp_path / "a" / "1.png", kind)
    for streams in (False, True):
        with pytest.raises(ValueError, match=r"^cannot read the image 'a/1.png' in ") as caught:
            all_images(load(tmp_path, streams=streams, on_bad_image="error"))
        message = str(caught.value)
        assert message.startswith(f"cannot read the image 'a/1.png' in {tmp_path} (")
        assert reason in message
        assert message.endswith("): replace or remove it, or train with data.on_bad_image=replace")
        assert "\n" not in message
        train = load(tmp_path, streams=streams)
        expected = np.stack([pixels[name] for name in ("a/0.png", "a/2.png", "a/2.png", "b/0.png")])
        assert np.array_equal(all_images(train).permute(0, 2, 3, 1).numpy(), expected)
        assert list(train.bad_images) == ["a/1.png"]
        assert reason in train.bad_images["a/1.png"]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("labelled", [True, False])
def test_replacements_depend_on_the_files_alone(tmp_path: Path, labelled: bool, workers: int) -> None:
    draw = np.random.default_rng(0)
    names = [
        f"{label if labelled else ''}/{i}.png".lstrip("/") for label in "abc"[: 3 if labelled else 1] for i in range(9)
    ]
    pixels = write_images(tmp_path / "in", *names)
    bad = sorted(set(draw.choice(names, size=len(names) // 2, replace=False)) | {names[8]})  # the last of a class too
    for name in bad:
        (tmp_path / "in" / name).write_bytes(b"")
    expected = []
    for index, name in enumerate(names):
        peers = [n for n in names[index:] + names[:index] if n.split("/")[0] == name.split("/")[0] or not labelled]
        expected.append(next(n for n in peers if n not in bad))
    wanted = torch.stack([torch.from_numpy(pixels[name]).permute(2, 0, 1) for name in expected])
    sets = [load(root, streams=s) for root in (tmp_path / "in", as_bare_tar(tmp_path / "in", tmp_path)) for s in (0, 1)]
    for image_set in sets:
        assert isinstance(image_set.pixels, torch.Tensor) == (image_set in sets[::2])
        assert torch.equal(streamed_images(image_set, workers=workers), wanted)
        assert torch.equal(streamed_images(image_set, workers=workers), wanted)  # a second epoch
        assert image_set.bad_images == dict.fromkeys(bad, "it is empty")
    assert len(sets) == 4
    assert 0 < len(bad) < len(names)
    assert expected != names


def test_the_record_is_shared_by_subsets_and_survives_a_pickle(tmp_path: Path) -> None:
    write_images(tmp_path, *(f"{i}.png" for i in range(6)))
    (tmp_path / "3.png").write_bytes(b"")
    train = load(tmp_path, streams=True)
    part, again = train.subset(torch.tensor([4, 3])), pickle.loads(pickle.dumps(train))
    assert train.bad_images == {}  # nothing has been read
    assert torch.equal(streamed_images(part, workers=1), all_images(load(tmp_path))[[4, 3]])
    assert part.bad_images == train.bad_images == {"3.png": "it is empty"}
    assert again.bad_images == {}
    all_images(again)
    assert again.bad_images == {"3.png": "it is empty"}
    held = load(tmp_path)
    assert held.subset(torch.tensor([0])).bad_images is held.bad_images
    assert held.bad_images == {"3.png": "it is empty"}


def test_each_split_has_its_own_record(tmp_path: Path) -> None:
    write_images(tmp_path, *(f"{split}/a/{i}.png" for split in ("train", "test") for i in range(3)))
    (tmp_path / "test" / "a" / "2.png").write_bytes(b"")
    train, test = load_image_splits("folder", root=tmp_path, image_px=PX, on_bad_image="replace")
    assert test is not None
    assert (train.bad_images, test.bad_images) == ({}, {"test/a/2.png": "it is empty"})
    assert torch.equal(all_images(test)[2], all_images(test)[0])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_class_without_any_image_that_can_be_read(tmp_path: Path, workers: int) -> None:
    write_images(tmp_path, "a/0.png", "a/1.png", "b/0.png", "b/1.png")
    for name in ("b/0.png", "b/1.png"):
        (tmp_path / name).write_bytes(b"")
    message = (
        r"no image of class 'b' in [^\n]* can be read, not 'b/0.png' \(it is empty\) nor any other: replace or rem"
    )
    with pytest.raises(ValueError, match=message):
        load(tmp_path)
    with pytest.raises(ValueError, match=message):
        streamed_images(load(tmp_path, streams=True), workers=workers)
    for name in ("0.png", "1.png"):
        (tmp_path / "b" / name).write_bytes(b"")
    with pytest.raises(ValueError, match=r"no image in [^\n]* can be read, not '0.png'"):
        load(tmp_path / "b")


def test_pillow_does_not_warn(tmp_path: Path) -> None:
    write_images(tmp_path, "a.png")
    (tmp_path / "b.png").write_bytes(png_with_two_animations())
    (tmp_path / "c.png").write_bytes(png_that_claims(10_000, 10_000))
    with pytest.warns(UserWarning, match="Invalid APNG"):
        Image.open(tmp_path / "b.png")
    with pytest.warns(Image.DecompressionBombWarning):
        Image.open(tmp_path / "c.png")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        held, streamed = (load(tmp_path, streams=streams) for streams in (False, True))
        assert torch.equal(all_images(streamed), all_images(held))
        warnings.warn("another one's", stacklevel=1)
    assert [str(warning.message) for warning in caught] == ["another one's"]
    assert list(streamed.bad_images) == ["c.png"]


def test_the_limit_of_pixels_is_pillows_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(tmp_path, "a.png", "b.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", PX * PX)
    assert load(tmp_path).bad_images == {}
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", PX * PX - 1)
    with pytest.raises(ValueError, match=r"it has 8 x 8 pixels, more than 63"):
        load(tmp_path, on_bad_image="error")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert load(tmp_path).bad_images == {}


def read_without_memory(folder: Path) -> tuple[torch.Tensor, dict[str, str]]:
    train = load(folder, streams=True)
    all_images(train.subset(torch.tensor([0])))  # Pillow has loaded its formats then
    used_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used_bytes + 2**27, resource.RLIM_INFINITY))
    return all_images(train), dict(train.bad_images)


def test_pixels_that_find_no_memory(tmp_path: Path) -> None:
    """In a process of its own: what malloc has kept from other tests might do for the pixels."""
    write_images(tmp_path, "a.png")
    (tmp_path / "b.png").write_bytes(png_that_claims(9_000, 9_000))  # 324 MB
    with ProcessPoolExecutor(1, mp_context=CONTEXT) as pool:
        images, bad_images = pool.submit(read_without_memory, tmp_path).result()
    assert torch.equal(images[1], images[0])
    assert bad_images == {"b.png": "its pixels need more memory than there is"}


def test_files_that_vanish_or_grow_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(tmp_path, "a.png", "b.png", "c.png")
    train = load(tmp_path, streams=True)
    (tmp_path / "b.png").unlink()
    with (tmp_path / "c.png").open("ab") as file:
        file.truncate(5000)
    monkeypatch.setattr("ssl_adapt.data.image_dataset._MAX_FILE_BYTES", 4999)
    all_images(train)
    assert train.bad_images == {"b.png": "it is no file, or a link to none", "c.png": "it is larger than 4,999 bytes"}


def test_files_and_folders_that_may_not_be_read() -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to others
        root = Path(name)
        root.chmod(0o755)
        write_images(root, "in/a.png", "in/b.png", "in/closed/c.png")
        (root / "in" / "b.png").chmod(0)
        (root / "in" / "closed").chmod(0)
        with without_root_rights(), pytest.raises(ValueError, match="Permission denied") as caught:
            load(root / "in")
        assert str(caught.value) == (
            f"data.root={root}/in holds the folder 'closed/', which cannot be read (Permission denied): "
            "change its permissions or move it elsewhere"
        )
        (root / "in" / "closed").chmod(0o755)
        (root / "in" / "closed" / "c.png").unlink()
        with without_root_rights():
            train = load(root / "in")
        assert train.bad_images == {"b.png": "Permission denied"}


def test_what_is_to_be_done_is_checked() -> None:
    with pytest.raises(ValueError, match=r"data\.on_bad_image='skip': type one of error, replace"):
        load_image_splits("digits", image_px=PX, on_bad_image="skip")  # type: ignore[arg-type]


def test_links_in_a_folder(tmp_path: Path) -> None:
    pixels = write_images(tmp_path, "in/a/0.png", "in/A/0.png", "in/A/0.PNG", "out/0.png", "out/deep/1.png")
    (tmp_path / "in" / "b").symlink_to("../out")  # the user's choice
    (tmp_path / "in" / "c").symlink_to("../out", target_is_directory=True)
    for loop in ("in/again", "in/a/up", "out/deep/up", "out/deep/root"):
        (tmp_path / loop).symlink_to(tmp_path / ("out" if loop == "out/deep/up" else "in"))
    train = load(tmp_path / "in")
    assert train.classes == ("A", "a", "b", "c")
    assert train.labels is not None
    # Below b/ and c/ the way leads back to in/, which ends it.
    assert train.labels.tolist() == [0, 0, 1, 2, 2, 3, 3]
    assert np.array_equal(all_images(train)[4].permute(1, 2, 0).numpy(), pixels["out/deep/1.png"])
