"""NAT's transitions: what an edge may become, random genotypes, and the networks that are refused."""

import pytest
import timm
import torch

import ssl_adapt
from reproduction.nat.transitions import (
    ACTIONS,
    CONCAT_OPERATIONS,
    ONE_OUTPUT_OPERATIONS,
    allowed_actions,
    candidate_operations,
    draw_genotype,
    genotype_of,
    transform_cell,
)
from ssl_adapt.backbones.genotypes import (
    DARTS_V2,
    GENOTYPES,
    NAT_DARTS,
    NAT_RESBLOCK,
    OPERATIONS,
    RESBLOCK,
    CellGenotype,
    Genotype,
    GenotypeEdge,
)


def test_transitions():
    seen = 0
    for operation in OPERATIONS:
        reached = set()
        for action, may in zip(ACTIONS, allowed_actions(operation), strict=True):
            edges = (GenotypeEdge(operation, 0, 2), GenotypeEdge("conv_1x1", 1, 2))
            cell = CellGenotype(edges, (2,))
            if may:
                new = transform_cell(cell, [action, "same"])
                assert new.edges[1:] == cell.edges[1:]
                assert new.edges[0][1:] == (0, 2)
                reached.add(new.edges[0].operation)
                seen += 1
            else:
                with pytest.raises(ValueError, match=f"edge {operation} 0->2 can't take '{action}': give "):
                    transform_cell(cell, [action, "same"])
        expected = {"none", "skip_connect"} | ({operation} - {"none", "skip_connect"})
        assert reached == expected  # of itself, none and skip, each once
        assert sum(allowed_actions(operation)) == len(expected)
    assert seen == 2 * 2 + 3 * (len(OPERATIONS) - 2)


@pytest.mark.parametrize(("given", "found"), [(DARTS_V2, NAT_DARTS), (RESBLOCK, NAT_RESBLOCK)])
def test_the_published_outputs_can_be_reached(given, found):
    changed = 0
    for cell, target in ((given.normal, found.normal), (given.reduction, found.reduction)):
        actions = []
        for old, new in zip(cell.edges, target.edges, strict=True):
            actions.append("same" if old == new else {"none": "none", "skip_connect": "skip"}[new.operation])
            changed += old != new
        assert transform_cell(cell, actions) == target
    assert changed == {DARTS_V2: 5, RESBLOCK: 4}[given]


def test_one_action_for_each_edge():
    with pytest.raises(ValueError, match="2 actions for 8 edges: give one for each"):
        transform_cell(DARTS_V2.normal, ["same", "same"])


def test_candidates_go_by_the_cells_output():
    for name, genotype in GENOTYPES.items():
        operations = candidate_operations(genotype)
        assert operations == (CONCAT_OPERATIONS if "DARTS" in name else ONE_OUTPUT_OPERATIONS)
        assert len(set(operations)) == 9
    assert len(GENOTYPES) == 7


def test_random_genotypes_are_uniform():
    torch.manual_seed(0)
    drawn = [draw_genotype(RESBLOCK, ONE_OUTPUT_OPERATIONS) for _ in range(500)]
    edges = [edge for genotype in drawn for cell in (genotype.normal, genotype.reduction) for edge in cell.edges]
    assert len(edges) == 500 * 16
    for operation in ONE_OUTPUT_OPERATIONS:
        assert sum(edge.operation == operation for edge in edges) == pytest.approx(8000 / 9, rel=0.15)
    sources = 0
    for target in (2, 3, 4, 5):
        for source in range(target):
            count = sum(edge[1:] == (source, target) for edge in edges)
            assert count == pytest.approx(1000 * 2 / target, rel=0.15)
            sources += 1
    assert sources == 14
    for genotype in drawn:
        assert candidate_operations(genotype) == ONE_OUTPUT_OPERATIONS  # two edges a node
        assert genotype.normal.concat == (5,)
        assert len({edge[1:] for edge in genotype.normal.edges}) == 8


@pytest.mark.parametrize("name", ["proxyless_mobile_cifar", "resnet20", "mobilenetv2_cifar", "vit_tiny_patch16_224"])
def test_networks_whose_cells_differ_are_refused(name):
    with torch.device("meta"):
        model = timm.create_model(name)
    with pytest.raises(ValueError, match=f"NAT can't transform '{name}'.*one cell for the whole network.*resnet20_nat"):
        genotype_of(model)


def test_cell_forms_are_read_and_adapted_ones_refused():
    expected = {"resnet20_nat": "ResBlock", "mobilenetv2_nat": "MobileNetV2", "darts": "DARTS_V2"}
    for name, genotype in expected.items():
        model = timm.create_model(name, channels=4, cells=3)
        assert genotype_of(model) == GENOTYPES[genotype]
    edges = {spec.name: "original" for spec in model.edge_specs()}
    edges["layer1.0.edge_0_2"] = "identity"
    ssl_adapt.apply_architecture(model, ssl_adapt.Architecture("darts", {}, edges))
    with pytest.raises(ValueError, match="edges of this 'darts' were adapted, so that its cells differ"):
        genotype_of(model)


def test_cells_without_a_place_in_nat_are_refused():
    three = (*RESBLOCK.normal.edges, GenotypeEdge("none", 1, 5))
    with pytest.raises(ValueError, match=r"3 edge\(s\) enter node 5, and NAT decides on exactly 2"):
        candidate_operations(Genotype(CellGenotype(three, (5,)), RESBLOCK.reduction))
    with pytest.raises(ValueError, match=r"no 'conv_1x1' in cells whose output has 4 node\(s\): use none, skip"):
        candidate_operations(Genotype(DARTS_V2.normal, GENOTYPES["MobileNetV2"].reduction))
