"""Dead nodes: found from the edges alone, and refused, told or allowed at the fix."""

import warnings

import pytest
import torch
from small_networks import set_theta, small

from ssl_adapt import Adaptation
from ssl_adapt.adaptation.edge import EdgeSpec
from ssl_adapt.adaptation.reachability import find_dead_nodes


def edge(name: str, source: str, target: str, kind: str = "operation") -> EdgeSpec:
    return EdgeSpec(name, kind, kind, 4, 4, 1, "cell", "normal", name, source, target)


CELL = [
    edge("a", "in", "1"),
    edge("b", "1", "2"),
    edge("c", "in", "2", "none"),
    edge("d", "2", "out"),
    edge("e", "in", "out"),
]


@pytest.mark.parametrize(
    ("choices", "dead"),
    [
        ({}, []),
        ({"a": "none"}, ["1", "2"]),  # c is none in the plain network, so what comes from 1 was all that 2 had
        ({"a": "none", "c": "identity"}, ["1"]),
        ({"b": "none", "e": "none"}, ["2", "out"]),
        ({"a": "identity", "b": "identity"}, []),
        ({"d": "none", "e": "none"}, ["out"]),
    ],
)
def test_dead_nodes_are_those_without_a_living_edge(choices, dead):
    assert find_dead_nodes(CELL, choices) == [f"cell:{node}" for node in dead]


def test_a_node_with_other_inputs_never_dies():
    assert find_dead_nodes([edge("attention", "in", "out+")], {"attention": "none"}) == []


def test_error_warn_and_allow():
    for on_dead in ("error", "warn", "allow"):
        adaptation = Adaptation(model := small(), on_dead=on_dead)
        set_theta(adaptation, layer1__0__conv2=(1.0, 0.0, 0.0), layer1__0__shortcut=(1.0, 0.0, 0.0))
        if on_dead == "error":
            with pytest.raises(ValueError, match=r"1 dead node.*layer1\.0:out"):
                adaptation.fix()
            model(torch.zeros(1, 3, 8, 8))
            adaptation.derive()  # it stays mixed
        elif on_dead == "warn":
            with pytest.warns(UserWarning, match=r"layer1\.0:out"):
                adaptation.fix()
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                adaptation.fix()
    with pytest.raises(ValueError, match="on_dead='x' is not one of error, warn, allow"):
        Adaptation(small(), on_dead="x")
