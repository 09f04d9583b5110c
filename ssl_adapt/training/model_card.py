"""Model cards: README.md of an export, as the Hugging Face hub shows it, written from the run."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from torch import nn

from ssl_adapt.adaptation.architecture import Architecture, model_args, model_name
from ssl_adapt.adaptation.cost import count_macs, count_parameters
from ssl_adapt.adaptation.edge import Adaptable
from ssl_adapt.evaluation.accuracy import wilson_interval
from ssl_adapt.export.check import build_on_meta
from ssl_adapt.export.plain_timm import is_timm_s_own
from ssl_adapt.json_text import read_json, read_text
from ssl_adapt.recipe import load_recipe
from ssl_adapt.recipe.yaml_text import dump_yaml
from ssl_adapt.training.measurements import LANDMARKS

MOST_EDGES = 300  # rows of the table
_SPECIAL = re.compile(r"([\\`*_\[\]#|~$])")
CITATION = (
    "The method: D.-G. Kim and H.-C. Lee, *Proxyless neural architecture adaptation for supervised learning and "
    "self-supervised learning*, [arXiv:2205.07168](https://arxiv.org/abs/2205.07168), 2022."
)


class CardFacts(NamedTuple):
    """What a card says beside the network.

    Attributes:
        name: of the run, or of the folder.
        recipe: of the run, as `Recipe.model_dump()`; None for a network without a run.
        result: what is in its `result.json`.
    """

    name: str
    recipe: Mapping[str, Any] | None = None
    result: Mapping[str, Any] | None = None


def read_facts(folder: Path) -> CardFacts:
    """The facts of the run in a folder, which is finished.

    Raises:
        ValueError: if its recipe or result can't be read.
    """
    recipe = load_recipe([f"recipe={folder / 'recipe.yaml'}"])
    path = folder / "result.json"
    result = read_json(read_text(path, str(path)), str(path)) if path.is_file() else {}
    return CardFacts(recipe.name, recipe.model_dump(), result if isinstance(result, dict) else {})


def write_card(
    network: nn.Module, facts: CardFacts, *, drawing: str | None = None, repository: str | None = None,
    before: nn.Module | None = None,
) -> str:  # fmt: skip
    """The text of a card: what is known is stated, and nothing else.

    Args:
        network: plain or fixed, as it is exported.
        facts: of the run.
        drawing: the file beside the card that shows the cells.
        repository: of the hub, where the card goes; None: a folder.
        before: the network with its edges, where `network` is one of timm alone that has none; None: `network`.
    """
    adapted = before or network
    architecture = Architecture.of(adapted) if isinstance(adapted, Adaptable) else None
    parts = [
        _front_matter(network, facts),
        f"# {plain_text(facts.name)}",
        _introduction(adapted, facts, architecture),
        _table_of_costs(network, adapted, architecture, facts),
        _changes(adapted, architecture, drawing),
        _results(facts),
        _loading(network, repository),
        _limits(facts),
        _recipe(facts),
        CITATION,
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def plain_text(value: object) -> str:
    """The value as markdown that shows it letter for letter, on one line."""
    text = " ".join("".join(c if c.isprintable() else " " for c in str(value)).split())[:200]
    return _SPECIAL.sub(r"\\\1", text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))


def _front_matter(network: Any, facts: CardFacts) -> str:
    task = "image-classification" if network.num_classes else "image-feature-extraction"
    tags = [task, "timm", "ssl_adapt", *([_objective(facts)] if facts.recipe else [])]
    values = {"library_name": "timm", "pipeline_tag": task, "tags": tags}
    return f"---\n{yaml.safe_dump(values, sort_keys=False)}# license: name the one that you choose\n---"


def _objective(facts: CardFacts) -> str:
    assert facts.recipe is not None
    return str(facts.recipe["objective"]["name"])


def _introduction(adapted: nn.Module, facts: CardFacts, architecture: Architecture | None) -> str:
    name = plain_text(_base(adapted))
    if facts.recipe is None:
        return f"A {name}, exported by ssl_adapt. How it was trained was not recorded here."
    how = "while it adapted its own architecture" if architecture and architecture.changed else "as it is"
    data, train = facts.recipe["data"], facts.recipe["train"]
    images = f"{data['train_images']:,} images of " if data.get("train_images") else ""
    start = facts.recipe["model"].get("weights") or (
        "timm's weights" if facts.recipe["model"].get("pretrained") else None
    )
    begun = f", from {plain_text(_file_name(start))}" if start else ""
    steps = (facts.result or {}).get("steps")
    return (
        f"A {name}, trained by ssl_adapt with the objective {plain_text(_objective(facts))} on {images}"
        f"{plain_text(data['name'])} at {data['image_px']} px{begun}, {how}: {train['epochs']} epochs"
        f"{f', {steps:,} steps' if isinstance(steps, int) else ''}, batches of {data['batch_size']}, seed "
        f"{facts.recipe['seed']}."
    )


def _file_name(weights: str) -> str:
    """Without the folders of this machine."""
    return weights if weights.startswith("hf-hub:") else Path(weights).name


def _base(network: nn.Module) -> str:
    return str(model_args(network).get("base", model_name(network)))


def _table_of_costs(network: Any, adapted: nn.Module, architecture: Architecture | None, facts: CardFacts) -> str:
    """Parameters and multiply-adds, before and now."""
    size = tuple(network.pretrained_cfg["input_size"])
    nets = {"this network": network}
    if architecture is not None and architecture.changed:
        shape = {"num_classes": network.num_classes, "pretrained_cfg_overlay": {"input_size": size}}
        arguments = {**shape, **architecture.model_args}
        nets = {"before adaptation": build_on_meta(model_name(adapted), arguments), **nets}
    known = (facts.result or {}).get("macs")  # the run counted them
    rows = []
    for name, net in nets.items():
        macs = known if net is network and isinstance(known, int) else count_macs(net, torch.zeros(1, *size))
        rows.append((name, f"{count_parameters(net):,}", f"{macs:,}"))
    image = " x ".join(map(str, size))
    return "## Network\n\n" + _table(("", "parameters", f"multiply-adds of one image, {image}"), rows)


def _changes(adapted: nn.Module, architecture: Architecture | None, drawing: str | None) -> str:
    if architecture is None:
        return ""
    changed, edges = architecture.changed, len(architecture.edges)
    text = f"{len(changed)} of the {edges} edges, the places that may change, have changed."
    if drawing is not None:
        text += f"\n\n![The cells; red edges have changed]({drawing})"
    specs = {spec.name: spec for spec in adapted.edge_specs()} if isinstance(adapted, Adaptable) else {}
    rows = [(plain_text(name), plain_text(specs[name].operation), choice) for name, choice in changed.items()]
    if not rows:
        return text
    table = _table(("edge", "was", "is now"), rows[:MOST_EDGES])
    more = f"\n\nand {len(rows) - MOST_EDGES} more" if len(rows) > MOST_EDGES else ""
    return f"{text}\n\n<details><summary>All changes</summary>\n\n{table}{more}\n\n</details>"


def _results(facts: CardFacts) -> str:
    """The numbers of the run, each with its interval, and how they were measured."""
    result = facts.result or {}
    key = next((name for name, value in result.items() if name.endswith("_top1") and isinstance(value, dict)), None)
    scores = {name: value for name, value in result[key].items() if isinstance(value, float | int)} if key else {}
    if key is None or not scores:
        return (
            "" if facts.recipe is None else "## Results\n\nNothing was measured: there were no labels or test images."
        )
    count = result.get("test_images")
    rows = [
        (plain_text(LANDMARKS.get(name, name)), f"{score:.2%}", _shown_interval(score, count))
        for name, score in scores.items()
    ]
    protocol = plain_text(result.get("protocol", ""))
    measured = f"Top-1 accuracy {protocol}." if key == "accuracy_top1" else f"Top-1 of {protocol}."
    note = (
        "The intervals (95 %, Wilson) are those of the test images, for this one network: another seed gives another "
        "one, and how far apart these lie is not in them."
    )
    return f"## Results\n\n{measured}\n\n{_table(('', 'top-1', '95 % interval'), rows)}\n\n{note}"


def _shown_interval(share: float, count: Any) -> str:
    if not isinstance(count, int) or count < 1 or not 0 <= share <= 1:
        return "not known"
    return "{:.2%} to {:.2%}".format(*wilson_interval(share, count))


def _loading(network: Any, repository: str | None) -> str:
    name = f"hf-hub:{repository}" if repository else "local-dir:FOLDER"
    note = "timm alone loads it"
    imports = "import timm"
    if not is_timm_s_own(model_name(network)):
        note = "It needs ssl_adapt, whose import registers this network with timm"
        imports = "import ssl_adapt, timm"
    note += "" if repository else "; FOLDER is the folder of this file"
    classifier = "" if network.num_classes else ", num_classes=0"
    code = (
        f'{imports}\n\nmodel = timm.create_model("{name}", pretrained=True{classifier}).eval()\n'
        "config = timm.data.resolve_model_data_config(model)  # mean, std and size of its input\n"
        "transform = timm.data.create_transform(**config, is_training=False)"
    )
    return f"## How to load it\n\n{note}.\n\n```python\n{code}\n```"


def _limits(facts: CardFacts) -> str:
    data = plain_text(facts.recipe["data"]["name"]) if facts.recipe else "the images that it was trained on"
    return (
        f"## Limits\n\n- What it learnt is that of {data}: on other images, or at another size, it was not tried.\n"
        "- It was not examined for biases of the data, and takes those over.\n"
        "- Results above, if there are any, are of one run."
    )


def _recipe(facts: CardFacts) -> str:
    if facts.recipe is None:
        return ""
    # without what says where files of the user lie
    shown: dict[str, Any] = {key: value for key, value in facts.recipe.items() if key != "run"}
    shown["data"] = {key: value for key, value in shown["data"].items() if key != "root"}
    if shown["model"].get("weights"):
        shown["model"] = {**shown["model"], "weights": _file_name(shown["model"]["weights"])}
    text = dump_yaml(shown).rstrip("\n")
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"## Recipe\n\n{fence}yaml\n{text}\n{fence}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
