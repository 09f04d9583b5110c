"""Architectures are plain data: JSON both ways, and clear errors for what is not one."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import timm
from hypothesis import given
from hypothesis import strategies as st
from small_networks import small
from torch import nn

from ssl_adapt import Adaptation, Architecture, apply_architecture

CHOICE = st.sampled_from(["original", "identity", "none"])
NAMES = [spec.name for spec in timm.create_model("resnet20").edge_specs()]


@given(
    edges=st.dictionaries(st.text(min_size=1), CHOICE),
    width=st.integers(),
    shape_change=st.sampled_from(["pad", "project"]),
)
def test_json_round_trip(edges, width, shape_change):
    architecture = Architecture("resnet20", {"width": width, "layers": [1, 2]}, edges, shape_change)
    assert Architecture.from_json(architecture.to_json()) == architecture
    assert architecture.changed == {name: choice for name, choice in edges.items() if choice != "original"}


def test_json_has_one_edge_a_line():
    text = Architecture("resnet20", {}, dict.fromkeys(NAMES, "original")).to_json()
    lines = [line for line in text.splitlines() if '"original"' in line]
    assert len(lines) == len(NAMES) == 27


def test_plain_network_is_all_original():
    architecture = Architecture.of(timm.create_model("resnet20", num_classes=0, width=8))
    assert architecture.model == "resnet20"
    assert architecture.model_args["width"] == 8
    assert architecture.changed == {}
    assert list(architecture.edges) == NAMES


def valid() -> dict[str, object]:
    return Architecture("resnet20", {}, dict.fromkeys(NAMES, "original")).to_dict()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 9}, "version 9"),
        ({"edges": {"a": "skip"}}, "edge 'a' has the choice 'skip'; possible are original, identity, none"),
        ({"edges": ["a"]}, "are mappings"),
        ({"shape_change": "stretch"}, "shape_change 'stretch'"),
        ({"extra": 1}, "exactly the keys"),
    ],
)
def test_what_is_no_architecture_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Architecture.from_json(json.dumps({**valid(), **change}))


def test_what_is_no_json_is_refused():
    for text in ("", "{", "[1]", "3"):
        with pytest.raises(ValueError, match="architecture"):
            Architecture.from_json(text)


def test_edges_of_another_network_are_refused_by_name():
    model = timm.create_model("resnet20")
    edges = dict.fromkeys(NAMES, "original")
    with pytest.raises(ValueError, match=r"no edge 'layer1.0.conv9'; did you mean 'layer1.0.conv"):
        apply_architecture(model, Architecture("resnet20", {}, {**edges, "layer1.0.conv9": "none"}))
    del edges["layer2.1.shortcut"]
    with pytest.raises(ValueError, match=r"no choice is given for edge 'layer2.1.shortcut' \(1 missing in all\)"):
        apply_architecture(model, Architecture("resnet20", {}, edges))


def test_forbidden_identity_is_refused():
    edges = {**dict.fromkeys(NAMES, "original"), "layer2.0.conv1": "identity"}
    with pytest.raises(ValueError, match=r"'layer2.0.conv1' can't become 'identity': it changes its tensor's shape"):
        apply_architecture(timm.create_model("resnet20"), Architecture("resnet20", {}, edges, "forbid"))


def test_a_refused_choice_leaves_the_network_as_it_was():
    modules = dict((model := timm.create_model("resnet20")).named_modules())
    edges = {**dict.fromkeys(NAMES, "original"), "layer1.0.conv1": "none", "layer3.0.conv1": "identity"}
    with pytest.raises(ValueError, match=r"'layer3.0.conv1' can't become"):
        apply_architecture(model, Architecture("resnet20", {}, edges, "forbid"))
    assert dict(model.named_modules()) == modules


def one_module_as_two_edges(model: Any) -> None:
    model.layer1[0].conv2 = model.layer1[0].conv1


def one_block_in_two_places(model: Any) -> None:
    model.layer2[2] = model.layer2[1]


def an_edge_that_is_another_module_too(model: Any) -> None:
    model.extra = nn.Sequential(model.layer1[0].conv1)


def an_edge_declared_twice(model: Any) -> None:
    specs = model.edge_specs()
    model.edge_specs = lambda: (*specs, specs[0])


def an_edge_within_an_edge(model: Any) -> None:
    specs = model.edge_specs()
    model.edge_specs = lambda: (*specs, replace(specs[0], name="layer1.0.conv1.conv"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (one_module_as_two_edges, "edges 'layer1.0.conv1' and 'layer1.0.conv2' are one and the same Sequential"),
        (one_block_in_two_places, "edges 'layer2.1.conv1' and 'layer2.2.conv1' are one and the same Sequential"),
        (
            an_edge_that_is_another_module_too,
            "edge 'layer1.0.conv1' and module 'extra.0' are one and the same Sequential",
        ),
        (an_edge_declared_twice, "edge 'layer1.0.conv1' is declared twice"),
        (an_edge_within_an_edge, "edge 'layer1.0.conv1.conv' lies within edge 'layer1.0.conv1'"),
    ],
)
def test_edges_that_cannot_change_alone_are_refused(change: Callable[[nn.Module], None], message: str):
    change(model := small(layers=(1, 3)))
    modules = dict(model.named_modules(remove_duplicate=False))
    choices = Architecture("resnet20", {}, {spec.name: "original" for spec in model.edge_specs()})
    for call in (Adaptation, lambda network: apply_architecture(network, choices)):
        with pytest.raises(ValueError, match=re.escape(message)):
            call(model)
        assert dict(model.named_modules(remove_duplicate=False)) == modules


def test_edges_may_share_parameters():
    model = small()
    model.layer2[1].conv2.conv.weight = model.layer2[1].conv1.conv.weight
    assert not Adaptation(model).fix().changed
