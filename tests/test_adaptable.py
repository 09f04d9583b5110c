"""Any timm model: what becomes an edge, that it is exact, and that it is exported like a network of ours."""

import copy
import pickle

import pytest
import timm
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from ssl_adapt import Adaptation, Architecture, adaptable, export_timm
from ssl_adapt.adaptation.adaptation import one_hot
from ssl_adapt.adaptation.cost import count_parameters
from ssl_adapt.backbones.adaptable import describe_edges
from ssl_adapt.backbones.adaptable_probe import matches

FAMILIES = {  # name -> its arguments, its image size, how many edges it has
    "resnet10t": ({"layers": (1, 2, 1, 1)}, 32, 2),
    "convnext_atto": ({"depths": (1, 1, 2, 1), "dims": (8, 16, 24, 32)}, 32, 5),
    "vit_tiny_patch16_224": ({"img_size": 32, "depth": 3, "embed_dim": 24}, 32, 3),
    "mixer_s32_224": ({"img_size": 64}, 64, 8),
    "efficientnet_b0": ({}, 32, 9),
    "regnetx_002": ({}, 32, 9),
    "swin_tiny_patch4_window7_224": ({"img_size": 56, "embed_dim": 12, "depths": (2, 2), "num_heads": (1, 2)}, 56, 4),
    "mobilenetv3_small_050": ({}, 32, 7),
    "poolformer_s12": ({}, 32, 12),
}


def create(name: str, edges: object = None) -> tuple[nn.Module, torch.Tensor]:
    arguments, px, _ = FAMILIES[name]
    torch.manual_seed(0)
    cfg = {"input_size": (3, px, px)}
    model = timm.create_model(name, num_classes=4, pretrained_cfg_overlay=cfg, **arguments)
    return adaptable(model, edges, model_args=arguments), torch.randn(2, 3, px, px)


@pytest.mark.parametrize("name", FAMILIES)
def test_edges_are_found_and_the_start_is_the_plain_network(name):
    model, x = create(name)
    assert len(model.edge_specs()) == FAMILIES[name][2]
    assert sum(row.taken for row in model.edge_report) == FAMILIES[name][2]
    assert all(row.reason for row in model.edge_report)
    plain = copy.deepcopy(model).eval()
    Adaptation(model)
    assert torch.equal(model.eval()(x), plain(x))


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=2, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_adapted_fixed_exported_reloaded(name, data, tmp_path_factory):
    model, x = create(name)
    adaptation = Adaptation(model, on_dead="allow")
    theta_optimizer = torch.optim.Adam(adaptation.theta_parameters(), 0.01)
    with adaptation.architecture_pass():
        model.train().forward_features(torch.cat([x, x + 1])).square().mean().backward()  # heads may start at zero
    theta_optimizer.step()
    assert all(theta[1] != 0 for theta in adaptation.theta_parameters())
    for spec in adaptation.edges:
        choice = data.draw(st.sampled_from(spec.candidates))
        adaptation.theta[spec.name].data = torch.tensor(one_hot(choice))
    parameters, expected = count_parameters(model), model.eval()(x)
    architecture = adaptation.fix()
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)
    assert (count_parameters(model) < parameters) == bool(architecture.changed)
    folder = export_timm(model, tmp_path_factory.mktemp("export") / "net", keep_classifier=True)
    loaded = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    assert Architecture.of(loaded).edges == architecture.edges
    assert torch.equal(loaded(x), model(x))
    assert timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=7)(x).shape == (2, 7)


def test_none_is_no_candidate_where_it_would_cut_the_network():
    blocks, _ = create("vit_tiny_patch16_224")
    branches, _ = create("vit_tiny_patch16_224", ["blocks.*.attn", "blocks.*.mlp"])
    assert {spec.candidates for spec in blocks.edge_specs()} == {("original", "identity")}
    assert len(branches.edge_specs()) == 6
    assert {spec.candidates for spec in branches.edge_specs()} == {("original", "identity", "none")}


def test_copies_and_pickles_keep_their_edges():
    model, x = create("convnext_atto")
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert again.edge_specs() == model.edge_specs()
        assert torch.equal(again.eval()(x), model.eval()(x))


def test_the_report_says_what_was_not_taken_and_why():
    model, _ = create("resnet10t")
    lines = describe_edges(model).splitlines()
    assert lines[0].split() == ["module", "edge", "candidates", "reason"]
    assert sum(line.split()[1] == "no" for line in lines) == 3
    assert "shape" in describe_edges(model)


def test_globs_stay_within_a_segment():
    cases = {("blocks.0", "blocks.*"): True, ("blocks.0.mlp", "blocks.*"): False, ("blocks.0.mlp", "**.mlp"): True}
    cases |= {("stages.1.blocks.2", "stages.*.blocks.*"): True, ("stages", "**"): True}
    for (name, glob), wanted in cases.items():
        assert matches(name, glob) == wanted, (name, glob)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: create("vit_tiny_patch16_224", "block.*"), r"no module matches edges=block\.\*; .*blocks\.\*"),
        (lambda: adaptable(timm.create_model("resnet20")), "has edges already"),
        (lambda: adaptable(nn.Linear(2, 2)), r"was not built by timm\.create_model"),
        (lambda: adaptable(timm.create_model("resnet10t", stem_width=8), model_args={}), "build another"),
    ],
)  # fmt: skip
def test_errors_say_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()
