"""scripts/knn_eval.py end to end on the digits: the scores, the defaults of a run, the tables, the help."""

import io
import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from image_folders import write_images
from rich.console import Console
from script_calls import MEAN, PX, STD, create_export, create_run, run_script
from torch import Tensor, nn

from ssl_adapt.commands.knn_command import KnnOptions
from ssl_adapt.data import load_image_splits
from ssl_adapt.evaluation.frozen_network import load_network
from ssl_adapt.evaluation.knn import KnnResult, evaluate_knn
from ssl_adapt.evaluation.progress_bar import show_progress
from ssl_adapt.evaluation.protocol import KnnProtocol
from ssl_adapt.evaluation.score import Score, Scores, create_settings, score_model
from ssl_adapt.evaluation.score_report import print_scores, scores_to_json
from ssl_adapt.evaluation.subject import RunDefaults
from ssl_adapt.recipe import load_recipe, save_recipe
from ssl_adapt.recipe.keys import schema_keys
from ssl_adapt.recipe.read import read_options

SIMCLR = KnnProtocol.preset("simclr_cifar")


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return create_export(tmp_path_factory.mktemp("models") / "export")


def direct_score(features: Callable[[Tensor], Tensor], protocol: KnnProtocol, px: int = PX) -> KnnResult:
    """The kNN of the digits, with nothing between the images and `evaluate_knn`."""
    train, test = load_image_splits("digits", image_px=px)
    assert test is not None
    assert train.labels is not None
    assert test.labels is not None
    bank, queries = (
        torch.cat([features(chunk) for chunk in split.images(torch.arange(len(split))).split(500)])
        for split in (train, test)
    )
    return evaluate_knn(bank, train.labels, queries, test.labels, protocol)


def network_features(network: nn.Module) -> Callable[[Tensor], Tensor]:
    network.eval()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))

    def features(images: Tensor) -> Tensor:
        with torch.no_grad():
            return network((images.float() / 255 - mean) / std)

    return features


def pixel_features(images: Tensor) -> Tensor:
    return images.flatten(1).float()


def row(output: str, name: str) -> list[str]:
    """The cells after the name, in the line of the first table that starts with it."""
    lines = [line for line in output.splitlines() if line.startswith(f"{name} ")]
    assert len(lines) == 1, output
    return lines[0].removeprefix(name).split()


def expected_values(result: KnnResult, features: int) -> dict[str, Any]:
    per_class = {str(label): top1 for label, top1 in result.per_class.items()}
    return {"top1": result.top1, "top5": result.top5, "features": features, "per_class": per_class}


def test_the_scores_are_those_of_evaluate_knn(export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(export.parent)
    name = f"local-dir:{export}"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        random = timm.create_model(name, pretrained=False, num_classes=0)
    pretrained = timm.create_model(name, pretrained=True, num_classes=0)
    expected = {
        "model": (direct_score(network_features(pretrained), SIMCLR), 32),
        "random_weights": (direct_score(network_features(random), SIMCLR), 32),
        "raw_pixels": (direct_score(pixel_features, SIMCLR), 3 * PX * PX),
    }
    assert len({result.top1 for result, _ in expected.values()}) == 3, "the rows could be mixed up unseen"

    output = run_script("model=export", "data=digits", "device=cpu", f"json={tmp_path / 'scores.json'}")

    assert output.code == 0, output.err
    values = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))
    assert values.pop("scores") == {key: expected_values(*score) for key, score in expected.items()}
    assert values == {
        "model": "export", "pretrained": True, "data": "digits", "root": None, "image_px": PX,
        "protocol": {"layer": "backbone", "k": 200, "temperature": 0.5, "weighting": "exp"},
        "bank": 1297, "queries": 500,
    }  # fmt: skip
    names = {"model": "export", "random_weights": "the same network, random weights", "raw_pixels": "raw pixels"}
    for key, (result, features) in expected.items():
        assert row(output.out, names[key]) == [f"{result.top1:.2%}", f"{result.top5:.2%}", str(features)]
    assert f"{SIMCLR}; bank 1,297, queries 500; digits at 16 px" in output.out.splitlines()
    shown = [row(output.out, str(label)) for label in range(10)]
    assert shown == [[f"{top1:.2%}"] for top1 in expected["model"][0].per_class.values()]


def test_a_run_folder_brings_its_data_and_protocol(export: Path, tmp_path: Path) -> None:
    overrides = "knn.k=9", "knn.weighting=majority", "knn.layer=projection"
    run = create_run(tmp_path / "run", export, *overrides)
    output = run_script(f"model={run}", "baselines=false", f"json={tmp_path / 'scores.json'}")
    assert output.code == 0, output.err
    network = timm.create_model(f"local-dir:{export}", pretrained=True, num_classes=0)
    protocol = KnnProtocol(layer="backbone", k=9, temperature=None, weighting="majority")
    values = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))
    assert values["scores"] == {
        "model": expected_values(direct_score(network_features(network), protocol), 32),
        "random_weights": None,
        "raw_pixels": None,
    }
    assert f"{protocol}; bank" in output.out
    assert "raw pixels" not in output.out


def test_the_bank_of_a_run_is_what_it_trained_on(export: Path, tmp_path: Path) -> None:
    run = create_run(tmp_path / "run", export, "data.train_images=300")
    output = run_script(f"model={run}", "baselines=false")
    assert output.code == 0, output.err
    assert "bank 300, queries 500" in output.out


def test_a_supervised_run_is_scored_by_the_usual_protocol(export: Path, tmp_path: Path) -> None:
    supervised = "recipe=supervised_resnet20", "data.name=digits", "data.image_px=8"
    (tmp_path / "run").mkdir()
    save_recipe(load_recipe(supervised), tmp_path / "run" / "recipe.yaml")
    (tmp_path / "run" / "export").symlink_to(export)
    output = run_script(f"model={tmp_path / 'run'}", "baselines=false")
    assert output.code == 0, output.err
    assert f"{SIMCLR}; bank 1,297, queries 500" in output.out


def test_an_ivf_search_adds_its_recall(export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")  # workers have long temporary folders, which would take two lines
    path = tmp_path / "scores.json"
    output = run_script(f"model={export}", "data=digits", "search=ivf", "probes=9", "device=cpu", f"json={path}")
    assert output.code == 0, output.err
    values = json.loads(path.read_text(encoding="utf-8"))
    assert (values["search"], values["probes"]) == ("ivf", 9)
    names = {"model": str(export), "random_weights": "the same network, random weights", "raw_pixels": "raw pixels"}
    recalls = {key: score["recall"] for key, score in values["scores"].items()}
    assert recalls.keys() == names.keys()
    assert all(0.2 < recall < 1 for recall in recalls.values())
    cells = {key: row(output.out, name) for key, name in names.items()}
    assert {key: own[3] for key, own in cells.items()} == {key: f"{recall:.2%}" for key, recall in recalls.items()}
    assert f"{SIMCLR}; bank 1,297, queries 500, IVF search with 9 probes; digits" in output.out


def test_a_model_of_timm_with_random_weights_at_another_size(tmp_path: Path) -> None:
    path = tmp_path / "scores.json"
    arguments = "model=resnet20", "pretrained=false", "data=digits", "image_px=8", "protocol=plain", f"json={path}"
    output = run_script(*arguments)
    assert output.code == 0, output.err
    scores = json.loads(path.read_text(encoding="utf-8"))["scores"]
    assert scores["random_weights"] is None, "it would be the same network again"
    pixels = direct_score(pixel_features, KnnProtocol.preset("plain"), px=8)
    assert scores["raw_pixels"] == expected_values(pixels, 3 * 8 * 8)
    assert row(output.out, "resnet20, random weights")[2] == "64"


def test_a_class_without_test_images_is_null(export: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "images", *(f"train/{label}/{i}.png" for label in "a[b]" for i in range(3)))
    write_images(tmp_path / "images", "test/a/0.png")
    path = tmp_path / "scores.json"
    output = run_script(
        f"model=local-dir:{export}", "data=folder", f"root={tmp_path / 'images'}", "k=2", f"json={path}"
    )
    assert output.code == 0, output.err
    per_class = json.loads(path.read_text(encoding="utf-8"))["scores"]["model"]["per_class"]
    assert [label for label, top1 in per_class.items() if top1 is None] == ["[", "]", "b"]
    assert per_class["a"] in (0, 1)
    assert row(output.out, "b") == ["no", "images"]


RUN = RunDefaults("cifar10", "images", 3, 700, KnnProtocol(layer="backbone", k=9, temperature=0.2, weighting="exp"))
SETTINGS: list[tuple[list[str], RunDefaults | None, dict[str, Any]]] = [
    (["data=digits"], None, {"protocol": SIMCLR, "root": None, "workers": 4, "batch_size": 500}),
    ([], RUN, {"data": "cifar10", "root": "images", "train_images": 700, "workers": 3}),
    ([], RUN, {"protocol": replace(SIMCLR, k=9, temperature=0.2)}),
    (["k=5"], RUN, {"protocol": replace(SIMCLR, k=5, temperature=0.2)}),
    (["data=digits"], RUN, {"data": "digits", "root": None, "train_images": None}),
    ([], RUN._replace(labelled_share=0.1), {"train_images": 700, "labelled_share": 0.1}),
    (["data=digits"], RUN._replace(labelled_share=0.1), {"labelled_share": None}),
    ([], RUN._replace(protocol=None), {"protocol": SIMCLR, "train_images": 700}),
    (["root=other"], RUN, {"data": "cifar10", "root": "other"}),
    (["protocol=dino"], RUN, {"protocol": KnnProtocol.preset("dino")}),
    (["protocol=dino", "temperature=1e-1", "k=3"], RUN, {"protocol": replace(SIMCLR, k=3, temperature=0.1)}),
    (["weighting=majority"], RUN, {"protocol": replace(SIMCLR, k=9, temperature=None, weighting="majority")}),
    (["protocol=plain", "weighting=exp", "temperature=0.5"], RUN, {"protocol": replace(SIMCLR, k=20)}),
    (["workers=0", "batch_size=7", "image_px=8", "baselines=false"], RUN,
     {"workers": 0, "batch_size": 7, "image_px": 8, "baselines": False}),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "run", "expected"), SETTINGS)
def test_what_is_not_given_comes_from_the_run_or_the_preset(
    arguments: list[str], run: RunDefaults | None, expected: dict[str, Any]
) -> None:
    options = read_options(KnnOptions, ["model=resnet20", *arguments])
    settings = create_settings(options.model_dump(exclude_none=True), run)
    found = {**vars(settings.subject), **vars(settings)}
    assert {name: found[name] for name in expected} == expected


def test_random_weights_leave_torch_s_random_state_alone() -> None:
    before = torch.get_rng_state()
    first, second = (load_network("resnet20", pretrained=False) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    pairs = list(zip(first.parameters(), second.parameters(), strict=True))
    assert len(pairs) > 50
    assert all(torch.equal(a, b) for a, b in pairs)


def test_help_lists_every_key() -> None:
    keys = schema_keys(KnnOptions)
    for arguments in ([], ["--help"], ["model=x", "-h"]):
        output = run_script(*arguments)
        assert output.code == 0
        listed = re.findall(r"^  ([a-z_]+) {2,}\S", output.out.partition("Keys [")[2], re.MULTILINE)
        assert listed == list(keys)
    assert len(keys) == 18
    assert all(key.description in " ".join(output.out.split()) for key in keys.values())


def test_of_many_classes_the_best_and_the_worst_are_shown() -> None:
    per_class = {label: math.nan if label == 3 else label / 25 for label in range(25)}
    result = KnnResult(0.5, 0.6, per_class, SIMCLR, bank_count=1000, query_count=200)
    settings = create_settings({"model": "resnet20", "data": "digits"}, None)
    names = tuple(f"class {label:02}" for label in range(25))
    scores = Scores(settings, PX, names, Score(result, 64), None, None)
    output = io.StringIO()
    print_scores(scores, Console(file=output, width=80))
    expected = [f"class {label:02}" for label in (24, 23, 22, 21, 20, 5, 4, 2, 1, 0)]
    assert re.findall(r"^class \d\d", output.getvalue(), re.MULTILINE) == expected
    assert "class (best 5 and worst 5 of 25)" in output.getvalue()
    assert "raw pixels: not scored" in output.getvalue()
    shown = json.loads(scores_to_json(scores))["scores"]["model"]["per_class"]
    assert (len(shown), shown["class 03"], shown["class 24"]) == (25, None, 24 / 25)


def test_each_stage_is_told_to_its_end(export: Path) -> None:
    stages: dict[str, list[int | None]] = {}

    def begin(stage: str, total: int | None) -> Callable[[int], None]:
        stages[stage] = [total, 0]

        def advance(count: int) -> None:
            stages[stage][1] += count

        return advance

    settings = create_settings({"model": str(export), "data": "digits", "search": "ivf", "probes": 9}, None)
    score_model(settings, begin)
    told = [
        (f"{what}: {part}", [count, count])
        for what in ("network", "random weights", "raw pixels")
        for part, count in (("features of the bank", 1297), ("features of the queries", 500), ("search", 500))
        if what != "raw pixels" or part == "search"
    ]
    assert list(stages.items()) == [("reading the images", [None, 0]), *told]


def test_progress_is_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr", terminal := io.StringIO())
    for is_terminal in (False, True):
        monkeypatch.setattr(terminal, "isatty", lambda is_terminal=is_terminal: is_terminal)
        with show_progress() as begin:
            begin("reading", None)
            begin("search [all]", 4)(1)
        assert ("search [all]" in terminal.getvalue()) == ("25%" in terminal.getvalue()) == is_terminal
        assert bool(terminal.getvalue()) == is_terminal
