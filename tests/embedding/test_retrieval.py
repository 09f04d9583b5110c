"""`ssl-adapt retrieve`: the nearest images are those of all cosines, and the network is the one of the features."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pandas
import pytest
import timm
import torch
import torch.nn.functional as F
from embedding_run import NAMES, PARTS, content, embed_small, write_set
from image_folders import tar_of, write_images
from script_calls import create_export, run_command

import ssl_adapt
from ssl_adapt.embedding.feature_parts import Rows, write_rows
from ssl_adapt.embedding.manifest import MANIFEST
from ssl_adapt.embedding.retrieval import Result, retrieve
from ssl_adapt.errors import UserError


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the export, the images, and their features in six files."""
    folder = tmp_path_factory.mktemp("retrieval")
    embed_small(create_export(folder / "export"), write_set(folder / "set"), folder / "features")
    return folder


def search(place: Path, query: Path, k: int, model: str | None = None) -> list[Result]:
    rest = {"batch_size": 3, "device": torch.device("cpu"), "workers": 0}
    return retrieve(place / "features", query, k=k, model=model, **rest)


@pytest.mark.parametrize("k", [1, 5, 99])
@pytest.mark.parametrize("as_tar", [False, True])
def test_the_nearest_are_those_of_all_cosines(place: Path, tmp_path: Path, k: int, as_tar: bool) -> None:
    table = pandas.concat([pandas.read_parquet(place / "features" / part) for part in PARTS])
    features = F.normalize(torch.from_numpy(np.stack(table.features.tolist())).double())
    cosines = features @ features.T
    query = tar_of(place / "set", tmp_path / "set.tar", inside=".") if as_tar else place / "set"
    results = search(place, query, k)
    assert [result.query for result in results] == table.id.tolist() == sorted(NAMES)
    classes = dict(zip(table.id, table.class_name, strict=True))
    for index, (query_name, found) in enumerate(results):
        order = cosines[index].argsort(descending=True)[:k]
        assert [image.id for image in found] == table.id.iloc[order.tolist()].tolist()
        assert [image.cosine for image in found] == pytest.approx(cosines[index, order].tolist(), abs=1e-5)
        assert [image.class_name for image in found] == [classes[image.id] for image in found]
        assert found[0].id == query_name
        assert len(found) == min(k, 20)


def test_the_command_prints_them_and_writes_all(place: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "images", *(f'{index:02}, "x"\n.png' for index in range(22)))
    path = tmp_path / "near.csv"
    done = run_command(
        "retrieve", f"features={place / 'features'}", f"query={tmp_path / 'images'}", "k=3", f"csv={path}"
    )
    assert done.code == 0, done.err
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 66
    assert rows[0].keys() == {"query", "rank", "id", "class_name", "cosine"}
    assert [row["rank"] for row in rows] == ["1", "2", "3"] * 22
    assert rows[65]["query"] == '21, "x"\n.png'
    lines = done.out.splitlines()
    assert len(lines) == 20 * 4 + 1
    assert lines[0] == repr('00, "x"\n.png')
    assert lines[1].split() == [f"{float(rows[0]['cosine']):.4f}", rows[0]["id"], rows[0]["class_name"]]
    assert lines[-1] == f"2 more queries; {path} has all"
    one = run_command("retrieve", f"features={place / 'features'}", f"query={place / 'set/test/b/2.png'}", "k=1")
    assert one.out.split() == ["2.png", "1.0000", "test/b/2.png", "b"]


def test_npz_is_searched_too(place: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "flat", *(f"{index}.png" for index in range(6)))
    embed_small(place / "export", tmp_path / "flat", tmp_path / "features", file_format="npz")
    [(query, found)] = search(tmp_path, tmp_path / "flat/5.png", 2)
    assert (query, found[0].id, found[0].class_name) == ("5.png", "5.png", "")


def message(place: Path, query: Path, model: str | None = None) -> str:
    with pytest.raises(UserError) as error:
        search(place, query, 2, model)
    return str(error.value)


def _with_damage(place: Path, folder: Path) -> Path:
    """The same with features of one file that are not finite."""
    shutil.copytree(place / "features", folder / "features")
    rows = Rows("train", ["a"], torch.full((1, 32), float("nan")), None, None)
    write_rows(folder / "features" / PARTS[3], rows)
    return folder


def test_errors_say_what_to_type(place: Path, tmp_path: Path) -> None:
    image = place / "set/test/b/2.png"
    assert message(tmp_path, image).startswith(f"{tmp_path}/features holds no features: type the folder that")
    assert "query=" in message(place, tmp_path / "nothing.png")
    (tmp_path / "empty").mkdir()
    assert message(place, tmp_path / "empty").startswith(f"query={tmp_path / 'empty'} holds no images")
    (tmp_path / "bad.png").write_bytes(b"no image")
    assert message(place, tmp_path / "bad.png").endswith("(no image format): replace or remove it")
    other = ssl_adapt.export_timm(timm.create_model("resnet20", width=4, num_classes=0), tmp_path / "other")
    assert "has other weights than when" in message(place, image, str(other))

    assert message(_with_damage(place, tmp_path / "nan"), image).endswith("not finite: embed again")

    out, manifest = tmp_path / "features", content(place / "features")[MANIFEST].decode()
    out.mkdir()
    assert '"format_version":' in manifest
    for old, new, words in (
        ('"train"', '"../train"', "not as ssl-adapt embed writes it (counts.../train"),
        ('"format_version": 1', '"format_version": 2', "(format_version)"),
        ('"batch_size": 2', '"batch_size": 0', "(batch_size)"),
        ("{", "[", "(its text)"),
        (f"local-dir:{place / 'export'}", "hf-hub:anybody/net", "add model=hf-hub:anybody/net"),
        (f"local-dir:{place / 'export'}", "local-dir:/gone", "if the model lies elsewhere now, add model=FOLDER"),
    ):
        assert old in manifest
        (out / MANIFEST).write_text(manifest.replace(old, new))
        for part in PARTS:
            (out / part).write_bytes(b"no parquet")
        assert words in message(tmp_path, image), new
