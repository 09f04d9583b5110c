"""Tars that are untrusted: nothing leaves the tar, nothing takes memory without end."""

import bz2
import gzip
import io
import lzma
import os
import tarfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from image_folders import PX, Member, all_images, member, png, write_tar
from PIL import Image

from ssl_adapt.data import ImageSet, load_image_splits

TWO: tuple[Member, ...] = (("a/0.png", png(0)), ("b/0.png", png(1)))
TARS = ["w", "w:gz", "w:bz2", "w:xz"]


def load(tar: Path, *, on_bad_image: str = "replace", memory_limit_bytes: int = 2**20) -> ImageSet:
    return load_image_splits(
        "folder",
        root=tar,
        image_px=PX,
        memory_limit_bytes=memory_limit_bytes,
        on_bad_image=on_bad_image,  # type: ignore[arg-type]
    ).train


def pixels_of(content: bytes) -> torch.Tensor:
    return torch.from_numpy(np.array(Image.open(io.BytesIO(content)))).permute(2, 0, 1)


@pytest.mark.parametrize("mode", TARS)
@pytest.mark.parametrize("pack", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_links_are_followed_to_files_of_the_tar(
    tmp_path: Path, mode: str, pack: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tarfile.TarFile, "format", pack)
    links: list[Member] = [
        member("a/1.png", kind=tarfile.SYMTYPE, target="0.png"),
        member("a/2.png", kind=tarfile.SYMTYPE, target="../b/0.png"),
        member("./a/3.png", kind=tarfile.LNKTYPE, target="./b/0.png"),
        member("a/4.png", kind=tarfile.SYMTYPE, target="5.png"),  # a link to a link that comes later
        member("a/5.png", kind=tarfile.LNKTYPE, target="/a/0.png"),
        member("a/6.png", kind=tarfile.SYMTYPE, target="/b/0.png"),
    ]
    images = all_images(load(write_tar(tmp_path / "a.tar", *TWO, *links, mode=mode), on_bad_image="error"))
    wanted = [pixels_of(png(seed)) for seed in (0, 0, 1, 1, 0, 0, 1, 1)]
    assert torch.equal(images, torch.stack(wanted))


NOWHERE, NO_FILE = "it is a link to no file in the tar", "it is a device or a pipe, not a file"
LEFT_OUT: dict[str, tuple[list[Member], dict[str, str]]] = {
    "names that leave": (
        [("../c.png", png()), ("a/../../d.png", png())],
        dict.fromkeys(("../c.png", "../d.png"), "its name leaves the tar"),
    ),
    "link out": ([member("a/1.png", kind=tarfile.SYMTYPE, target="../../etc/passwd")], {"a/1.png": NOWHERE}),
    "absolute link": ([member("a/1.png", kind=tarfile.SYMTYPE, target="/etc/passwd")], {"a/1.png": NOWHERE}),
    "hard link out": ([member("a/1.png", kind=tarfile.LNKTYPE, target="/etc/passwd")], {"a/1.png": NOWHERE}),
    "link to a folder": (
        [member("a/1.png", kind=tarfile.SYMTYPE, target="../b"), member("b", kind=tarfile.DIRTYPE)],
        {"a/1.png": NOWHERE},
    ),
    "links in a ring": (
        [
            member("a/1.png", kind=tarfile.SYMTYPE, target="2.png"),
            member("a/2.png", kind=tarfile.LNKTYPE, target="a/1.png"),
        ],
        dict.fromkeys(("a/1.png", "a/2.png"), NOWHERE),
    ),
    "pipe": ([member("a/1.png", kind=tarfile.FIFOTYPE)], {"a/1.png": NO_FILE}),
    "device": ([member("a/1.png", kind=tarfile.CHRTYPE)], {"a/1.png": NO_FILE}),
    "no images": (
        [member("a/pipe", kind=tarfile.FIFOTYPE), member("words.txt", kind=tarfile.SYMTYPE, target="/etc/passwd")],
        {},
    ),
}


@pytest.mark.parametrize("mode", ["w", "w:gz"])
@pytest.mark.parametrize("kind", LEFT_OUT)
def test_members_that_are_no_files_of_the_tar(tmp_path: Path, kind: str, mode: str) -> None:
    members, expected = LEFT_OUT[kind]
    tar = write_tar(tmp_path / "a.tar", *TWO, *members, mode=mode)
    train = load(tar)
    assert train.bad_images == expected
    assert torch.equal(all_images(train), torch.stack([pixels_of(png(0)), pixels_of(png(1))]))
    assert train.classes == ("a", "b")
    if expected:
        name, reason = next(iter(expected.items()))
        with pytest.raises(ValueError, match=r"^cannot read the image") as caught:
            load(tar, on_bad_image="error")
        assert str(caught.value).startswith(
            f"cannot read the image {name!r} in {tar} ({reason}): replace or remove it,"
        )


def test_absolute_names_are_taken_as_tar_takes_them(tmp_path: Path) -> None:
    train = load(write_tar(tmp_path / "a.tar", ("/etc/a/0.png", png(0)), ("/etc/b/x/../0.png", png(1))))
    assert train.classes == ("a", "b")
    assert train.bad_images == {}


@pytest.mark.parametrize("again", ["a/0.png", "./a/0.png", "/a/0.png", "b/../a/0.png"])
def test_a_name_that_comes_twice(tmp_path: Path, again: str) -> None:
    link = member(again, kind=tarfile.SYMTYPE, target="../b/0.png")
    for number, second in enumerate([(again, png(2)), link]):
        tar = write_tar(tmp_path / f"{number}.tar", *TWO, second)
        with pytest.raises(ValueError, match="twice") as caught:
            load(tar)
        assert str(caught.value) == f"data.root={tar} holds 'a/0.png' twice: write it again with every file once"


def test_folders_may_come_twice(tmp_path: Path) -> None:
    folders = [member("a", kind=tarfile.DIRTYPE), member("./a/", kind=tarfile.DIRTYPE)]
    assert len(load(write_tar(tmp_path / "a.tar", *folders, *TWO))) == 2


def sparse_tar(path: Path, content: bytes, *, gap: int) -> Path:
    """A tar with a.bmp as GNU tar --sparse writes it: `content`, then a hole of `gap` bytes; and b.png."""
    size = len(content)
    head = bytearray(tarfile.TarInfo("a.bmp").tobuf(tarfile.GNU_FORMAT))
    head[124:136] = b"%011o\0" % size  # stored
    head[156:157] = tarfile.GNUTYPE_SPARSE
    head[386:410] = b"%011o\0%011o\0" % (0, size)
    head[410:434] = b"%011o\0%011o\0" % (size + gap, 0)
    head[483:495] = b"%011o\0" % (size + gap)
    head[148:156] = b"        "
    head[148:156] = b"%06o\0 " % sum(head)
    rest = write_tar(path, ("b.png", png())).read_bytes()
    path.write_bytes(bytes(head) + content + bytes(-size % 512) + rest)
    return path


def test_sparse_files_have_their_holes(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.new("RGB", (PX, PX), (9, 9, 9)).save(file, format="BMP")
    content = file.getvalue()[:54]  # the header; all the pixels are a hole
    images = all_images(load(sparse_tar(tmp_path / "a.tar", content, gap=3 * PX * PX), on_bad_image="error"))
    assert torch.equal(images, torch.stack([torch.zeros(3, PX, PX, dtype=torch.uint8), pixels_of(png())]))
    with pytest.raises(ValueError, match=r"or has sparse files and needs more than the 1,048,576 bytes"):
        load(sparse_tar(tmp_path / "b.tar", content, gap=2**32))


@pytest.mark.parametrize("opener", [gzip.open, bz2.open, lzma.open])
@pytest.mark.parametrize("claimed_as", [b"0", b"L", b"x"], ids=["file", "long name", "pax header"])
def test_a_bomb_takes_no_memory(tmp_path: Path, opener: object, claimed_as: bytes) -> None:
    header = tarfile.TarInfo("c.png")
    header.size, header.type = 2**28, claimed_as
    two = write_tar(tmp_path / "two.tar", *TWO).read_bytes()
    bomb = tmp_path / "bomb.tar"
    with opener(bomb, "wb") as file:  # type: ignore[operator]
        file.write(two[: len(two.rstrip(b"\0")) // 512 * 512 + 512] + header.tobuf(tarfile.GNU_FORMAT))
        for _ in range(32):
            file.write(bytes(2**20))
    assert bomb.stat().st_size < 2**16
    tracemalloc.start()
    try:
        with pytest.raises(
            ValueError, match=r"bomb.tar is compressed .* needs more than the 1,048,576 bytes .*plain .tar"
        ):
            load(bomb)
        assert tracemalloc.get_traced_memory()[1] < 16 * 2**20  # xz itself takes 10
    finally:
        tracemalloc.stop()


def with_size(name: str, number: bytes, kind: bytes = b"0") -> bytes:
    header = bytearray(tarfile.TarInfo(name).tobuf(tarfile.GNU_FORMAT))
    header[124:136], header[156:157], header[148:156] = number, kind, b"        "
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


@pytest.mark.parametrize("kind", [b"0", b"x", b"L", b"S", b"Z"])
@pytest.mark.parametrize("size", [-512, -1024, 2**40, 2**70, -(2**70)])
def test_sizes_that_cannot_be(tmp_path: Path, kind: bytes, size: int) -> None:
    two = write_tar(tmp_path / "two.tar", *TWO).read_bytes()
    number = (size % 256**12).to_bytes(12, "big") if size < 0 else b"\x80" + size.to_bytes(11, "big")
    for place in (0, 1024):  # before all others, and between them; a PNG takes one block after its header
        (tmp_path / "a.tar").write_bytes(two[:place] + with_size("c.png", number, kind) + two[place:])
        with pytest.raises(ValueError, match="is neither a folder nor a tar that can be read") as caught:
            load(tmp_path / "a.tar")
        assert "\n" not in str(caught.value)


def test_headers_in_headers_end(tmp_path: Path) -> None:
    long_name = with_size("c.png", b"%011o\0" % 4, b"L") + b"d.p\0".ljust(512, b"\0")
    (tmp_path / "a.tar").write_bytes(long_name * 5000)
    with pytest.raises(ValueError, match="is neither a folder nor a tar that can be read"):
        load(tmp_path / "a.tar")


def test_a_plain_tar_may_begin_as_a_compressed_one_does(tmp_path: Path) -> None:
    assert len(load(write_tar(tmp_path / "a.tar", ("BZh/0.png", png(0)), ("BZh/1.png", png(1))))) == 2


def test_a_root_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.tar")
    with pytest.raises(ValueError, match=r"is neither a folder nor a tar that can be read .it is a device or a pipe"):
        load(tmp_path / "a.tar")
