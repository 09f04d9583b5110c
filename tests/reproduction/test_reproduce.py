"""The paper's tables: their runs, their rows, and a whole table on the embedded digits."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console
from script_calls import run_here, run_script

from reproduction import paper, work
from reproduction.dry_run import dry_run
from reproduction.records import Record, read_record
from reproduction.starts import plain_network, random_changes
from reproduction.summary import jaccard, paired_p_value, summarise
from reproduction.systems import METHODS, NAT_ARGUMENTS, NETWORKS, Network
from reproduction.table_options import Request, read_request
from reproduction.table_runs import TableRun, plan_runs
from reproduction.work import reproduce
from ssl_adapt.adaptation.adaptation import Adaptation
from ssl_adapt.adaptation.architecture import Architecture
from ssl_adapt.backbones.genotypes import GENOTYPES
from ssl_adapt.recipe import load_recipe
from ssl_adapt.runs.grid import run_grid
from ssl_adapt.runs.grid_plan import LaunchOptions
from ssl_adapt.training.create_adaptation import create_adaptation

TABLES = [(table, scale) for table in (1, 3, 4) for scale in ("full", "cpu")]


def a_record(method: str, seed: int, accuracy: float, **values) -> Record:
    standard = {
        "before_fix": None, "after_fix": None, "recalibrated": None, "hours": 1.0, "changed": {}, "parameters": 5,
        "macs": 7,
    }  # fmt: skip
    return Record("resnet20", method, seed, accuracy, **{**standard, **values})


def test_the_paper_s_seeds_give_its_averages():
    assert len(paper.SEEDS) == 8
    for key, seeds in paper.SEEDS.items():
        assert fmean(seeds) == pytest.approx(paper.TABLES[1][key].average, abs=0.0061)
        assert stdev(seeds) == pytest.approx(paper.TABLES[1][key].std, abs=0.0061)


def test_rows_of_the_paper_s_own_numbers():
    network = next(network for network in NETWORKS[1, "full"] if network.key == "resnet20")
    theirs, ours = paper.SEEDS["ResNet20", "Original"], paper.SEEDS["ResNet20", "Full"]
    records = [a_record("original", seed, value) for seed, value in enumerate(theirs, 1)]
    records += [
        a_record("full", seed, value, hours=1.5, before_fix=9.0, after_fix=1.0, recalibrated=4.0, changed={"a": "none"})
        for seed, value in enumerate(ours, 1)
    ]
    original, full = summarise(1, [network], records[::-1])
    assert (original.method.key, full.method.key) == ("original", "full")
    assert (round(original.average, 2), original.std) == (91.66, pytest.approx(0.16, abs=0.006))
    assert (round(full.average, 2), full.paper.average, full.paper.hours) == (93.12, 93.12, 8.7)
    assert full.gain == pytest.approx(fmean(ours) - fmean(theirs))
    assert full.hours_ratio == pytest.approx(1.5)
    assert (full.gaps, full.changed, full.agreement) == ((9.0, 1.0, 4.0), (1.0, 1, 1), 1.0)
    assert (original.gaps, original.agreement, original.gain, original.p_value) == (None, None, None, None)
    assert full.p_value == pytest.approx(1.6e-5, rel=0.2)


def test_a_row_is_compared_with_the_original_of_its_own_seeds():
    network = next(network for network in NETWORKS[1, "full"] if network.key == "resnet20")
    records = [a_record("original", 1, 50.0, hours=9.0), a_record("original", 2, 90.0), a_record("full", 2, 91.0)]
    full = summarise(1, [network], records)[1]
    assert (full.gain, full.p_value, full.std, full.hours_ratio) == (1.0, None, None, 1.0)


def test_a_control_is_compared_with_its_source_too():
    network = next(network for network in NETWORKS[1, "full"] if network.key == "resnet20_nat")
    scores = {"original": (40.0, 42.0), "full_present": (50.0, 51.0), "random_present": (49.0, 48.0), "skips": (52.0,)}
    records = [
        replace(a_record(method, seed, score), network="resnet20_nat")
        for method, values in scores.items()
        for seed, score in enumerate(values, 1)
    ]
    rows = {row.method.key: row for row in summarise(1, [network], records)}
    assert (rows["random_present"].against, rows["random_present"].against_gain) == ("full_present", -2.0)
    assert rows["random_present"].against_p_value == pytest.approx(paired_p_value([49.0, 48.0], [50.0, 51.0]))
    assert rows["random_present"].gain == 7.5
    assert (rows["full_present"].against, rows["full_present"].against_gain) == ("skips", -2.0), "of seed 1 alone"
    assert (rows["skips"].against, rows["skips"].against_gain, rows["original"].against) == ("", None, "")


def test_the_t_test_against_its_formula():
    ours, theirs = [3.0, 5.0, 9.0], [1.0, 4.0, 3.0]
    t = fmean([2.0, 1.0, 6.0]) / (stdev([2.0, 1.0, 6.0]) / 3**0.5)
    assert t == pytest.approx(1.9640, abs=1e-4)
    assert paired_p_value(ours, theirs) == pytest.approx(1 - t / (2 + t * t) ** 0.5)  # two degrees of freedom
    assert paired_p_value([1.0], [2.0]) is None
    assert paired_p_value([2.0, 3.0], [1.0, 2.0]) is None, "equal differences have no variance"


def test_agreement():
    a, b, c = {"e": "none", "f": "identity"}, {"e": "none"}, {"e": "identity"}
    assert jaccard([a, b]) == 0.5
    assert jaccard([b, c]) == 0.0
    assert jaccard([a, b, c]) == pytest.approx(0.5 / 3)
    assert jaccard([b, b, {}]) == pytest.approx(1 / 3)
    assert jaccard([b, {}, {}]) == 0.0, "two seeds without changes say nothing"
    assert jaccard([a]) is None
    assert jaccard([{}, {}]) is None


@pytest.mark.parametrize(("table", "scale"), TABLES)
def test_every_run_of_every_table_has_a_recipe_and_a_network(table, scale):
    seen = 0
    for run in plan_runs(NETWORKS[table, scale], [1], scale, Path("x"), []):
        assert run.method.key in METHODS
        if run.is_second_round():
            assert run.method.how == "nat" or METHODS[run.method.source].key in run.network.methods
            continue
        recipe = load_recipe(run.arguments())
        network = plain_network(recipe)
        if recipe.adapt is not None:
            assert isinstance(create_adaptation(network, recipe.adapt), Adaptation)
        seen += 1
    assert seen >= 2 * len(NETWORKS[table, scale])


@given(seed=st.integers(0, 50), share=st.sampled_from([0, 3, 9]))
def test_random_changes_are_as_many_of_each_kind(seed, share):
    run = plan_runs(NETWORKS[1, "cpu"][:1], [1], "cpu", Path("x"), [])[0]
    specs = plain_network(run.recipe()).edge_specs()
    nones = [spec.name for spec in specs if spec.kind == "none"]
    operations = [spec.name for spec in specs if spec.kind == "operation"]
    changed = dict.fromkeys(nones[:share], "identity") | {operations[0]: "none", operations[1]: "identity"}
    drawn = random_changes(specs, changed, seed)
    assert sorted(drawn.values()) == sorted(changed.values())
    assert sum(name in nones for name in drawn) == share
    assert drawn == random_changes(specs, changed, seed)
    others = [random_changes(specs, changed, other) for other in range(60, 70)]
    assert any(other != drawn for other in others)


TINY = Network(
    "tiny", "ResNet20, NAT form, C 4", "ResNet20",
    ("recipe=supervised_resnet20", "data.name=digits", "data.image_px=8", "views.pad_px=1", "data.batch_size=64",
     "data.train_images=640", "model.name=resnet20_nat", "model.args.channels=4", "model.args.cells=3",
     "train.epochs=2", "train.lr=0.1"),
    ("original", "nat", "full_early", "scratch", "random"),
)  # fmt: skip


@pytest.mark.parametrize("start", [run_here, pytest.param(run_grid, marks=pytest.mark.slow)])
def test_a_table_from_the_first_run_to_the_files(tmp_path, monkeypatch, start):
    monkeypatch.setattr(work, "run_grid", start)
    monkeypatch.setitem(NAT_ARGUMENTS, "cpu", ("channels=4", "cells=3", "epochs=2"))
    network = TINY
    runs = plan_runs([network], [3], "cpu", tmp_path / "runs", [])
    request = Request(
        1, "cpu", (network,), tuple(runs), tuple(runs), tmp_path / "runs", tmp_path / "results",
        LaunchOptions(jobs=2),
    )  # fmt: skip
    console = Console(file=io.StringIO(), width=200)
    reproduce(request, console)
    records = {run.method.key: read_record(run) for run in runs}
    assert list(records) == list(network.methods)
    assert all(record is not None for record in records.values())
    assert all(record.accuracy > 20 for key, record in records.items() if key != "nat")  # which may cut its output
    changed = records["full_early"].changed
    assert changed
    assert set(changed.values()) == {"identity"}
    assert len(records["random"].changed) == len(changed)
    scratch = load_recipe([f"recipe={runs[3].path / 'recipe.yaml'}"])
    found = json.loads((runs[2].path / "architecture.json").read_text())
    assert (scratch.adapt, scratch.model.args["architecture"]) == (None, found)
    searched = json.loads(runs[1].search_path.read_text())
    assert records["nat"].hours > searched["seconds"] / 3600 > 0
    lines = list(csv.DictReader(io.StringIO((tmp_path / "results" / "table_1_cpu.csv").read_text())))
    assert [line["method"] for line in lines] == list(network.methods)
    table = json.loads((tmp_path / "results" / "table_1_cpu.json").read_text())
    assert table["rows"][2]["records"][0]["changed"] == changed
    assert table["facts"]["commit"]
    markdown = (tmp_path / "results" / "table_1_cpu.md").read_text()
    assert "| 55.78 | 42.34 | 14 |" in markdown

    other = replace(runs[0], network=replace(network, arguments=(*network.arguments, "train.weight_decay=0")))
    new = replace(other, seed=4)
    asked = replace(request, runs=(new,), listed=(other, new))
    with pytest.raises(ValueError, match=r"with other values: train\.weight_decay .*; remove that folder, or name"):
        reproduce(asked, console)
    assert not new.path.exists(), "that shows before any run is started"

    again = Console(file=io.StringIO(), width=200)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("result.json")}
    reproduce(request, again)
    assert "0 to do" in again.file.getvalue()
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("result.json")} == before


def test_a_control_whose_source_has_not_run(tmp_path):
    run = TableRun(TINY, METHODS["scratch"], 1, "cpu", tmp_path, ())
    with pytest.raises(ValueError, match=r"tiny-scratch-seed=1 starts from .*tiny-full_early-seed=1, which"):
        run.arguments()


def test_controls_of_runs_that_changed_nothing_are_left_out(tmp_path, monkeypatch):
    """What starts the runs is replaced: which they are is the question."""
    runs = plan_runs([TINY], [1, 2], "cpu", tmp_path, [])
    for run in runs:
        if run.method.key == "full_early":
            run.path.mkdir()
            edges = {spec.name: "original" for spec in plain_network(run.recipe()).edge_specs()}
            changed = {} if run.seed == 1 else {next(name for name in edges if name.endswith("edge_0_2")): "identity"}
            (run.path / "result.json").write_text(json.dumps({"changed": changed}))
            architecture = Architecture("resnet20_nat", {}, {**edges, **changed})
            (run.path / "architecture.json").write_text(architecture.to_json())
    for seed in (1, 2):
        (tmp_path / f"tiny-nat_genotype-seed={seed}.json").write_text(GENOTYPES["ResBlock"].to_json())
    started = []
    monkeypatch.setattr(work, "run_grid", lambda grid, _: started.append([run.name for run in grid.runs]))
    work.run_rounds(Request(1, "cpu", (TINY,), tuple(runs), (), tmp_path, tmp_path, LaunchOptions()), Console())
    assert len(started[0]) == 6
    assert started[1] == ["tiny-nat-seed=1", "tiny-nat-seed=2", "tiny-scratch-seed=2", "tiny-random-seed=2"]


def test_what_was_noted_before_stays(tmp_path):
    runs = tuple(plan_runs([TINY], [1], "cpu", tmp_path, []))
    for jobs in (2, 1, 2):
        request = Request(1, "cpu", (TINY,), runs, runs, tmp_path, tmp_path, LaunchOptions(jobs=jobs))
        work.record_facts(request, work.describe_images(runs[0].recipe()))
    facts = work.read_facts(request)
    assert facts["runs at a time"] == "2; 1"
    assert ";" not in facts["torch"]
    assert facts["images"] == "digits at 8 px: 640 training images, of 10 classes, and 500 test images"


def test_images_of_another_set_are_refused(tmp_path):
    for folder in ("train/a", "train/b", "val/a", "val/b"):
        (tmp_path / folder).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / folder / "0.png")
    recipe = load_recipe(["recipe=supervised_resnet20", "data.name=tiny_imagenet", f"data.root={tmp_path}"])
    with pytest.raises(ValueError, match=r"tiny_imagenet has 200 classes, and the images from .* are of 2: name anoth"):
        work.describe_images(recipe)


def test_seeds_of_earlier_calls_are_listed(tmp_path):
    for name in ("resnet20-original-seed=12", "resnet20-original-seed=x", "resnet20-original-seed=1-old2", "logs"):
        (tmp_path / name).mkdir()
    (tmp_path / "resnet20-nat_search-seed=13.json").write_text("{}")
    request = read_request(["table=1", "seeds=7", f"folder={tmp_path}"])
    assert {run.seed for run in request.listed} == {1, 2, 3, 4, 5, 7, 12}
    assert {run.seed for run in request.runs} == {7}


def test_a_dry_run_starts_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("images.tar").touch()
    request = read_request(["table=1", "seeds=1,2", "networks=resnet20_nat,proxyless", f"folder={tmp_path / 'runs'}",
                            "dry_run=true", "root=images.tar"])  # fmt: skip
    console = Console(file=io.StringIO(), width=300)
    dry_run(request, console)
    text = console.file.getvalue()
    assert "resnet20_nat-nat_search-seed=2: ssl-adapt nat recipe=" in text
    [random] = [line for line in text.splitlines() if line.startswith("resnet20_nat-random-seed=1: ")]
    expected = ["adapt.none_rule=threshold", "data.root=images.tar", "run.resume=auto", "adapt.choices=<found"]
    assert all(f" {word}" in random for word in expected)
    assert "| resnet20_nat-original-seed=1 | 326,458 | 47.7 | 4,295.5 | - |" in text
    assert "| proxyless-full-seed=1 | 2,812,322 | 96.8 | 9,433.4 | - |" in text
    assert "| resnet20_nat-nat-seed=1 | 326,458 | 47.7 | - | - |" in text
    assert "34 runs: 17 of each of 2 seeds" in text
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], ""),
        (["table=5"], "table: got 5, expected 1 | 2 | 3 | 4"),
        (["table=1", "seeds=1,1"], "seeds: got '1,1', expected different whole numbers between commas"),
        (["table=1", "networks=resnet18"], "networks: the table has no 'resnet18' at this scale; it has resnet20,"),
        (["table=1", "methods=best"], "methods: there is no 'best'; there are original, nat,"),
        (["table=1", "networks=proxyless", "methods=nat"], "none of the networks asked for has them"),
        (["table=1", "root=nowhere.tar"], "root: there is no nowhere.tar: name the folder or tar of the images"),
        (["table=1", "try_steps=true"], "try_steps=true has no meaning without dry_run=true"),
        (["table=1", "write_only=true", "folder=nowhere"], "no run in nowhere has finished: leave write_only out"),
    ],
)
def test_the_script(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    output = run_script(*arguments, script="reproduce.py")
    assert output.code == (2 if message else 0)
    assert message in output.err
    assert (output.err == "") == ("usage" in output.out)
    assert not list(tmp_path.iterdir())


def test_a_run_that_has_not_finished_has_no_record(tmp_path):
    run = TableRun(TINY, METHODS["original"], 1, "cpu", tmp_path, ())
    assert read_record(run) is None
