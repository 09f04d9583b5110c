"""Sections told apart by their name: each has the keys of its own, and says so."""

from pathlib import Path

import pytest
from recipe_files import problems_of, write_recipe

from ssl_adapt.recipe import load_recipe
from ssl_adapt.recipe.yaml_text import dump_yaml, parse_yaml


@pytest.mark.parametrize(
    ("base", "own", "foreign"),
    [
        ("simclr_resnet20", "objective.temperature", "objective.label_smoothing=0.1"),
        ("supervised_resnet20", "objective.label_smoothing", "objective.temperature=0.1"),
        ("byol_resnet20", "objective.momentum", "objective.temperature=0.1"),
        ("vicreg_resnet20", "objective.covariance_weight", "objective.momentum=0.5"),
        ("simclr_resnet20", "views.jitter", "views.pad_px=4"),
        ("supervised_resnet20", "views.pad_px", "views.jitter_p=0.5"),
    ],
)
def test_a_section_has_the_keys_of_its_name_alone(base: str, own: str, foreign: str, tmp_path: Path) -> None:
    values = parse_yaml(dump_yaml(load_recipe([f"recipe={base}"]).model_dump()))
    place, _, leaf = own.partition(".")
    assert problems_of(f"recipe={base}", foreign) == [
        f"{foreign.partition('=')[0]} has no meaning for {place}.name={values[place]['name']}: leave it out"
    ]
    del values[place][leaf]
    [problem] = problems_of(write_recipe(tmp_path, dump_yaml(values)))
    assert f"has no {own}; add {own}=VALUE" in problem


def test_knn_is_a_section_of_what_it_judges(tmp_path: Path) -> None:
    assert problems_of("recipe=simclr_resnet20", "knn=null") == [
        "objective.name=simclr needs the section knn: add its keys; --help lists them"
    ]
    knn = dump_yaml(load_recipe(["recipe=simclr_resnet20"]).knn.model_dump()).replace("\n", ", ").strip(", ")
    assert problems_of("recipe=supervised_resnet20", f"knn={{{knn}}}") == [
        "objective.name=supervised has no use for the section knn: type knn=null"
    ]


def test_views_are_one_section_or_one_for_each_view(tmp_path: Path) -> None:
    values = parse_yaml(dump_yaml(load_recipe(["recipe=simclr_resnet20"]).model_dump()))
    one = values["views"]
    values["views"] = [one, {**one, "solarize_p": 0.2}]
    recipe = load_recipe([write_recipe(tmp_path, dump_yaml(values))])
    assert [view.solarize_p for view in recipe.views] == [0.0, 0.2]
    assert recipe.model_dump()["views"] == [view.model_dump() for view in recipe.views]
    for count in (0, 3):
        values["views"] = [one] * count
        assert problems_of(write_recipe(tmp_path, dump_yaml(values))) == [
            f"views: {count} are given and objective.name=simclr takes 2 of an image: "
            "give a list of 2, or one section for all"
        ]
    values["views"] = [one, {**one, "flip_p": 3}]
    assert problems_of(write_recipe(tmp_path, dump_yaml(values))) == [
        "views.flip_p: got 3, expected number from 0 to 1"
    ]
    assert problems_of("recipe=debug", "views.name=resized") == [
        "views.name: got 'resized', expected resized_crop | padded_crop; did you mean 'resized_crop'?"
    ]
