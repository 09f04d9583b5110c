"""NAT's supernet and controller: sizes, which weights a genotype uses, what the controller sees and learns."""

import pytest
import timm
import torch
from torch import nn
from torch.optim import Adam

import ssl_adapt.backbones.darts  # noqa: F401  registers the networks
from reproduction.nat.controller import FLOOR, Controller
from reproduction.nat.supernet import Subnetwork, Supernet
from reproduction.nat.transitions import (
    ACTIONS,
    CONCAT_OPERATIONS,
    allowed_actions,
    candidate_operations,
    draw_genotype,
)
from ssl_adapt.backbones.genotypes import DARTS_V2, GENOTYPES, RESBLOCK, CellGenotype, Genotype, GenotypeEdge


def images(seed=0, px=8):
    return torch.randn(4, 3, px, px, generator=torch.Generator().manual_seed(seed))


def parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


def with_operation(cell, index, operation):
    edges = list(cell.edges)
    edges[index] = edges[index]._replace(operation=operation)
    return CellGenotype(tuple(edges), cell.concat)


def test_parameters_as_published():
    with torch.device("meta"):
        supernet = Supernet(DARTS_V2, channels=20, cells=8, num_classes=10)
    assert parameters(supernet) == 5_997_350
    assert sum(len(candidates) for cell in supernet.cells for candidates in cell.edges.values()) == 8 * 14 * 9
    assert parameters(Controller(CONCAT_OPERATIONS, self_loops=False)) == 320_330


def test_a_genotype_in_the_supernet_is_its_network():
    """The same weights in the plain network give the same logits: a network of our own, with its edges alone.

    Poolings are left out, since the supernet normalises after them.
    """
    torch.manual_seed(0)
    compared = 0
    for name in ("ResBlock", "MobileNetV2", "DARTS_V2"):
        form = GENOTYPES[name]
        supernet = Supernet(form, channels=4, cells=3, num_classes=10)
        operations = [name for name in candidate_operations(form) if "pool" not in name]
        genotype = draw_genotype(form, operations)
        plain = timm.create_model("darts", genotype=genotype, channels=4, cells=3, num_classes=10)
        plain.stem.load_state_dict(supernet.stem.state_dict(), strict=False)
        plain.fc.load_state_dict(supernet.fc.state_dict())
        cells = [cell for stage in plain.stages for cell in getattr(plain, stage)]
        for theirs, ours in zip(cells, supernet.cells, strict=True):
            theirs.preprocess0.load_state_dict(ours.preprocess0.state_dict(), strict=False)
            theirs.preprocess1.load_state_dict(ours.preprocess1.state_dict(), strict=False)
            for edge in theirs.edges:
                candidate = ours.edges[f"{edge.source}_{edge.target}"][edge.operation]
                result = getattr(theirs, edge.place).load_state_dict(candidate.state_dict(), strict=False)
                assert all("bn" in key for key in result.missing_keys)
        torch.testing.assert_close(supernet(images(), genotype), plain.train()(images()))
        compared += 1
    assert compared == 3


def test_batch_statistics_alone_and_only_used_weights_get_gradients():
    torch.manual_seed(0)
    supernet = Supernet(RESBLOCK, channels=4, cells=3, num_classes=10)
    assert list(supernet.buffers()) == []
    logits = supernet(images(), RESBLOCK)
    assert torch.equal(logits, supernet.eval()(images(), RESBLOCK))
    logits.square().sum().backward()
    got = {name for name, parameter in supernet.named_parameters() if parameter.grad is not None and "edges" in name}
    # two convolutions in each of three cells; the skip connection 1->2 is two more in the two reduction cells
    assert len(got) == 3 * 2 + 2 * 2
    assert all(".2_3.conv_3x3." in name or ".3_4.conv_3x3." in name or ".1_2.skip_connect." in name for name in got)


def test_cells_of_none_alone_are_constant():
    nothing = CellGenotype(tuple(edge._replace(operation="none") for edge in RESBLOCK.normal.edges), (5,))
    supernet = Supernet(RESBLOCK, channels=4, cells=3, num_classes=10)
    logits = Subnetwork(supernet, nn.Identity(), Genotype(nothing, nothing))(images())
    assert torch.equal(logits, supernet.fc.bias.expand(4, 10))


@pytest.mark.parametrize("self_loops", [False, True])
def test_what_the_controller_sees(self_loops):
    """Without self-loops a node's own operations don't matter; those of the nodes before it do, in two steps."""
    torch.manual_seed(0)
    controller = Controller(CONCAT_OPERATIONS, self_loops=self_loops)
    # 0, 1 -> 2 -> 3 -> 4 -> 5, each with a second edge from node 0 or 1
    sources = [(0, 1), (1, 2), (0, 3), (1, 4)]
    edges = [GenotypeEdge("sep_conv_3x3", source, 2 + i) for i, pair in enumerate(sources) for source in pair]
    cell = CellGenotype(tuple(edges), (2, 3, 4, 5))
    logits = controller(cell)
    assert logits.shape == (8, 3)
    for node in range(4):
        other = controller(with_operation(cell, 2 * node, "max_pool_3x3"))
        changed = {index // 2 for index in range(8) if not torch.equal(logits[index], other[index])}
        reach = {node, node + 1, node + 2} if self_loops else {node + 2}
        assert changed == reach & set(range(4))


def test_draws_are_allowed_and_their_probability_is_as_written():
    torch.manual_seed(0)
    controller = Controller(CONCAT_OPERATIONS, self_loops=True)
    for parameter in controller.action.parameters():
        parameter.data *= 30  # far from uniform
    kinds = set()
    for _ in range(40):
        genotype = draw_genotype(DARTS_V2, CONCAT_OPERATIONS)
        transform = controller.draw(genotype)
        log_probability = entropy = 0.0
        for old, new in ((genotype.normal, transform.genotype.normal),
                         (genotype.reduction, transform.genotype.reduction)):  # fmt: skip
            for logits, before, after in zip(controller(old), old.edges, new.edges, strict=True):
                shares = (logits.softmax(0) + FLOOR) * torch.tensor(allowed_actions(before.operation))
                shares = shares[shares > 0] / shares.sum()
                actions = [
                    action for action, may in zip(ACTIONS, allowed_actions(before.operation), strict=True) if may
                ]
                results = [{"none": "none", "skip": "skip_connect", "same": before.operation}[a] for a in actions]
                log_probability += shares[results.index(after.operation)].log()
                entropy -= (shares * shares.log()).sum()
                kinds.add((before.operation, after.operation))
        torch.testing.assert_close(transform.log_probability, log_probability)
        torch.testing.assert_close(transform.entropy, entropy)
    assert len(kinds) == 7 * 3 + 2 * 2


def test_reinforcement_moves_the_controller_to_what_is_rewarded():
    torch.manual_seed(0)
    controller = Controller(CONCAT_OPERATIONS, self_loops=False)
    optimizer = Adam(controller.parameters(), 3e-4, betas=(0.5, 0.999))

    def nones(genotype):
        return sum(edge.operation == "none" for cell in (genotype.normal, genotype.reduction) for edge in cell.edges)

    def mean_nones():
        with torch.no_grad():
            return sum(nones(controller.draw(DARTS_V2).genotype) for _ in range(50)) / 50

    before = mean_nones()
    for _ in range(50):
        transform = controller.draw(DARTS_V2)
        loss = -transform.log_probability * (nones(transform.genotype) - 8) / 16
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert before < 7
    assert mean_nones() > before + 3
