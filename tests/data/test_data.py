"""Collections by name, from files that the tests make themselves."""

import socket
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from image_folders import PLACES, PX, Place, all_images, as_bare_tar, as_tgz, noise, write_images
from PIL import Image
from torchvision.datasets import CIFAR10, FashionMNIST
from torchvision.transforms import functional as transforms

from ssl_adapt.data import load_image_splits


def test_digits_are_the_fixed_stratified_split() -> None:
    train, test = load_image_splits("digits", image_px=16)
    assert test is not None
    assert train.labels is not None
    assert test.labels is not None
    assert (len(train), len(test)) == (1297, 500)
    assert train.classes == test.classes == tuple("0123456789")
    # Pins the split itself: a scikit-learn that draws another one makes results incomparable.
    assert train.labels.bincount().tolist() == [128, 131, 128, 132, 131, 131, 131, 129, 126, 130]
    assert test.labels.bincount().tolist() == [50, 51, 49, 51, 50, 51, 50, 50, 48, 50]
    assert test.labels[:12].tolist() == [0, 1, 4, 5, 8, 5, 6, 5, 9, 9, 1, 3]


def test_digits_use_the_whole_range_and_are_grey() -> None:
    train, _ = load_image_splits("digits", image_px=8)
    images = all_images(train)
    assert images.shape == (1297, 3, 8, 8)
    assert images.dtype == torch.uint8
    assert (images.min(), images.max()) == (0, 255)
    assert torch.equal(images[:, 0], images[:, 1])
    assert torch.equal(images[:, 0], images[:, 2])
    assert len(images.unique()) == 17  # 0..16 stay apart


FORMS = [(place, 2**20) for place in PLACES] + [(place, 0) for place in PLACES if place is not as_tgz]


@pytest.mark.parametrize(("place", "memory_limit_bytes"), FORMS)  # in memory, and streaming
@pytest.mark.parametrize("held_out", ["test", "val"])
@pytest.mark.parametrize("name", ["folder", "cifar10", "digits", "tiny_imagenet"])
def test_class_folders_of_any_name_and_place(
    tmp_path: Path, name: str, place: Place, held_out: str, memory_limit_bytes: int
) -> None:
    folder = tmp_path / "in"
    names = [f"{split}/{label}/{i}.PNG" for split in ("train", held_out) for label in "ba" for i in range(9)]
    pixels = write_images(folder, *names, "._b.png", "train/a/.hidden.png")
    (folder / "train" / "a" / "notes.txt").write_text("no image")
    train, test = load_image_splits(
        name, root=place(folder, tmp_path), image_px=PX, memory_limit_bytes=memory_limit_bytes
    )
    assert test is not None
    assert isinstance(train.pixels, torch.Tensor) == (memory_limit_bytes == 2**20)
    for image_set, split in ((train, "train"), (test, held_out)):
        assert image_set.name == name
        assert image_set.classes == ("a", "b")
        assert image_set.labels is not None
        assert image_set.labels.tolist() == [0] * 9 + [1] * 9
        expected = np.stack([pixels[n] for n in sorted(names) if n.startswith(split)])
        assert len(expected) == len(image_set) == 18
        assert np.array_equal(all_images(image_set).permute(0, 2, 3, 1).numpy(), expected)


@pytest.mark.parametrize("place", PLACES)
def test_flat_folders_have_no_labels(tmp_path: Path, place: Place) -> None:
    pixels = write_images(tmp_path / "in", "b.png", "a.png", "c.png")
    train, test = load_image_splits("folder", root=place(tmp_path / "in", tmp_path), image_px=PX)
    assert test is None
    assert train.labels is None
    assert train.classes == ()
    assert len(train) == 3
    assert np.array_equal(all_images(train)[0].permute(1, 2, 0).numpy(), pixels["a.png"])


def test_class_folders_without_splits_are_all_for_training(tmp_path: Path) -> None:
    write_images(tmp_path, "train/0.png", "bus/0.png", "bus/deeper/1.png")  # "train" is a vehicle here
    train, test = load_image_splits("folder", root=tmp_path, image_px=PX)
    assert test is None
    assert train.classes == ("bus", "train")
    assert train.labels is not None
    assert train.labels.tolist() == [0, 0, 1]


def test_flat_splits_and_a_lone_train_folder(tmp_path: Path) -> None:
    write_images(tmp_path / "both", "train/0.png", "train/1.png", "test/0.png")
    train, test = load_image_splits("folder", root=tmp_path / "both", image_px=PX)
    assert test is not None
    assert (len(train), len(test), train.labels, test.labels) == (2, 1, None, None)
    write_images(tmp_path / "one", "train/a/0.png", "train/a/1.png")
    train, test = load_image_splits("folder", root=tmp_path / "one", image_px=PX)
    assert test is None
    assert train.classes == ("a",)


def test_the_test_split_may_lack_classes(tmp_path: Path) -> None:
    write_images(tmp_path, "train/a/0.png", "train/b/0.png", "test/b/0.png")
    _, test = load_image_splits("folder", root=tmp_path, image_px=PX)
    assert test is not None
    assert test.classes == ("a", "b")
    assert test.labels is not None
    assert test.labels.tolist() == [1]


@pytest.mark.parametrize("place", PLACES)
def test_tiny_imagenet_as_it_is_distributed(tmp_path: Path, place: Place) -> None:
    folder = tmp_path / "tiny-imagenet-200"
    pixels = write_images(
        folder,
        *(f"train/{wnid}/images/{wnid}_{i}.JPEG" for wnid in ("n02", "n01") for i in range(2)),
        *(f"val/images/val_{i}.JPEG" for i in range(3)),
        "test/images/test_0.JPEG",
    )
    lines = [f"val_{i}.JPEG\t{wnid}\t0\t0\t62\t62\n" for i, wnid in enumerate(("n02", "n01", "n02"))]
    (folder / "val" / "val_annotations.txt").write_text("".join(lines))
    (folder / "words.txt").write_text("n01\tgoldfish")
    train, test = load_image_splits("tiny_imagenet", root=place(folder, tmp_path), image_px=PX)
    assert test is not None
    assert train.classes == test.classes == ("n01", "n02")
    assert train.labels is not None
    assert test.labels is not None
    assert train.labels.tolist() == [0, 0, 1, 1]
    assert test.labels.tolist() == [1, 0, 1]
    assert np.array_equal(all_images(test)[2].permute(1, 2, 0).numpy(), pixels["val/images/val_2.JPEG"])

    (folder / "val" / "val_annotations.txt").write_text(lines[0])
    with pytest.raises(ValueError, match=r"no line for '.*val/images/val_1.JPEG'"):
        load_image_splits("tiny_imagenet", root=place(folder, tmp_path), image_px=PX)


def test_real_jpegs_of_odd_sizes_from_a_tar(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for i, size in enumerate([(30, 21), (9, 50), (8, 8)]):
        Image.fromarray(noise(*size)).convert("L" if i == 1 else "RGB").save(tmp_path / "in" / f"{i}.jpg")
    train, _ = load_image_splits("folder", root=as_bare_tar(tmp_path / "in", tmp_path), image_px=PX)
    assert all_images(train).shape == (3, 3, PX, PX)
    with Image.open(tmp_path / "in" / "2.jpg") as image:
        assert torch.equal(all_images(train)[2], transforms.pil_to_tensor(image))


def test_torchvision_files_are_read_without_network(tmp_path: Path) -> None:
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    pictures = noise(28 * 28, 7).transpose(1, 2, 0)[:, 0].reshape(7, 28, 28)
    labels = np.array([3, 1, 4, 1, 5, 9, 2], dtype=np.uint8)
    for split, count in (("train", 7), ("t10k", 4)):
        head = struct.pack(">BBBB4i", 0, 0, 8, 3, count, 28, 28, 0)[:-4]
        (raw / f"{split}-images-idx3-ubyte").write_bytes(head + pictures[:count].tobytes())
        head = struct.pack(">BBBBi", 0, 0, 8, 1, count)
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(head + labels[:count].tobytes())
    train, test = load_image_splits("fashion_mnist", root=tmp_path, image_px=28)
    assert test is not None
    assert (len(train), len(test)) == (7, 4)
    assert train.classes == test.classes == tuple(FashionMNIST.classes)
    assert train.labels is not None
    assert train.labels.tolist() == labels.tolist()
    assert all(np.array_equal(all_images(train)[:, channel].numpy(), pictures) for channel in range(3))


@pytest.mark.parametrize("name", ["cifar10", "fashion_mnist"])
def test_a_failed_download_says_what_to_do(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(CIFAR10, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz")
    monkeypatch.setattr(FashionMNIST, "mirrors", ["http://127.0.0.1:9/"])
    (tmp_path / "empty").mkdir()
    for root, seen in ((None, "data"), (tmp_path / "empty", "empty"), (tmp_path / "new", "new")):
        with pytest.raises(ValueError, match=f"(?s){seen}.*refused.*data.root=.*data.name=digits") as caught:
            load_image_splits(name, root=root, image_px=PX)
        assert "\n" not in str(caught.value)
        assert (caught.value.__cause__, caught.value.__suppress_context__) == (None, True)
    assert socket.getdefaulttimeout() is None


def test_a_download_that_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssl_adapt.data.torchvision_sets._DOWNLOAD_TIMEOUT_SEC", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{silent.getsockname()[1]}/cifar.tar.gz")
        with pytest.raises(ValueError, match=r"download failed .*timed out"):
            load_image_splits("cifar10", root=tmp_path / "new", image_px=PX)
