"""WebDataset shards as one set: what is found, exactly once and in a repeatable order, and what is bad."""

import io
import os
import pickle
import tarfile
from pathlib import Path

import pytest
import torch
from image_folders import PX, all_images, member, png, write_tar
from shard_files import pixels, sample, write_shards

from ssl_adapt.data import Columns, ImageSplits, epoch_order, iterate_batches, load_image_splits
from ssl_adapt.data.shard_pattern import find_shards
from ssl_adapt.data.tar_headers import read_plain_headers


def load(root: Path | str, *, on_bad_image: str = "error", streams: bool = True, **columns: str) -> ImageSplits:
    return load_image_splits(
        "webdataset", root=root, image_px=PX, memory_limit_bytes=0 if streams else 2**20,
        on_bad_image=on_bad_image, columns=Columns(**columns),  # type: ignore[arg-type]
    )  # fmt: skip


@pytest.mark.parametrize("streams", [True, False])
@pytest.mark.parametrize("pattern", ["{0..2}.tar", "*.tar", "{0,1,2}.tar", "[0-2].tar", ""])
def test_a_pattern_names_all_images_and_their_classes(tmp_path: Path, pattern: str, streams: bool) -> None:
    labels = write_shards(tmp_path / "in", {"0.tar": 5, "1.tar": 4, "2.tar": 3}, classes=11)
    train, test = load(tmp_path / "in" / pattern, streams=streams)
    assert test is None
    assert train.classes == tuple(sorted({str(label) for label in labels}, key=int)) == ("0", *map(str, range(1, 11)))
    assert train.labels is not None
    assert train.labels.tolist() == labels
    assert torch.equal(all_images(train), pixels(*range(12)))
    assert torch.equal(all_images(pickle.loads(pickle.dumps(train))), all_images(train))


def test_two_processes_see_each_image_once_an_epoch(tmp_path: Path) -> None:
    write_shards(tmp_path, {"0.tar": 9, "1.tar": 7})
    train = load(tmp_path / "*.tar").train
    for epoch in range(2):
        order, seen = epoch_order(len(train), seed=0, epoch=epoch), []
        for share in order.view(2, 8).chunk(2, dim=1):  # batches of 8, shared out as a run does it
            batches = iterate_batches(train, share.flatten(), batch_size=4, device="cpu", workers=1, drop_last=True)
            for batch in batches:
                assert torch.equal(batch.images, pixels(*batch.indices.tolist()))
                seen += batch.indices.tolist()
        assert sorted(seen) == list(range(16))


def test_words_in_names_hold_shards_out(tmp_path: Path) -> None:
    write_shards(tmp_path / "a", {"imagenet1k-train-00.tar": 4, "imagenet1k-validation-00.tar": 3})
    train, test = load(tmp_path / "a")
    assert test is not None
    assert (len(train), len(test)) == (4, 3)
    assert torch.equal(all_images(test), pixels(4, 5, 6))
    for name in ("train", "test", "val"):
        write_shards(tmp_path / "b" / name, {"0.tar": 3})
    found = [(shard.name, shard.is_held_out) for shard in find_shards(tmp_path / "b" / "{train,test,val}" / "0.tar")]
    assert found == [("test/0.tar", True), ("train/0.tar", False)]
    alone = load(tmp_path / "b" / "test" / "{0..0}.tar")
    assert (len(alone.train), alone.test) == (3, None)


def test_labels_in_json_in_other_members_and_nowhere(tmp_path: Path) -> None:
    write_tar(tmp_path / "json.tar", *sample(0, "cat", as_json=True), *sample(1, 7, as_json=True))
    assert load(tmp_path / "json.tar").train.classes == ("7", "cat")
    assert load(tmp_path / "json.tar", label="caption").train.classes == ("a cat",)
    assert load(tmp_path / "json.tar", label="txt").train.classes == ("a cat",)
    write_tar(tmp_path / "none.tar", *sample(0, None), *sample(1, None))
    assert load(tmp_path / "none.tar").train.labels is None
    two = [(f"{key}.{ending}", png(seed)) for seed, key in enumerate("ab") for ending in ("jpg", "seg.png", "png")]
    write_tar(tmp_path / "two.tar", *two)
    with pytest.raises(ValueError, match=r"sample 'a' of the shard .* \(jpg, png\): name one of them by data.image_co"):
        load(tmp_path / "two.tar")
    assert len(load(tmp_path / "two.tar", image="seg.png").train) == 2


def test_bad_shards_are_errors_or_left_out_from_where_they_break_off(tmp_path: Path) -> None:
    write_shards(tmp_path, {"0.tar": 4, "1.tar": 4, "3.tar": 4})
    os.truncate(tmp_path / "1.tar", 9 * 1024 + 600)
    with pytest.raises(
        ValueError, match=r"^the shard \S*1.tar cannot be read to its end \(unexpected end of data\): r"
    ):
        load(tmp_path / "{0..3}.tar")
    train = load(tmp_path / "{0..3}.tar", on_bad_image="replace").train
    assert train.bad_images == {"1.tar": "unexpected end of data", "2.tar": "it is not there"}
    kept = len(train) - 8
    assert 0 < kept < 4
    assert torch.equal(all_images(train), pixels(*range(4 + kept), *range(8, 12)))
    with pytest.raises(
        ValueError, match=r"^the shard \S*2.tar cannot be read to its end \(it is not there\): replace o"
    ):
        load(tmp_path / "{2..3}.tar")


def test_bad_members_are_named_or_replaced(tmp_path: Path) -> None:
    members = [
        *sample(0, "a"),
        ("0001.cls", b"a"),
        ("0001.png", b""),
        *sample(2, "b"),
        *sample(3, "b"),
        *sample(4, None),
    ]
    write_tar(tmp_path / "0.tar", *members)
    with pytest.raises(
        ValueError, match=r"cannot read the image '0.tar/0004.png' .*\(it has no label, and others have\)"
    ):
        load(tmp_path)
    train = load(tmp_path, on_bad_image="replace").train
    assert torch.equal(all_images(train), pixels(0, 0, 2, 3))
    assert train.bad_images == {"0.tar/0004.png": "it has no label, and others have", "0.tar/0001.png": "it is empty"}
    write_tar(tmp_path / "0.tar", *members[:-2])
    with pytest.raises(
        ValueError, match=r"^cannot read the image '0.tar/0001.png' in \S+ \(it is empty\): replace or rem"
    ):
        all_images(load(tmp_path).train)


@pytest.mark.parametrize(
    ("label", "reason"),
    [(b"{", "its .json is not JSON: Exp"), (b'{"label": 1.5}', "label in .json is 1.5, nei"), (b"\xff", "is not text")],
)
def test_labels_that_cannot_be_read(tmp_path: Path, label: bytes, reason: str) -> None:
    write_tar(tmp_path / "0.tar", *sample(0, 1), *sample(1, 1), ("0002.json", label), ("0002.png", png(2)))
    with pytest.raises(ValueError, match=r"cannot read the image '0.tar/0002.png'") as caught:
        load(tmp_path)
    assert reason in str(caught.value)


def test_what_is_no_set_of_shards(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", ("a.txt", b"x"), ("b.cls", b"1"))
    with pytest.raises(ValueError, match=r"has no images in its samples \(their endings: txt, cls\)"):
        load(tmp_path / "0.tar")
    with pytest.raises(ValueError, match=r"names no shards: type a pattern such as 'shards/\{000000..000009\}.tar'"):
        load(tmp_path / "none*.tar")
    with pytest.raises(ValueError, match=r"names 100,000,000 shards: type the numbers"):
        load(tmp_path / "{0..99999999}.tar")
    write_shards(tmp_path, {"1.tar": 2})
    with pytest.raises(ValueError, match=r"^data.label_column=x: no sample of .* \(endings: cls, png, txt\)"):
        load(tmp_path / "1.tar", label="x")
    write_tar(tmp_path / "2.tar.gz", *sample(0, 1), mode="w:gz")
    with pytest.raises(ValueError, match=r"the shard \S*2.tar.gz is compressed or has sparse files"):
        load(tmp_path / "2.tar.gz")
    write_tar(tmp_path / "3.tar", *sample(0, 1), *sample(0, 1))
    with pytest.raises(ValueError, match=r"the shard \S*3.tar holds '0000.cls' twice"):
        load(tmp_path / "3.tar")


@pytest.mark.parametrize("pack", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_headers_are_read_as_tarfile_reads_them(tmp_path: Path, pack: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tarfile.TarFile, "format", pack)
    path = tmp_path / "a.tar"
    for name in ("a/0.png", "x" * 90 + "/" + "y" * 90, *(["z" * 300] if pack else []), "ä.png"):
        with tarfile.open(path, "w") as tar:
            for number, time in enumerate((0, 1.5)):
                header = tarfile.TarInfo(f"{number}{name}")
                header.mtime, header.size = time, 600
                tar.addfile(header, io.BytesIO(bytes(600)))
            tar.addfile(member("folder", kind=tarfile.DIRTYPE))
        with tarfile.open(path) as tar:
            expected = [(one.name, one.offset_data, one.size) for one in tar if one.isfile()]
        found = read_plain_headers(path)
        assert len(expected) == 2
        if name == "a/0.png":  # with times of parts of seconds, which WebDataset's writer has, too
            assert found is not None
        assert found is None or [tuple(one) for one in found] == expected


def test_headers_that_are_damaged_are_left_to_tarfile(tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "a.tar", ("a.png", png(0)), ("b.png", png(1))).read_bytes()
    assert read_plain_headers(tmp_path / "a.tar") is not None
    end = len(whole.rstrip(b"\0"))
    for place in (*range(0, 512, 7), 1100, 1180):
        spoilt = bytearray(whole)
        spoilt[place] ^= 1
        (tmp_path / "b.tar").write_bytes(spoilt)
        assert read_plain_headers(tmp_path / "b.tar") is None, place
    for length in range(0, end, 128):
        (tmp_path / "b.tar").write_bytes(whole[:length])
        assert read_plain_headers(tmp_path / "b.tar") is None, length
