"""`ssl-adapt embed`: the features are the kNN's to the bit, each image has one row, and what is there is kept."""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas
import pytest
import timm
import torch
from embedding_run import BATCH, NAMES, PARTS, ROWS, content, embed_small, main, write_set
from forked import run_processes
from image_folders import tar_of, write_images
from safetensors.torch import save_file
from script_calls import MEAN, PX, STD, create_export, create_run, run_command

from ssl_adapt.commands import embed_command
from ssl_adapt.data import load_image_splits
from ssl_adapt.embedding.feature_parts import plan_parts, rows_of_a_part
from ssl_adapt.errors import UserError
from ssl_adapt.evaluation.features import extract_features
from ssl_adapt.evaluation.frozen_network import load_network
from ssl_adapt.runs.lock import lock_folder


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return create_export(tmp_path_factory.mktemp("models") / "export")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("images") / "set")


@pytest.fixture(scope="module")
def whole(export: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The features of the images, written by one process without a stop."""
    folder = tmp_path_factory.mktemp("features") / "whole"
    assert embed_small(export, images, folder)[:4] == (20, 6, 20, 6)
    assert sorted(content(folder)) == ["_manifest.json", *PARTS]
    return folder


def knn_features(export: Path, split: str, batch_size: int, **where: object) -> np.ndarray:
    """What the kNN compares: of a set in memory, in one piece."""
    train, test = load_image_splits(image_px=PX, **where)
    network = load_network(f"local-dir:{export}", pretrained=True)
    image_set = train if split == "train" else test
    assert image_set is not None
    assert isinstance(image_set.pixels, torch.Tensor)
    return extract_features(
        network, image_set, mean=MEAN, std=STD, batch_size=batch_size, device="cpu", workers=0
    ).numpy()


def test_the_features_of_a_run_are_those_of_its_knn(export: Path, tmp_path: Path) -> None:
    run = create_run(tmp_path / "run", export, "data.train_images=300")
    done = run_command("embed", f"model={run}", f"out={tmp_path / 'features'}", "device=cpu", "workers=0")
    assert done.code == 0, done.err
    assert "1,797 images in 2 files; now written 1,797 in 2, " in done.out
    table = pandas.read_parquet(tmp_path / "features")
    assert list(table) == ["id", "split", "label", "class_name", "features"]
    assert table.id.is_unique
    for split, count in (("train", 1297), ("test", 500)):
        own = table[table.split == split]
        assert own.id.tolist() == [f"{split}/{index}" for index in range(count)]
        assert np.array_equal(np.stack(own.features.tolist()), knn_features(export, split, 500, name="digits"))
        digits = load_image_splits("digits", image_px=PX)
        assert own.label.tolist() == getattr(digits, split).labels.tolist()
        assert own.class_name.tolist() == [str(label) for label in own.label]


@pytest.mark.parametrize("workers", [0, 2])
def test_the_rows_of_all_parts_are_the_images_in_order(
    export: Path, images: Path, whole: Path, tmp_path: Path, workers: int
) -> None:
    if workers:
        embed_small(export, images, tmp_path / "features", workers=workers)
        assert content(tmp_path / "features") == content(whole)
    table = pandas.concat([pandas.read_parquet(whole / part) for part in PARTS], ignore_index=True)
    assert table.id.tolist() == sorted(NAMES)
    assert table.class_name.tolist() == [name.split("/")[1] for name in sorted(NAMES)]
    assert table.label.tolist() == ["ab".index(name) for name in table.class_name]
    for split in ("train", "test"):
        own = np.stack(table[table.split == split].features.tolist())
        assert own.dtype == np.float32
        assert np.array_equal(own, knn_features(export, split, BATCH, name="folder", root=images))


@pytest.mark.parametrize("count", [2, 3])
def test_several_processes_write_the_same_bytes(
    export: Path, images: Path, whole: Path, tmp_path: Path, count: int
) -> None:
    out = tmp_path / "features"
    begun = 0
    if count == 3:  # also go on from what one process has left
        shutil.copytree(whole, out)
        for part in PARTS[1:]:
            (out / part).unlink()
        begun = 1
    ended = run_processes(count, tmp_path, main, export, images, out)
    assert [process.code for process in ended] == [0] * count, ended
    written = 20 - begun * ROWS
    assert {process.out for process in ended} == {f"20 6 {written} {6 - begun}\n"}
    assert content(out) == content(whole)


def test_of_several_processes_the_first_alone_prints(export: Path, images: Path, tmp_path: Path) -> None:
    arguments = [f"model={export}", "data=folder", f"root={images}", f"out={tmp_path / 'features'}", "workers=0"]
    first, second = run_processes(2, tmp_path, embed_command.run, arguments)
    assert (first.code, second.code, second.out) == (0, 0, "")
    assert first.out.startswith(f"{tmp_path / 'features'}: 20 images in 2 files; now written 20 in 2, ")
    assert first.out.count("\n") == 1


class StoppedError(Exception):
    """In the place of a kill."""


def test_a_stopped_call_has_written_whole_parts_and_goes_on(
    export: Path, images: Path, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "features"
    seen: list[tuple[int, int]] = []

    def begin(stage: str, total: int | None) -> Callable[[int], None]:
        def advance(count: int) -> None:
            seen.append((sum(images for images, _ in seen[-1:]) + count, len(list(out.glob("*.parquet")))))
            if seen[-1][0] == 14 - BATCH:
                raise StoppedError

        return advance

    with pytest.raises(StoppedError):
        embed_small(export, images, out, begin)
    # no more than one part is in memory: each is written before an image of the next one is computed
    assert seen == [(count, (count - 1) // ROWS) for count in range(BATCH, 14, BATCH)]
    kept = PARTS[2:4]
    assert sorted(path.name for path in out.glob("*.parquet")) == kept
    (out / f".partial-{PARTS[4]}").write_bytes(b"PAR1 half of")
    before = {part: (out / part).stat().st_mtime_ns for part in kept}
    assert embed_small(export, images, out)[:4] == (20, 6, 20 - 2 * ROWS, 4)
    assert {part: (out / part).stat().st_mtime_ns for part in kept} == before
    assert content(out) == content(whole)
    assert list(out.glob(".partial*")) == []
    assert embed_small(export, images, out)[2:4] == (0, 0)


ODD = ['a"b.png', "it's.png", "new\nline.png", "tab\there,comma;.png", "日本語 ü.png", "back\\slash.png", "=1+1.png"]


@pytest.mark.parametrize("file_format", ["parquet", "npz"])
def test_odd_names_and_images_without_classes(export: Path, tmp_path: Path, file_format: str) -> None:
    odd_class = 'class "é"\n2'
    write_images(tmp_path / "flat", *ODD)
    write_images(tmp_path / "classes", *(f"{odd_class}/{name}" for name in ODD), "other/0.png")
    with open(os.fsencode(tmp_path / "flat") + b"/latin-\xfc.png", "wb") as file:
        file.write((tmp_path / "flat" / ODD[0]).read_bytes())
    for root, names in (
        (tmp_path / "flat", {*ODD, "latin-\\xfc.png"}),
        (tmp_path / "classes", {*(f"{odd_class}/{name}" for name in ODD), "other/0.png"}),
    ):
        out = tmp_path / f"features of {root.name}"
        embed_small(export, root, out, file_format=file_format)
        parts = sorted(out.glob(f"*.{file_format}"))
        assert len(parts) == 2
        if file_format == "parquet":
            columns = {name: values.tolist() for name, values in pandas.read_parquet(out).items()}
        else:
            files = [np.load(part) for part in parts]
            columns = {name: np.concatenate([file[name] for file in files]).tolist() for name in files[0]}
        assert len(columns["id"]) == 8
        assert set(columns["id"]) == names
        assert columns["split"] == ["train"] * 8
        if root.name == "classes":
            assert columns["class_name"] == [odd_class] * 7 + ["other"]
            assert columns["label"] == [0] * 7 + [1]
        elif file_format == "parquet":
            assert pandas.isna([*columns["class_name"], *columns["label"]]).all()
        else:
            assert (columns["class_name"], columns["label"]) == ([""] * 8, [-1] * 8)


def test_a_tar_gives_the_same_files(export: Path, images: Path, whole: Path, tmp_path: Path) -> None:
    tar = tar_of(images, tmp_path / "set.tar", inside=".")
    embed_small(export, tar, tmp_path / "features")
    parts, expected = (content(folder) for folder in (tmp_path / "features", whole))
    assert {name: parts[name] for name in PARTS} == {name: expected[name] for name in PARTS}


def test_an_unreadable_image_ends_the_call_or_has_no_row(export: Path, whole: Path, tmp_path: Path) -> None:
    root, out = write_set(tmp_path / "set"), tmp_path / "features"
    for name in ("train/b/2.png", "train/b/6.png"):
        (root / name).write_bytes(b"no image")
    with pytest.raises(
        UserError, match=r"2\.png' in .*: replace or remove it, or leave it out with on_bad_image=skip$"
    ):
        embed_small(export, root, out)
    # those before it are there, so that no more was decoded than was asked for
    assert sorted(path.name for path in out.glob("*.parquet")) == PARTS[2:4]
    done = embed_small(export, root, out, on_bad_image="skip")
    assert list(done.left_out) == ["train/b/2.png", "train/b/6.png"]
    assert done[:4] == (20, 6, 20 - 2 * ROWS, 4)
    table, expected = pandas.read_parquet(out), pandas.read_parquet(whole)
    expected = expected[~expected.id.isin(done.left_out)].reset_index(drop=True)
    assert len(table) == 18
    columns = ["id", "split", "label", "class_name"]
    assert table[columns].equals(expected[columns])
    for one, other in zip(table.features, expected.features, strict=True):
        assert np.array_equal(one, other)


def test_one_image_is_enough(export: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "set", "only.png")
    assert embed_small(export, tmp_path / "set", tmp_path / "features")[:2] == (1, 1)
    assert pandas.read_parquet(tmp_path / "features").id.tolist() == ["only.png"]


def refused(out: Path, export: Path, images: Path, **given: object) -> str:
    before = content(out)
    with pytest.raises(UserError) as error:
        embed_small(export, images, out, **given)
    assert content(out) == before
    return str(error.value)


def test_what_does_not_belong_together_is_refused(export: Path, images: Path, whole: Path, tmp_path: Path) -> None:
    end = "): type another out=FOLDER, or delete that one"
    other = create_export(tmp_path / "other")  # the same weights: no other model
    assert embed_small(other, images, whole)[3] == 0
    weights = timm.create_model(f"local-dir:{other}", pretrained=True).state_dict()
    next(iter(weights.values())).view(-1)[0] += 1e-3
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    message = refused(whole, other, images)
    assert message.startswith(f"{whole} was begun with other weights (weights ")
    assert message.endswith(f"...{end}")
    assert f"image_px {PX}, now 8{end}" in refused(whole, export, images, image_px=8)
    assert f"another batch_size (batch_size 2, now 4{end}" in refused(whole, export, images, batch_size=4)
    assert f"another format (format parquet, now npz{end}" in refused(whole, export, images, file_format="npz")
    renamed = write_set(tmp_path / "renamed")
    (renamed / "train/a/0.png").rename(renamed / "train/a/00.png")
    assert "begun with other images (images " in refused(whole, export, renamed)
    with lock_folder(whole):
        assert "is in use by process" in refused(whole, export, images)
    with pytest.raises(UserError, match=r"^out=.* is not empty, and holds no features: name a new folder$"):
        embed_small(export, images, images)


def test_pyarrow_is_needed_for_parquet_alone(
    export: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "pyarrow"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    arguments = f"model={export}", "data=folder", f"root={images}", f"out={tmp_path / 'features'}", "workers=0"
    done = run_command("embed", *arguments)
    assert (done.code, done.err) == (2, (
        "error: parquet needs pyarrow, which is not installed: pip install 'ssl-adapt[embed]', or type format=npz\n"
    ))  # fmt: skip
    assert not (tmp_path / "features").exists()
    done = run_command("embed", *arguments, "format=npz")
    assert done.code == 0, done.err
    assert "20 images in 2 files" in done.out


def test_parts_are_whole_batches() -> None:
    assert [rows_of_a_part(batch_size) for batch_size in (1, 500, 8192, 10000)] == [8192, 8000, 8192, 10000]
    parts = plan_parts({"train": 20000, "test": 5}, 8000, "parquet")
    assert [part[2:] for part in parts] == [(0, 8000), (8000, 16000), (16000, 20000), (0, 5)]
    assert parts[1].name == "train-00001-of-00003.parquet"
    assert plan_parts({"test": 16000}, 8000, "npz")[1] == ("test-00001-of-00002.npz", "test", 8000, 16000)
