"""Runs that begin with the skips which the plain network lacks, and take those away that hurt."""

from functools import partial

import short_runs
import torch
from short_runs import SUPERVISED, assert_same_weights, events
from small_networks import BOTTLENECKS, images, small

from ssl_adapt import Architecture, load_export
from ssl_adapt.adaptation.edge import Zero
from ssl_adapt.adaptation.removal import Change, changed, make_change, removable_skips

BASE = [
    *SUPERVISED, "data.train_images=192", "data.batch_size=64", "model.name=resnet20_bottleneck",
    "model.args={width: 4, layers: [1, 2]}", "adapt.score=removal", "adapt.none_start=1", "adapt.score_batches=2",
    "adapt.epochs=1", "adapt.mode=hard", "adapt.anneal_epochs=0",
]  # fmt: skip


def run(folder, *more):
    """Later arguments take the place of earlier ones."""
    given = {argument.partition("=")[0]: argument for argument in (*BASE, *more)}
    return short_runs.run(folder, *given.values(), base=[])


def test_a_run_takes_skips_away_and_nothing_else(tmp_path):
    """Only none edges may differ from the plain network at the end, and what the log says was taken is gone."""
    run(tmp_path / "a", "train.lr=0.3", "train.epochs=2")
    [choice], [fix] = events(tmp_path / "a", "choice"), events(tmp_path / "a", "fix")
    names = [change.partition(" -> ")[0] for change in choice["scores"]]
    assert len(names) == 9
    assert all(".null" in name for name in names)
    assert {change.partition(" -> ")[2] for change in choice["scores"]} == {"original"}
    scores = zip(names, choice["scores"].values(), strict=True)
    taken = {name for name, (value, error, _) in scores if value + 2 * error < 0}
    assert set(choice["choices"]) == taken
    assert set(fix["changed"]) == set(names) - taken
    assert set(fix["changed"].values()) <= {"identity"}
    assert Architecture.of(load_export(tmp_path / "a/export")).changed == fix["changed"]


def test_it_resumes_to_the_bit(tmp_path):
    """Stopped just before the choice, and after it."""
    run(tmp_path / "whole", "train.epochs=3")
    short_runs.run_in_parts(partial(run, tmp_path / "parts", "train.epochs=3"), (1, 2))
    assert_same_weights(tmp_path / "whole", tmp_path / "parts")
    assert events(tmp_path / "parts", "fix")[0]["changed"] == events(tmp_path / "whole", "fix")[0]["changed"]


def test_a_skip_is_taken_away_for_a_while_or_for_good():
    model = small("resnet20_bottleneck", **BOTTLENECKS).eval()
    specs = {spec.name: spec for spec in model.edge_specs()}
    plain = model(images())
    skips = [name for name, spec in specs.items() if spec.kind == "none"]
    make_change(model, specs, Change(tuple(skips), "identity"))
    with_skips = model(images())
    assert not torch.equal(with_skips, plain)
    changes = removable_skips(Architecture.of(model), [*specs.values()])
    assert [change.edges for change in changes] == [(name,) for name in skips]
    grouped = removable_skips(Architecture.of(model), [*specs.values()], "cell")
    assert sorted(name for change in grouped for name in change.edges) == sorted(skips)
    assert len(grouped) < len(skips)
    everything = Change(tuple(skips), "original")
    with changed(model, specs, everything):
        assert torch.equal(model(images()), plain)
    assert torch.equal(model(images()), with_skips)
    make_change(model, specs, everything)
    assert torch.equal(model(images()), plain)
    assert all(isinstance(model.get_submodule(name), Zero) for name in skips)
    assert Architecture.of(model).changed == {}
