"""Model cards: what they say of a run, and names that hold markdown."""

import json
import re
from pathlib import Path

import pytest
import timm
import yaml
from adapted_networks import adapted_network
from scipy.stats import binomtest

from ssl_adapt import load_recipe
from ssl_adapt.adaptation.cost import count_parameters
from ssl_adapt.recipe import save_recipe
from ssl_adapt.training.model_card import CardFacts, plain_text, read_facts, write_card

SCORES = {"untrained": 0.5, "before_fix": None, "result": 0.75}
RESULT = {"knn_top1": SCORES, "protocol": "kNN, k 20; bank 9, queries 400", "test_images": 400, "steps": 1234}


def wilson(right: int, count: int) -> tuple[float, float]:
    found = binomtest(right, count).proportion_ci(method="wilson")
    return found.low, found.high


def facts_of(folder: Path, *arguments: str, result: dict | None = None) -> CardFacts:
    save_recipe(load_recipe(["recipe=debug", *arguments]), folder / "recipe.yaml")
    (folder / "result.json").write_text(json.dumps(RESULT if result is None else result))
    return read_facts(folder)


def front_matter(card: str) -> dict:
    assert card.startswith("---\n")
    return yaml.safe_load(card.split("---\n")[1])


def test_what_a_card_says(tmp_path: Path) -> None:
    model = adapted_network("resnet20, He's form", layer2__1__conv2="none")
    facts = facts_of(tmp_path, "data.root=/home/someone/images", "data.train_images=900", "model.weights=/home/a/w.pth")
    card = write_card(model, facts, drawing="cells.png")
    assert front_matter(card) == {
        "library_name": "timm", "pipeline_tag": "image-classification",
        "tags": ["image-classification", "timm", "ssl_adapt", "simclr"],
    }  # fmt: skip
    assert "with the objective simclr on 900 images of digits at" in card
    assert ", from w.pth, while it adapted its own architecture: " in card
    assert "1,234 steps" in card
    plain = timm.create_model("resnet20", width=4, layers=[1, 2], num_classes=5)
    for name, network in (("before adaptation", plain), ("this network", model)):
        [row] = re.findall(rf"\| {name} \| ([\d,]+) \| ([\d,]+) \|", card)
        assert row[0] == f"{count_parameters(network):,}"
    assert f"\n1 of the {len(model.edge_specs())} edges" in card
    assert "| layer2.1.conv2 | conv 3x3 | none |" in card
    assert "![The cells; red edges have changed](cells.png)" in card
    assert "Top-1 of kNN, k 20; bank 9, queries 400." in card
    assert "| untrained network | 50.00% | 45.12% to 54.88% |" in card
    assert "| after the run | 75.00% | {:.2%} to {:.2%} |".format(*wilson(300, 400)) in card
    assert "just before the fix" not in card
    assert "temperature: 0.5" in card
    assert "someone" not in card
    assert "/home" not in card


def test_a_card_without_numbers_says_so_and_one_without_a_run_too(tmp_path: Path) -> None:
    model = timm.create_model("resnet20", width=4, layers=[1], num_classes=0)
    assert "Nothing was measured" in write_card(model, facts_of(tmp_path, result={}))
    card = write_card(model, CardFacts("net"))
    assert "How it was trained was not recorded here." in card
    assert "## Results" not in card
    assert "## Recipe" not in card
    assert front_matter(card)["pipeline_tag"] == "image-feature-extraction"
    assert "import ssl_adapt, timm\n" in card
    assert "\nimport timm\n" in write_card(timm.create_model("test_resnet"), CardFacts("net"))


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a|b", r"a\|b"),
        ("<script>x</script>", "&lt;script&gt;x&lt;/script&gt;"),
        ("[x](http://y)\n# Title", r"\[x\](http://y) \# Title"),
        ("`a` *b* _c_ ~d~", r"\`a\` \*b\* \_c\_ \~d\~"),
        ("a\u202eb\x00", "a b"),
    ],
)
def test_names_are_shown_letter_for_letter(name: str, shown: str, tmp_path: Path) -> None:
    assert plain_text(name) == shown
    model = timm.create_model("resnet20", width=4, layers=[1])
    recipe = facts_of(tmp_path).recipe
    assert recipe is not None
    text = {**recipe, "data": {**recipe["data"], "name": name, "note": "```\n# not a title"}}
    card = write_card(model, CardFacts(name, text, {**RESULT, "protocol": name}))
    assert f"# {shown}\n" in card
    assert card.count(shown) >= 4
    before, inside, after = re.split(r"^````+(?:yaml)?$", card, flags=re.MULTILINE)
    assert name.replace("\n", " ").strip() not in before + after or shown == name
    assert "note:" in inside
