"""What trackers receive, read back from their files."""

import json
import sqlite3
import struct
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from short_runs import assert_same_weights, run

from ssl_adapt.recipe import load_recipe
from ssl_adapt.report.tracked_cells import draw_tracked_cells
from ssl_adapt.runs.trackers import flat_config, tracked_numbers
from ssl_adapt.training.loop import pretrain
from ssl_adapt.training.pictures import draw_views

SHORT = ("train.max_steps=4", "run.log_every_steps=2", "knn.every_epochs=1")
SCALARS = {"train/loss", "train/lr", "train/theta_lr", "time/views_ms", "epoch/loss", "eval/knn_top1", "network/macs"}


def track(folder: Path, tracker: str) -> None:
    arguments = [
        "recipe=debug", "data.image_px=8", "model.args={width: 4, layers: [1, 2]}", "data.batch_size=128", *SHORT,
        f"run.dir={folder}", f"run.trackers=[{tracker}]",
    ]  # fmt: skip
    pretrain(load_recipe(arguments), draw_tracked_cells)


def test_tensorboard_gets_numbers_the_recipe_and_pictures_and_changes_nothing(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    track(tmp_path / "a", "tensorboard")
    found = EventAccumulator(str(tmp_path / "a" / "debug"))
    found.Reload()
    tags = found.Tags()
    assert set(tags["scalars"]) >= SCALARS
    assert [point.step for point in found.Scalars("train/loss")] == [2, 4]
    assert [point.step for point in found.Scalars("eval/knn_top1")] == [0, 2, 4], "before, at the fix and after"
    assert set(tags["images"]) == {"views", "cells"}
    [views], [cells] = found.Images("views"), found.Images("cells")
    assert (views.step, cells.step) == (0, 2)
    assert (views.width, views.height) == (3 * 64 + 4 * 4, 8 * 64 + 9 * 4)
    assert cells.width > 300
    [file] = (tmp_path / "a" / "debug").rglob("hparams.yml")
    assert "train.lr: 0.002\n" in file.read_text()
    run(tmp_path / "b", *SHORT)
    assert_same_weights(tmp_path / "a", tmp_path / "b")


def records_of(data: bytes) -> Iterator[bytes]:
    """The records of a file of wandb: LevelDB's log, in blocks of 32 KiB, after a head of 7 bytes."""
    place, record = 7, b""
    while place < len(data):
        if (left := 32768 - place % 32768) < 7:  # of a block, whose end is padding
            place += left
            continue
        length, kind = struct.unpack_from("<4xHB", data, place)
        record = (
            data[place + 7 : place + 7 + length] if kind in (1, 2) else record + data[place + 7 : place + 7 + length]
        )
        if kind in (1, 4):  # whole, or the last part
            yield record
        place += 7 + length


@pytest.mark.slow
def test_wandb_writes_to_the_run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2

    monkeypatch.delenv("WANDB_MODE", raising=False)
    track(tmp_path / "a", "wandb")
    [path] = (tmp_path / "a" / "wandb").glob("offline-run-*/*.wandb")
    history: list[dict[str, Any]] = []
    config: dict[str, Any] = {}
    for data in records_of(path.read_bytes()):
        record = wandb_internal_pb2.Record.FromString(data)
        if items := {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}:
            history.append(items)
        config |= {item.key: json.loads(item.value_json) for item in record.config.update if item.key}
        config |= {item.key: json.loads(item.value_json) for item in record.run.config.update if item.key}
    assert {key for items in history for key in items} >= SCALARS
    assert [items["_step"] for items in history if "train/loss" in items] == [2, 4]
    assert config["train.lr"] == 0.002
    pictures = sorted(file.name.partition("_")[0] for file in path.parent.rglob("*.png"))
    assert pictures == ["cells", "views"]


@pytest.mark.slow
def test_mlflow_writes_to_the_run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name in ("a", "b"):  # a second run of the same process has a store of its own
        track(tmp_path / name, "mlflow")
        client = mlflow.MlflowClient(tracking_uri=(tmp_path / name / "mlruns").as_uri())
        [experiment] = [found for found in client.search_experiments() if found.name == "debug"]
        [found] = client.search_runs([experiment.experiment_id])
        assert found.info.run_name == name
        assert found.data.metrics.keys() >= SCALARS
        assert [point.step for point in client.get_metric_history(found.info.run_id, "train/loss")] == [2, 4]
        assert found.data.params["train.lr"] == "0.002"
        pictures = [file.path for file in client.list_artifacts(found.info.run_id, "pictures")]
        assert pictures == ["pictures/cells_step_2.png", "pictures/views_step_0.png"]


@pytest.mark.slow
@pytest.mark.skipif(find_spec("trackio") is None, reason="trackio is not installed")
def test_trackio_writes_to_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # before its import
    track(tmp_path / "a", "trackio")
    [database] = (tmp_path / "trackio").glob("debug*.db")
    with sqlite3.connect(database) as connection:
        rows = connection.execute("select step, metrics from metrics order by id").fetchall()
        [config] = connection.execute("select config from configs").fetchone()
    metrics = [(step, json.loads(text)) for step, text in rows]
    assert {key for _, values in metrics for key in values} >= SCALARS | {"views", "cells"}
    assert [step for step, values in metrics if "train/loss" in values] == [2, 4]
    assert json.loads(config)["train.lr"] == 0.002
    assert len(list((tmp_path / "trackio").rglob("*.png"))) == 2


def test_the_recipe_is_flat() -> None:
    values: dict[str, Any] = {"a": {"b": 1, "c": {"d": None, "e": (1, 2)}}, "f": True, "g": {}}
    assert flat_config(values) == {"a.b": 1, "a.c.d": "null", "a.c.e": "(1, 2)", "f": True, "g": "{}"}


def test_numbers_have_the_same_names_for_all() -> None:
    step = {"loss": 1.5, "lr": 0.1, "ms": {"views": 2.0}, "note": "text", "flag": True}
    assert tracked_numbers("step", step) == {"train/loss": 1.5, "train/lr": 0.1, "time/views_ms": 2.0}
    assert tracked_numbers("evaluation", {"knn_top1": 0.5}) == tracked_numbers("result", {"knn_top1": 0.5})
    assert tracked_numbers("start", {"cores": 2}) == {}
    assert tracked_numbers("recalibrated", {"knn_top1": 0.5}) == {"recalibrated/knn_top1": 0.5}


def test_a_grid_has_a_row_for_each_image_and_a_column_for_each_view() -> None:
    images, views = torch.zeros(2, 3, 8, 8), torch.ones(2, 3, 8, 8)
    views[1, 1:] = 0
    pixels = np.asarray(draw_views([images, views * 3]))
    assert pixels.shape == (2 * 64 + 12, 2 * 64 + 12, 3)
    assert pixels[36, 36].tolist() == pixels[104, 36].tolist() == [0, 0, 0]
    assert (pixels[36, 104].tolist(), pixels[104, 104].tolist()) == ([255, 255, 255], [255, 0, 0])
