"""Any timm model: what becomes an edge, that it is exact, and that it is exported like a network of ours."""

import copy
import pickle
import random
from functools import cache
from io import StringIO

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from torch import nn

from benchmarks.family_comparison import measure_families
from ssl_adapt import Adaptation, Architecture, adaptable, export_timm
from ssl_adapt.adaptation.adaptation import one_hot
from ssl_adapt.adaptation.cost import count_macs, count_parameters
from ssl_adapt.adaptation.edge import MixedEdge, Zero
from ssl_adapt.backbones.adaptable import describe_edges
from ssl_adapt.backbones.adaptable_probe import matches

FAMILIES = {  # name -> its arguments, its image size, how many edges it has
    "resnet10t": ({"layers": (1, 2, 1, 1)}, 32, 2),
    "convnext_atto": ({"depths": (1, 1, 2, 1), "dims": (8, 16, 24, 32)}, 32, 5),
    "vit_tiny_patch16_224": ({"img_size": 32, "depth": 3, "embed_dim": 24}, 32, 3),
    "mixer_s32_224": ({"img_size": 64, "mlp_ratio": (0.1, 0.25)}, 64, 8),
    "efficientnet_b0": ({}, 32, 9),
    "regnetx_002": ({}, 32, 9),
    "swin_tiny_patch4_window7_224": ({"img_size": 56, "embed_dim": 12, "depths": (2, 2), "num_heads": (1, 2)}, 56, 4),
    "mobilenetv3_small_050": ({}, 32, 7),
    "poolformer_s12": ({}, 32, 12),
}


def create_timm(name: str) -> nn.Module:
    arguments, px, _ = FAMILIES[name]
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=4, pretrained_cfg_overlay={"input_size": (3, px, px)}, **arguments)


@cache  # two runs of the network for each module looked at take most of these tests' time
def find_edges(name: str, edges: tuple[str, ...] | None) -> nn.Module:
    return adaptable(create_timm(name), edges, model_args=FAMILIES[name][0])


def create(name: str, *edges: str) -> tuple[nn.Module, torch.Tensor]:
    px = FAMILIES[name][1]
    return copy.deepcopy(find_edges(name, edges or None)), torch.randn(2, 3, px, px)


def perturb(model: nn.Module) -> None:
    """Move weights away from their start, where a block may compute nothing (zeros, tiny layer scales)."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))


@pytest.mark.parametrize("name", FAMILIES)
def test_edges_are_found_and_the_start_is_the_plain_network(name):
    model, x = create(name)
    assert len(model.edge_specs()) == FAMILIES[name][2]
    assert sum(row.taken for row in model.edge_report) == FAMILIES[name][2]
    assert all(row.reason for row in model.edge_report)
    Adaptation(model)
    assert torch.equal(model.eval()(x), create_timm(name).eval()(x))


@pytest.mark.parametrize("name", FAMILIES)
def test_adapted_fixed_exported_reloaded(name, tmp_path):
    model, x = create(name)
    adaptation = Adaptation(model, on_dead="allow")
    theta_optimizer = torch.optim.Adam(adaptation.theta_parameters(), 0.01)
    with adaptation.architecture_pass():
        model.train().forward_features(torch.cat([x, x + 1])).square().mean().backward()  # heads may start at zero
    theta_optimizer.step()
    assert all(theta[1] != 0 for theta in adaptation.theta_parameters())
    draw = random.Random(name)
    for spec in adaptation.edges:
        adaptation.theta[spec.name].data = torch.tensor(one_hot(draw.choice(spec.candidates)))
    parameters, expected = count_parameters(model), model.eval()(x)
    architecture = adaptation.fix()
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)
    assert 0 < len(architecture.changed) < len(architecture.edges)
    assert count_parameters(model) < parameters
    folder = export_timm(model, tmp_path / "net")
    loaded = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    assert Architecture.of(loaded).edges == architecture.edges
    assert torch.equal(loaded(x), model(x))
    assert timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=7)(x).shape == (2, 7)


def test_none_is_no_candidate_where_it_would_cut_the_network():
    blocks, _ = create("vit_tiny_patch16_224")
    branches, _ = create("vit_tiny_patch16_224", "blocks.*.attn", "blocks.*.mlp")
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
        (lambda: adaptable(create_plain(), "stages.*.downsample"), "none of the 4 modules .* gives its input back"),
        (lambda: adaptable(create_plain(act_layer=nn.ReLU)), "can't be written as JSON"),
        (lambda: adaptable(create_plain("densenet121")), "no module matches .* such as features.denseblock"),
        (lambda: adaptable(create_plain("densenet121"), "features.*.denselayer1"), "first argument is not a tensor"),
    ],
)  # fmt: skip
def test_errors_say_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def create_plain(name="convnext_atto", **kwargs):
    arguments, px, _ = FAMILIES.get(name, ({}, 64, None))
    cfg = {"input_size": (3, px, px)}
    model = timm.create_model(name, pretrained_cfg_overlay=cfg, **{"num_classes": 7, **arguments, **kwargs})
    perturb(model)
    return model


def images(model):
    return torch.randn(3, *model.pretrained_cfg["input_size"])


def load(folder):
    return timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()


@pytest.mark.parametrize("name", FAMILIES)
def test_the_start_is_exact_in_training_and_what_is_removed_is_gone(name, tmp_path):
    model, plain = create(name)[0], create_timm(name)
    perturb(model)
    plain.load_state_dict(model.state_dict())
    x = images(model)
    adaptation = Adaptation(model)
    torch.manual_seed(0)
    expected = plain.train()(x)
    torch.manual_seed(0)
    assert torch.equal(model.train()(x), expected)
    removed = list(adaptation.theta)[-1]
    adaptation.theta[removed].data = torch.tensor(one_hot("identity"))
    before = count_parameters(model), count_macs(model, x[:1])
    assert adaptation.fix().changed == {removed: "identity"}
    assert count_parameters(model) < before[0]
    assert count_macs(model, x[:1]) < before[1]
    folder = export_timm(model, tmp_path / "export")
    maps = timm.create_model(f"local-dir:{folder}", pretrained=True, features_only=True).eval()
    assert [output.shape[1] for output in maps(x)] == maps.feature_info.channels()


DRAWN = {  # kinds of edges whose replacements could disturb each other: chains, branches, parts of a block
    ("convnext_atto", None): 5,
    ("vit_tiny_patch16_224", ("blocks.*.attn", "blocks.*.mlp")): 6,
    ("resnet10t", ("layer[1-4].*.*",)): 17,
    ("mobilenetv3_small_050", ("blocks.*.*.se",)): 9,
}


@cache
def create_drawn(name, edges):
    return adaptable(create_plain(name).eval(), edges)


@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_random_choices_are_exact_when_fixed_and_when_loaded(data, tmp_path_factory):
    (name, edges), count = data.draw(st.sampled_from(list(DRAWN.items())))
    model = copy.deepcopy(create_drawn(name, edges))
    assert len(model.edge_specs()) == count
    x = images(model)
    adaptation = Adaptation(model, on_dead="allow")
    choices = {spec.name: data.draw(st.sampled_from(spec.candidates)) for spec in model.edge_specs()}
    for edge, choice in choices.items():
        adaptation.theta[edge].data = torch.tensor(one_hot(choice))
    mixed = model(x)
    assert adaptation.fix().edges == choices
    assert torch.equal(model(x), mixed)
    loaded = load(export_timm(model, tmp_path_factory.mktemp("export") / "net"))
    model.reset_classifier(0)
    assert torch.equal(loaded(x), model(x))
    assert loaded.edge_specs() == model.edge_specs()


def test_cell_sharing_shares_by_place_and_candidates():
    model = adaptable(create_plain("vit_tiny_patch16_224"), ["blocks.*.attn", "blocks.*.mlp"])
    assert len(Adaptation(model, sharing="cell").theta) == 2
    assert len(Adaptation(adaptable(create_plain()), sharing="cell").theta) == 2  # blocks 0 and 1 of all stages


def test_an_unchanged_network_exports(tmp_path):
    model = adaptable(create_plain(in_chans=1, drop_path_rate=0.1))
    assert model.model_args["base_args"]["drop_path_rate"] == 0.1
    loaded, x = load(export_timm(model, tmp_path / "export")), images(model)
    model.eval().reset_classifier(0)
    assert torch.equal(loaded(x), model(x))
    assert Architecture.of(loaded).changed == {}


def test_built_again_by_name_it_takes_images_of_the_same_size():
    model, x = create("vit_tiny_patch16_224")
    again = timm.create_model("adaptable_timm", num_classes=4, **model.model_args).eval()
    assert again.pretrained_cfg["input_size"] == model.pretrained_cfg["input_size"] == (3, 32, 32)
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(x), model.eval()(x))


def test_the_dry_run_leaves_no_trace():
    model = create_plain(drop_path_rate=0.5)
    model.train().stages[0].eval()
    model.head.requires_grad_(False)
    state = copy.deepcopy(model.state_dict())
    modes = [module.training for module in model.modules()]
    trainable = [parameter.requires_grad for parameter in model.parameters()]
    random_state = torch.get_rng_state()
    adaptable(model)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == trainable
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert not any(isinstance(module, MixedEdge | Zero) for module in model.modules())


def test_meta_gives_the_same_edges():
    with torch.device("meta"):
        model = adaptable(create_plain())
    assert model.edge_specs() == adaptable(create_plain()).edge_specs()


def test_families_are_measured_and_printed():
    console = Console(file=StringIO(), width=150)
    arguments = {name: FAMILIES[name][0] for name in ("vit_tiny_patch16_224", "mixer_s32_224")}
    rows = measure_families(arguments, repeats=2, batch_size=2, console=console)
    assert [row.name for row in rows] == list(arguments)
    for row in rows:
        assert row.edges == FAMILIES[row.name][2]
        assert row.skipped_edges == -(-row.edges // 3)
        assert 0.5 < row.macs_ratio < 0.9
        assert row.name in console.file.getvalue()
