"""The command line of NAT's search: each key acts or is refused, and what is wrong is said in a sentence."""

import re

import pytest
from script_calls import run_script

from reproduction.nat.nat_options import read_search_arguments, why_unused
from reproduction.systems import NETWORKS
from reproduction.table_runs import plan_runs
from ssl_adapt.recipe.keys import schema_keys

ACT = {  # on a search; every other key of a recipe is refused where it is typed
    "seed", "model.name", "objective.name", "objective.temperature", "objective.projector_hidden",
    "objective.projector_out", "objective.view_forward", "objective.label_smoothing", "objective.mixup_alpha",
    "data.name", "data.root", "data.image_px", "data.workers", "data.train_images", "data.labelled_share",
    "data.on_bad_image", "data.image_column", "data.label_column", "data.mean", "data.std",
}  # fmt: skip


def test_every_key_of_a_recipe_acts_or_is_refused():
    refused = set()
    keys = [f"{name}.x" if key.is_open else name for name, key in schema_keys().items() if not key.is_section]
    assert len(keys) > 70
    for name in keys:
        if name in ACT or name.startswith("views."):
            assert why_unused(name) == "", name
            continue
        is_refused = (
            rf"^{re.escape(name)} has (no effect on a search: .*(type|leave it out)|no meaning for objective\.name)"
        )
        with pytest.raises(ValueError, match=is_refused):
            read_search_arguments(["recipe=supervised_resnet20", "genotype=a.json", f"{name}=1"])
        refused.add(name.partition(".")[0])
    assert refused == {"name", "run", "data", "model", "objective", "train", "adapt", "knn"}


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("train.epochs=8", "train.epochs has no effect on a search: type epochs=VALUE"),
        ("data.batch_size=8", "data.batch_size has no effect on a search: type batch_size=VALUE"),
        ("train={epochs: 3, lr: 0.1}", "train.lr has no effect on a search: type weight_lr=VALUE"),
        ("model.args.cells=3", "model.args.cells has no effect on a search: .*: type cells=VALUE"),
        ("model={name: darts, args: {channels: 4}}", "model.args.channels has no effect .* type channels=VALUE"),
        ("model.args.drop_rate=0.1", "model.args.drop_rate has no effect .* type model.args.genotype=VALUE, or leave"),
        ("train.epoch=8", "train.epoch has no effect on a search: .* leave it out"),
    ],
)
def test_what_is_said_of_a_key_without_effect(typed, said):
    with pytest.raises(ValueError, match=said):
        read_search_arguments(["recipe=supervised_resnet20", "genotype=a.json", typed])


@pytest.mark.parametrize(
    "typed", ["adapt=null", "model.args={}", "model.args={genotype: DARTS_V1}", "model.args.genotype={normal: {}}"]
)
def test_what_has_an_effect_or_leaves_something_away_is_taken(typed):
    recipe, _ = read_search_arguments(["recipe=supervised_resnet20", "genotype=a.json", typed, "model.name=darts"])
    assert (recipe.adapt, recipe.model.name) == (None, "darts")


def test_a_recipe_s_own_stages_are_no_part_of_a_search():
    arguments = ["recipe=supervised_resnet20", "weight_lr=0.02", "genotype=a.json"]
    recipe, options = read_search_arguments(arguments)
    assert (recipe.adapt, options.weight_lr) == (None, 0.02)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["epoch=3", "genotype=a.json"], "unknown key 'epoch'; did you mean 'epochs'?"),
        (["data.batchsize=3", "genotype=a.json"], "unknown key 'data.batchsize'"),
        (["model.name=resnet20_nat"], "genotype is missing: add genotype=VALUE"),
        (["genotype=a.json", "baseline=release"], "did you mean 'released'?"),
    ],
)
def test_the_script_says_what_to_type(arguments, message):
    output = run_script("recipe=supervised_resnet20", *arguments, script="nat_search.py")
    assert output.code == 2
    assert message in output.err
    assert "Traceback" not in output.err


def test_help_lists_the_keys():
    help_text = run_script("--help", script="nat_search.py").out
    assert "usage: ssl-adapt nat " in help_text
    assert "  batch_size     images in a batch [integer >= 2; default 64]" in help_text


def test_the_searches_of_the_tables_are_given_what_they_use(tmp_path):
    """What says how a network is trained afterwards is left out, and what says what the search is stays."""
    seen = {}
    for (_, scale), networks in NETWORKS.items():
        for run in plan_runs(networks, [3], scale, tmp_path, ["data.root=images.tar"]):
            if run.method.how == "nat":
                recipe, options = read_search_arguments(run.search().arguments)
                assert (recipe.data.root, recipe.seed, recipe.model.name) == ("images.tar", 3, run.recipe().model.name)
                assert options.json_path == run.search().product
                [view] = recipe.views
                seen[run.network.key, scale] = (
                    recipe.data.train_images,
                    view.cutout_px,
                    options.channels,
                )
    assert len(seen) == 6
    assert seen["darts", "cpu"] == (10_000, 8, 8)
