"""Genotypes: what was published, JSON, DARTS' layout, errors."""

import copy
import json

import pytest

from ssl_adapt.backbones.genotypes import (
    DARTS_V1,
    DARTS_V2,
    GENOTYPES,
    NAT_DARTS,
    OPERATIONS,
    CellGenotype,
    Genotype,
    GenotypeEdge,
    load_genotype,
)

# cnn/genotypes.py of https://github.com/quark0/darts, as lists
DARTS_V1_THERE = {
    "normal": [
        ["sep_conv_3x3", 1], ["sep_conv_3x3", 0], ["skip_connect", 0], ["sep_conv_3x3", 1],
        ["skip_connect", 0], ["sep_conv_3x3", 1], ["sep_conv_3x3", 0], ["skip_connect", 2],
    ],
    "normal_concat": [2, 3, 4, 5],
    "reduce": [
        ["max_pool_3x3", 0], ["max_pool_3x3", 1], ["skip_connect", 2], ["max_pool_3x3", 0],
        ["max_pool_3x3", 0], ["skip_connect", 2], ["skip_connect", 2], ["avg_pool_3x3", 0],
    ],
    "reduce_concat": [2, 3, 4, 5],
}  # fmt: skip


def operations_at(cell):
    return {(edge.source, edge.target): edge.operation for edge in cell.edges}


def test_published_genotypes_by_name():
    assert list(GENOTYPES) == [
        "DARTS_V1", "DARTS_V2", "NAT_DARTS", "ResBlock", "NAT_ResBlock", "MobileNetV2", "Bottleneck",
    ]  # fmt: skip
    for name, genotype in GENOTYPES.items():
        assert load_genotype(name) is genotype
        assert load_genotype(genotype) is genotype
        for cell in (genotype.normal, genotype.reduction):
            assert len(cell.edges) == 8
            assert cell.concat == ((2, 3, 4, 5) if "DARTS" in name else (5,))


def test_darts_layout_is_read():
    assert Genotype.from_dict(DARTS_V1_THERE) == DARTS_V1
    assert DARTS_V2.normal.edges[-1] == ("dil_conv_3x3", 2, 5)


@pytest.mark.parametrize("cell", ["normal", "reduction"])
def test_what_nat_changed_in_darts(cell):
    old, new = (operations_at(getattr(genotype, cell)) for genotype in (DARTS_V2, NAT_DARTS))
    changed = {place: operation for place, operation in new.items() if operation != old[place]}
    assert (
        changed
        == {
            "normal": {(0, 3): "skip_connect", (1, 4): "skip_connect"},
            "reduction": {(1, 2): "skip_connect", (1, 3): "skip_connect", (2, 4): "none"},
        }[cell]
    )


def test_what_nat_changed_in_the_resblock():
    for cell in ("normal", "reduction"):
        old, new = (operations_at(getattr(GENOTYPES[name], cell)) for name in ("ResBlock", "NAT_ResBlock"))
        changed = {place: operation for place, operation in new.items() if operation != old[place]}
        assert changed == {(0, 3): "skip_connect", (0, 4): "skip_connect"}


def test_json_round_trip(tmp_path):
    seen = 0
    for name, genotype in GENOTYPES.items():
        assert Genotype.from_json(genotype.to_json()) == genotype
        assert load_genotype(json.loads(json.dumps(genotype.to_dict()))) == genotype
        path = tmp_path / f"{name}.json"
        path.write_text(genotype.to_json())
        assert load_genotype(path) == load_genotype(str(path)) == genotype
        seen += 1
    assert seen == 7


def test_a_file_in_darts_layout(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(DARTS_V1_THERE))
    assert load_genotype(path) == DARTS_V1


def test_two_edges_may_join_the_same_nodes():
    cell = CellGenotype((GenotypeEdge("none", 0, 2), GenotypeEdge("conv_1x1", 0, 2)), (2,))
    assert CellGenotype.from_dict(cell.to_dict()) == cell


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("DARTS_V3", "unknown genotype 'DARTS_V3'; did you mean 'DARTS_V"),
        ("nat_resblok", "did you mean 'NAT_ResBlock'"),
        ("xyz", "unknown genotype 'xyz'; available: DARTS_V1, "),
        ("missing/file.json", "no genotype file 'missing/file.json'"),
        (3, "genotype of type int; give a name"),
    ],
)
def test_unknown_names(name, message):
    with pytest.raises(ValueError, match=message):
        load_genotype(name)


def broken(*path_and_value):
    *path, last, value = path_and_value
    data = copy.deepcopy(DARTS_V2.to_dict())
    place = data
    for key in path:
        place = place[key]
    place[last] = value
    return data


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (broken("normal", "edges", 0, ["sep_conv_3x4", 0, 2]), "unknown operation 'sep_conv_3x4'; did you mean 'sep_"),
        (broken("normal", "edges", 0, ["none", 0, 3]), "none 0->3 is out of order"),
        (broken("normal", "edges", 2, ["none", 0, 1]), "none 0->1 is out of order"),
        (broken("normal", "edges", 0, ["none", 2, 2]), "none 2->2: an edge leaves a node from 0 to 1"),
        (broken("normal", "edges", 0, ["none", -1, 2]), "from 0 to 1"),
        (broken("normal", "edges", 0, ["none", 0]), r"an edge is written \[operation, source, target\]"),
        (broken("normal", "edges", 0, ["none", "0", 2]), "whole numbers for nodes"),
        (broken("normal", "edges", "none"), "edges are a list"),
        (broken("normal", "concat", []), "'concat' is empty"),
        (broken("normal", "concat", [1, 2]), r"concat \[1, 2\]: give inner nodes from 2 to 5"),
        (broken("normal", "concat", [2, 2]), "each of them once"),
        (broken("normal", "concat", 5), "concat is a list of whole numbers; got 5"),
        (broken("normal", {}), r"a cell of a genotype has exactly the keys edges, concat; got \[\]"),
        ({"normal": DARTS_V2.to_dict()["normal"]}, "a genotype has exactly the keys normal, reduction"),
        ({**DARTS_V1_THERE, "extra": 1}, "DARTS' layout has exactly the keys"),
        ({"reduce": [], "normal": []}, "DARTS' layout has exactly the keys"),
    ],
)  # fmt: skip
def test_broken_genotypes_are_refused(data, message):
    with pytest.raises(ValueError, match=message):
        Genotype.from_dict(data)


def test_broken_json_is_refused():
    with pytest.raises(ValueError, match="not a genotype's JSON"):
        Genotype.from_json("{")
    with pytest.raises(ValueError, match="got list"):
        Genotype.from_json("[]")


def test_operations_are_those_of_darts():
    assert OPERATIONS[:8] == (
        "none", "skip_connect", "sep_conv_3x3", "sep_conv_5x5",
        "dil_conv_3x3", "dil_conv_5x5", "max_pool_3x3", "avg_pool_3x3",
    )  # fmt: skip
