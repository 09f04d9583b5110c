"""Names, folders and tars that are wrong: one sentence says what was found and what is expected."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from image_folders import (
    PX,
    Place,
    all_images,
    as_bare_tar,
    as_folder,
    as_tgz,
    write_class_folders,
    write_images,
)

from ssl_adapt.data import load_image_splits


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "cifar_10",
            "unknown data.name 'cifar_10'; did you mean 'cifar10'.*available: digits, fashion_mnist",
        ),
        ("???", r"unknown data.name '\?\?\?'; available: digits"),
        ("folder", "data.name=folder needs data.root"),
        ("tiny_imagenet", "no Tiny ImageNet in data/tiny-imagenet-200: unpack http://cs231n.stanford.edu/"),
    ],
)
def test_names_and_missing_roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        load_image_splits(name, image_px=PX)


def one_class_too_many(root: Path) -> None:
    write_images(root, "train/a/0.png", "train/b/0.png", "test/a/0.png", "test/z/0.png")


def loose_image(root: Path) -> None:
    write_images(root, "a/0.png", "b/0.png", "stray.png")


def flat_test(root: Path) -> None:
    write_images(root, "train/a/0.png", "train/b/0.png", "test/0.png")


def flat_train(root: Path) -> None:
    write_images(root, "train/0.png", "train/1.png", "test/a/0.png")


def no_train(root: Path) -> None:
    write_images(root, "val/a/0.png", "val/b/0.png")


def no_images(root: Path) -> None:
    (root / "sub").mkdir()
    (root / "sub" / "notes.txt").write_text("no image")


def nothing(root: Path) -> None:
    pass


def broken_image(root: Path) -> None:
    write_images(root, "a.png", "b.png")
    (root / "b.png").write_bytes((root / "b.png").read_bytes()[:-60])


def text_as_image(root: Path) -> None:
    write_images(root, "a.png")
    (root / "b.png").write_text("no image")


FAULTS: list[tuple[Callable[[Path], None], str]] = [
    (one_class_too_many, "held-out images of class 'z' but none in train/"),
    (loose_image, "mixes class folders with 1 loose images .*stray.png"),
    (flat_test, "the held-out images of .* lie in no class folders"),
    (flat_train, "the train images of .* lie in no class folders"),
    (no_train, "holds val/ but no train/"),
    (no_images, "holds no images .found 1 other files, such as .*sub/notes.txt.*expected class folders"),
    (nothing, "holds no images .found nothing.: expected class folders"),
    (broken_image, "cannot read the image .*b.png.*replace or remove"),
    (text_as_image, "cannot read the image .*b.png.*no image format"),
]


@pytest.mark.parametrize("place", [as_folder, as_bare_tar, as_tgz])
@pytest.mark.parametrize(("fault", "message"), FAULTS, ids=[fault.__name__ for fault, _ in FAULTS])
def test_faulty_folders_and_tars_are_named(
    tmp_path: Path, fault: Callable[[Path], None], message: str, place: Place
) -> None:
    (tmp_path / "in").mkdir()
    fault(tmp_path / "in")
    with pytest.raises(ValueError, match=message) as caught:
        load_image_splits("folder", root=place(tmp_path / "in", tmp_path), image_px=PX)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("name", ["folder", "cifar10"])
def test_roots_that_are_neither_folder_nor_tar(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"missing.tar does not exist"):
        load_image_splits(name, root=tmp_path / "missing.tar", image_px=PX)
    (tmp_path / "a.txt").write_text("no tar")
    with pytest.raises(ValueError, match=r"a.txt is neither a folder nor a tar") as caught:
        load_image_splits(name, root=tmp_path / "a.txt", image_px=PX)
    assert "\n" not in str(caught.value)
    write_class_folders(tmp_path / "in")
    cases = 0
    for whole in (as_bare_tar(tmp_path / "in", tmp_path), as_tgz(tmp_path / "in", tmp_path)):
        cut = tmp_path / f"cut{whole.suffix}"
        cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 3])
        with pytest.raises(ValueError, match=f"{cut.name} is neither a folder nor a tar that can be read"):
            load_image_splits(name, root=cut, image_px=PX)
        cases += 1
    assert cases == 2


def test_a_tar_cut_anywhere_is_refused(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "in")
    whole = as_bare_tar(tmp_path / "in", tmp_path).read_bytes()
    end = len(whole.rstrip(b"\0"))
    cut = tmp_path / "cut.tar"
    lengths = range(512, end, 256)  # in headers and between files too, where tarfile alone sees no fault
    for length in lengths:
        cut.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"cut.tar is neither a folder nor a tar that can be read"):
            load_image_splits("folder", root=cut, image_px=PX)
    assert len(lengths) > 40


def test_a_compressed_tar_must_fit_in_memory(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "in")
    tgz = as_tgz(tmp_path / "in", tmp_path)
    with pytest.raises(ValueError, match=r"images.tgz is compressed .* needs more than the 99 bytes .*plain .tar"):
        load_image_splits("folder", root=tgz, image_px=PX, memory_limit_bytes=99)


def test_a_compressed_tar_streams_while_it_fits(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "in")
    tgz = as_tgz(tmp_path / "in", tmp_path)
    limit = as_bare_tar(tmp_path / "in", tmp_path).stat().st_size
    assert limit < 6 * 3 * 64 * 64
    with pytest.raises(ValueError, match="needs more than"):
        load_image_splits("folder", root=tgz, image_px=64, memory_limit_bytes=limit // 2)
    held, streamed = (
        load_image_splits("folder", root=tgz, image_px=64, memory_limit_bytes=bytes_).train for bytes_ in (2**20, limit)
    )
    assert not isinstance(streamed.pixels, torch.Tensor)
    assert len(held) == 6
    assert torch.equal(all_images(streamed), all_images(held))
