"""What holds for every network of ours: the mixed form is the plain one, and what is fixed can be exported."""

import copy

import pytest
import timm
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from registered_networks import NETWORKS, create

from ssl_adapt import Adaptation, Architecture, apply_architecture, export_timm
from ssl_adapt.adaptation.adaptation import one_hot
from ssl_adapt.adaptation.edge import MixedEdge


def test_no_network_is_forgotten():
    ours = {
        name for name in timm.list_models() if timm.model_entrypoint(name).__module__.startswith("ssl_adapt.backbones")
    }
    assert ours - {"adaptable_timm"} == {key.partition(",")[0] for key in NETWORKS}


@pytest.mark.exactness
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("shape_change", ["pad", "project", "forbid"])
def test_mixed_is_plain_to_the_bit_at_the_start(name, shape_change):
    torch.manual_seed(0)
    plain = create(name)
    mixed = copy.deepcopy(plain)
    Adaptation(mixed, shape_change=shape_change)
    x = torch.randn(2, 3, 16, 16)
    for mode in (True, False, True):
        assert torch.equal(plain.train(mode)(x), mixed.train(mode)(x))


@pytest.mark.parametrize("px", [16, 18])
@pytest.mark.parametrize("name", NETWORKS)
def test_specs_say_the_shapes_that_flow(name, px):
    """Every edge maps (in_channels, H) to (out_channels, ceil(H / stride)), seen in a forward pass."""
    model = create(name)
    specs = {spec.name: spec for spec in model.edge_specs()}
    seen = {}
    for edge in specs:
        module = model.get_submodule(edge)
        module.register_forward_hook(lambda _, x, y, edge=edge: seen.update({edge: (x[0].shape, y.shape)}))
    model(torch.zeros(2, 3, px, px))
    assert {name for name, spec in specs.items() if spec.kind != "none"} <= set(seen)  # nodes skip none edges
    for edge, (before, after) in seen.items():
        spec = specs[edge]
        assert (before[1], after[1]) == (spec.in_channels, spec.out_channels), edge
        assert after[2] == -(-before[2] // spec.stride), edge


@pytest.mark.parametrize("name", [name for name in NETWORKS if not name.startswith("proxyless")])
def test_cell_sharing(name):
    adaptation = Adaptation(create(name), sharing="cell")
    assert 0 < len(adaptation.theta) < len(adaptation.edges)


@pytest.mark.exactness
@pytest.mark.parametrize("name", NETWORKS)
@settings(max_examples=2, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_architectures_are_fixed_exported_and_reloaded(name, data, tmp_path_factory):
    """Many none: one-hot mixed == fixed == built from the Architecture == reloaded through timm."""
    torch.manual_seed(0)
    mixed = create(name)
    plain = copy.deepcopy(mixed)
    shape_change = data.draw(st.sampled_from(["pad", "project"]))
    adaptation = Adaptation(mixed, shape_change=shape_change, none_rule="threshold", on_dead="allow")
    for spec in adaptation.edges:
        choice = data.draw(st.sampled_from(spec.candidates))
        adaptation.theta[spec.name].data = torch.tensor(one_hot(choice))
    x = torch.randn(2, 3, 16, 16)
    expected = mixed.eval()(x)
    architecture = adaptation.fix()
    assert not any(isinstance(module, MixedEdge) for module in mixed.modules())
    torch.testing.assert_close(mixed(x), expected, rtol=1e-4, atol=1e-5)
    apply_architecture(plain, Architecture.from_json(architecture.to_json()))
    plain.load_state_dict(mixed.state_dict())
    assert torch.equal(plain.eval()(x), mixed(x))
    folder = export_timm(mixed, tmp_path_factory.mktemp("export") / "net", extra_args=NETWORKS[name])
    loaded = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    assert Architecture.of(loaded).edges == architecture.edges
    assert torch.equal(loaded(x), mixed(x))
    features = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()
    mixed.reset_classifier(0)
    assert torch.equal(features(x), mixed(x))
