"""A CSV of paths, data sets of Hugging Face on the disk, and torchvision's sets that take split=."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from image_folders import PX, all_images, noise, png, write_images
from torchvision.datasets import STL10, SVHN

from ssl_adapt.data import Columns, ImageSplits, epoch_order, iterate_batches, load_image_splits

HEADER = "path,label,split\n"


def load(
    name: str, root: Path, *columns: str | None, on_bad_image: str = "error", streams: bool = False
) -> ImageSplits:
    return load_image_splits(
        name, root=root, image_px=PX, memory_limit_bytes=0 if streams else 2**20,
        on_bad_image=on_bad_image, columns=Columns(*columns),  # type: ignore[arg-type]
    )  # fmt: skip


def write_csv(folder: Path, text: str) -> Path:
    (folder / "a.csv").write_text(text, encoding="utf-8-sig")
    return folder / "a.csv"


# --- CSV --------------------------------------------------------------------------------------------------


def test_a_csv_gives_paths_labels_and_splits(tmp_path: Path) -> None:
    pixels = write_images(tmp_path, "in/b.png", "in/a.png", "c, d.png", "e.png")
    lines = f'in/b.png, 10,train\nin/a.png,2,train\n\n{tmp_path}/e.png,2,valid\n"c, d.png",10,train\n'
    train, test = load("csv", write_csv(tmp_path, HEADER + lines))
    assert test is not None
    assert train.classes == test.classes == ("2", "10")
    assert train.labels is not None
    assert train.labels.tolist() == [1, 0, 1]
    expected = np.stack([pixels[name] for name in ("in/b.png", "in/a.png", "c, d.png")])
    assert np.array_equal(all_images(train).permute(0, 2, 3, 1).numpy(), expected)
    assert np.array_equal(all_images(test)[0].permute(1, 2, 0).numpy(), pixels["e.png"])


def test_a_csv_without_labels_and_with_other_columns(tmp_path: Path) -> None:
    write_images(tmp_path, "a.png", "b.png")
    bare, _ = load("csv", write_csv(tmp_path, "path\na.png\nb.png\n"))
    assert (len(bare), bare.labels) == (2, None)
    named, _ = load("csv", write_csv(tmp_path, "id,file,species\n1,a.png,cat\n2,b.png,dog\n"), "file", "species")
    assert named.classes == ("cat", "dog")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            HEADER + "a.png,x,train\nc.png,x,train\n",
            "line 3 of {csv} names 'c.png', and there is no such file in {folder}",
        ),
        (HEADER + "a.png,x,train\na.png,y,train\n", "line 3 of {csv} has the path 'a.png' of line 2 again"),
        (HEADER + "a.png,x,dev\n", "line 2 of {csv} has the split 'dev': write train, test or val"),
        (HEADER + "a.png,x,train\nb.png,,train\n", "line 3 of {csv} has no label, and others have"),
        (HEADER + "a.png,x\n", "line 2 of {csv} has 2 fields, and line 1 names 3 columns"),
        (HEADER + ",x,train\n", "line 2 of {csv} has no path"),
        (HEADER + 'a.png,"x\n', "line 2 of {csv} is not CSV"),
        ("file,label\na.png,x\n", "line 1 of {csv} is 'file,label' and has no column 'path'"),
        ("", "line 1 of {csv} is '' and has no column 'path'"),
        (HEADER + "a.png,x,test\n", "data.root={csv} has no image for training: list one or more in the split train"),
        (
            HEADER + "a.png,x,train\nb.png,x,train\nd.png,y,test\n",
            "data.root={csv} has held-out images of class 'y' and",
        ),
    ],
)
def test_a_csv_that_is_wrong_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    write_images(tmp_path, "a.png", "b.png", "d.png")
    path = write_csv(tmp_path, text)
    with pytest.raises(ValueError, match=r"^\S") as caught:
        load("csv", path)
    assert str(caught.value).startswith(message.format(csv=path, folder=tmp_path))
    assert "\n" not in str(caught.value)


def test_a_csv_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"no.csv does not exist: type the path of a CSV whose first line is path,label"
    ):
        load("csv", tmp_path / "no.csv")
    (tmp_path / "a.csv").write_bytes(b"path\n\xff.png\n")
    with pytest.raises(ValueError, match=r"a.csv, or one soon after it, is not text in UTF-8"):
        load("csv", tmp_path / "a.csv")
    with pytest.raises(ValueError, match=r"^data.label_column=|has no column 'x': .* by data.label_column"):
        load("csv", write_csv(tmp_path, "path\na.png\n"), None, "x")


def test_paths_of_a_csv_that_lead_nowhere_are_replaced(tmp_path: Path) -> None:
    write_images(tmp_path, "a.png", "b.png")
    path = write_csv(tmp_path, "path,label\na.png,x\nnone.png,x\nb.png,y\n")
    train, _ = load("csv", path, on_bad_image="replace")
    assert torch.equal(all_images(train)[1], all_images(train)[0])
    assert train.bad_images == {"none.png": "it is no file, or a link to none"}


# --- Hugging Face -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Folders of one data set: as save_to_disk and to_parquet write it, in their order, and one of pandas."""
    import datasets

    folder = tmp_path_factory.mktemp("hub")
    features = datasets.Features(
        {"id": datasets.Value("int64"), "img": datasets.Image(), "species": datasets.ClassLabel(names=["dog", "cat"])}
    )

    def rows(seeds: range, *labels: int) -> datasets.Dataset:
        images = [{"bytes": png(seed), "path": None} for seed in seeds]
        return datasets.Dataset.from_dict({"id": list(seeds), "img": images, "species": labels}, features=features)

    splits = {
        "train": rows(range(5), 0, 1, 1, 0, 1),
        "validation": rows(range(5, 7), 1, 0),
        "test": rows(range(7, 9), -1, -1),
    }
    datasets.DatasetDict(splits).save_to_disk(folder / "saved")
    splits["train"].select([4, 2, 0]).save_to_disk(folder / "alone")
    bad = rows(range(4), 0, 0, 1, -1)
    (folder / "parquet").mkdir()
    splits["train"].to_parquet(folder / "parquet" / "train-00000-of-00001.parquet")
    splits["validation"].to_parquet(folder / "parquet" / "validation-00000-of-00001.parquet")
    bad = datasets.concatenate_datasets(
        [bad, datasets.Dataset.from_dict({"id": [9], "img": [None], "species": [0]}, features=features)]
    )
    bad.save_to_disk(folder / "bad")
    two = (
        splits["train"]
        .add_column("coarse", [0, 1, 0, 1, 0])
        .cast_column("coarse", datasets.ClassLabel(names=["a", "b"]))
    )
    two.save_to_disk(folder / "two")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.config.HF_DATASETS_CACHE", folder / "cache")
        yield folder


def pixels(*seeds: int) -> torch.Tensor:
    from PIL import Image

    return torch.stack(
        [torch.from_numpy(np.array(Image.open(io.BytesIO(png(seed))))).permute(2, 0, 1) for seed in seeds]
    )


@pytest.mark.parametrize("streams", [True, False])
@pytest.mark.parametrize("kind", ["saved", "parquet"])
def test_a_data_set_of_hugging_face(hub: Path, kind: str, streams: bool) -> None:
    train, test = load("hf", hub / kind, streams=streams)
    assert test is not None  # not the split whose labels are hidden
    assert train.classes == test.classes == ("dog", "cat")
    assert train.labels is not None
    assert test.labels is not None
    assert train.labels.tolist() == [0, 1, 1, 0, 1]
    assert test.labels.tolist() == [1, 0]
    assert torch.equal(all_images(train), pixels(*range(5)))
    assert torch.equal(all_images(test), pixels(5, 6))
    order = epoch_order(5, seed=0, epoch=0)
    batches = list(iterate_batches(train, order, batch_size=2, device="cpu", workers=1, drop_last=False))
    assert torch.equal(torch.cat([batch.images for batch in batches]), pixels(*order.tolist()))


def test_rows_that_were_selected_and_columns_that_are_named(hub: Path) -> None:
    alone, test = load("hf", hub / "alone")
    assert test is None
    assert torch.equal(all_images(alone), pixels(4, 2, 0))
    assert load("hf", hub / "alone", "img", "id").train.classes == ("0", "2", "4")
    assert load("hf", hub / "two", None, "coarse").train.classes == ("a", "b")
    for columns, message in {
        (None, None): r"has 2 columns of labels \(species, coarse\): name one by data.label_column=species",
        ("picture", None): r"data.image_column=picture: data.root=\S+ has the columns id, img, species, coarse",
        (None, "kind"): r"data.label_column=kind: data.root=\S+ has the columns id, img",
        ("id", "coarse"): r"the column 'id' of data.root=\S+ holds Value\('int64'\), which are no images",
    }.items():
        with pytest.raises(ValueError, match=message):
            load("hf", hub / "two", *columns)


def test_rows_without_image_or_label_are_named_or_replaced(hub: Path) -> None:
    with pytest.raises(
        ValueError, match=r"^cannot read the image 'train\[3\]' in \S+ \(it has no label, and others have\)"
    ):
        load("hf", hub / "bad")
    train, _ = load("hf", hub / "bad", on_bad_image="replace")
    assert torch.equal(all_images(train), pixels(0, 1, 2, 0))
    assert train.bad_images == {"train[3]": "it has no label, and others have", "train[4]": "it is empty"}


def test_a_folder_that_is_no_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text("x")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    with pytest.raises(ValueError, match=r"has no columns of images among text: name one by data.image_column=text"):
        load("hf", tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        ValueError, match=r"^data.root=\S+ cannot be loaded by the package datasets \([^\n]*\): type the"
    ):
        load("hf", tmp_path / "empty")


# --- torchvision's sets that take split= -------------------------------------------------------------------


def test_svhn_and_stl10_are_read_without_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from scipy.io import savemat

    # the files are there, and of any checksum
    monkeypatch.setattr(SVHN, "split_list", {split: ["", f"{split}_32x32.mat", None] for split in ("train", "test")})
    for names in ("train_list", "test_list"):
        monkeypatch.setattr(STL10, names, [[name, None] for name, _ in getattr(STL10, names)])
    pictures = noise(96 * 96, 9).reshape(9, 96, 96, 3)
    for split, count in (("train", 5), ("test", 4)):
        data = pictures[:count, :32, :32].transpose(1, 2, 3, 0)
        savemat(
            tmp_path / f"{split}_32x32.mat", {"X": data, "y": np.arange(10, 10 - count, -1, dtype=np.uint8)[:, None]}
        )
    train, test = load_image_splits("svhn", root=tmp_path, image_px=32)
    assert test is not None
    assert (train.classes, test.classes) == (tuple("0123456789"), tuple("0123456789"))
    assert train.labels is not None
    assert train.labels.tolist() == [0, 9, 8, 7, 6]
    assert np.array_equal(all_images(train).permute(0, 2, 3, 1).numpy(), pictures[:5, :32, :32])

    folder = tmp_path / "stl10_binary"
    folder.mkdir()
    (folder / "class_names.txt").write_text("bird\ncat\n")
    for split, count in (("train", 3), ("test", 2), ("unlabeled", 4)):
        (folder / f"{split}_X.bin").write_bytes(pictures[:count].transpose(0, 3, 2, 1).tobytes())
        (folder / f"{split}_y.bin").write_bytes(bytes([2, 1, 2][:count]))
    train, test = load_image_splits("stl10", root=tmp_path, image_px=96)
    assert test is not None
    assert train.classes == test.classes == ("bird", "cat")
    assert train.labels is not None
    assert (train.labels.tolist(), len(test)) == ([1, 0, 1], 2)
    assert np.array_equal(all_images(train).permute(0, 2, 3, 1).numpy(), pictures[:3])
    bare, nothing = load_image_splits("stl10_unlabeled", root=tmp_path, image_px=96)
    assert (len(bare), bare.labels, bare.classes, nothing) == (4, None, (), None)
    assert np.array_equal(all_images(bare).permute(0, 2, 3, 1).numpy(), pictures[:4])


def test_columns_belong_to_tables(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^data.name=folder has no columns to name"):
        load("folder", tmp_path, "a")
