"""Runs that start from trained weights: exact at their first step, whatever adapts, and told what was found."""

from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
import yaml
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from short_runs import SUPERVISED, TINY, assert_same_weights, events, load_checkpoint, run, weights
from small_networks import export_adapted, small

from ssl_adapt import load_recipe
from ssl_adapt.data import Batch, load_image_splits
from ssl_adapt.errors import UserError
from ssl_adapt.report.theta_plot import draw_theta
from ssl_adapt.training.create_learner import create_learner
from ssl_adapt.training.learner import Learner
from ssl_adapt.training.loop import train_step
from ssl_adapt.training.objective import create_objective
from ssl_adapt.training.schedules import Stages, plan_stages
from ssl_adapt.training.start_weights import digest_of, find_start

FAMILIES = {
    "resnet18": {"layers": [2, 1, 1, 1], "channels": [8, 8, 8, 8]},
    "vit_tiny_patch16_224": {"img_size": 16, "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2},
    "convnext_atto": {"depths": [1, 1, 1, 1], "dims": [8, 8, 8, 8]},
}
REMOVAL = ["adapt.score=removal", "adapt.granularity=branch", "adapt.score_batches=2"]
EDGES = {"layer1.0": "identity"}  # with granularity=branch
SHORT = [*TINY, "train.max_steps=2", "data.train_images=256", "knn.k=5"]


def after_one_step(*arguments: str) -> tuple[float, dict[str, torch.Tensor], Learner]:
    """The loss of the first step, and all weights and statistics after it."""
    recipe = load_recipe([*TINY[:1], "data.batch_size=16", "train.lr=0.1", *arguments])
    px = recipe.data.image_px
    digits = load_image_splits("digits", image_px=px).train
    start = find_start(recipe.model, recipe.adapt)
    recipe = recipe.model_copy(update={"model": start.model})
    torch.manual_seed(0)
    objective = create_objective(recipe, digits)
    start.load_into(objective.network.backbone, objective.network.teacher_backbones)
    learner = create_learner(recipe, objective, Accelerator(cpu=True))
    stages: Stages = plan_stages(
        steps_per_epoch=8, epochs=2, adapt_epochs=1 if recipe.adapt else 0, anneal_epochs=0, max_steps=None
    )
    torch.manual_seed(1)
    learner.network.train()
    views = learner.views(Batch(digits.images(torch.arange(16))))
    loss = train_step(learner, stages, views, 0)
    assert loss is not None
    return loss, learner.network.state_dict(), learner


@pytest.mark.parametrize("name", FAMILIES)
def test_the_first_step_is_that_of_the_plain_network(name: str, tmp_path: Path) -> None:
    """SimCLR from trained weights: with scores every bit of the network is the plain one's, with theta the loss."""
    torch.manual_seed(3)
    trained = timm.create_model(name, num_classes=7, **FAMILIES[name])
    torch.save(trained.state_dict(), file := tmp_path / "trained.pth")
    px = 32 if name == "convnext_atto" else 16
    arguments = yaml.safe_dump(FAMILIES[name], default_flow_style=True)
    network = [f"data.image_px={px}", f"model.name={name}", f"model.args={arguments}"]
    given = [*network, f"model.weights={file}"]
    loss, state, learner = after_one_step(*given, "adapt=null")
    scored = after_one_step(*given, *REMOVAL)
    assert scored[0] == loss
    assert list(scored[1]) == list(state)
    assert all(torch.equal(scored[1][key], value) for key, value in state.items())
    theta_loss, _, mixed = after_one_step(*given)
    assert mixed.adaptation is not None
    assert len(mixed.adaptation.edges) >= 1
    assert theta_loss == loss
    assert after_one_step(*network, "adapt=null")[0] != loss  # the weights do count
    before = dict(trained.named_parameters())
    names = [key for key, _ in learner.network.backbone.named_parameters()]
    assert len(names) == len(before) - 2  # no classifier
    assert not any(torch.equal(state[f"backbone.{key}"], before[key]) for key in names if key.endswith("conv1.weight"))


def test_a_file_is_loaded_told_and_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained = small(num_classes=3)
    save_file(trained.state_dict(), file := tmp_path / "a.safetensors")
    run(tmp_path / "run", f"model.weights={file}", "adapt=null", "train.lr=1.0e-30", base=SHORT)
    found = weights(tmp_path / "run")
    assert torch.equal(found["stem.conv.weight"], trained.state_dict()["stem.conv.weight"])
    out = capsys.readouterr().out
    count = len(trained.state_dict()) - 2
    assert f"from{file}:{count}tensors;leftout:fc.bias,fc.weight" in "".join(out.split())  # the line may be folded
    assert "network as loaded" in out
    assert "untrained" not in out
    [event] = events(tmp_path / "run", "weights")
    assert (event["sha256"], event["tensors"]) == (digest_of(file), count)
    assert len(events(tmp_path / "run", "loaded")) == 1
    assert events(tmp_path / "run", "untrained") == []


def test_a_new_classifier_is_said(tmp_path: Path) -> None:
    torch.save(small(num_classes=3).state_dict(), file := tmp_path / "a.pt")
    run(tmp_path / "run", f"model.weights={file}", "train.max_steps=2", base=SUPERVISED)
    [event] = events(tmp_path / "run", "weights")
    assert event["not_found"] == event["left_out"] == ["fc.weight", "fc.bias"]


def test_a_teacher_starts_from_them_too(tmp_path: Path) -> None:
    trained = small(num_classes=0)
    torch.save(trained.state_dict(), file := tmp_path / "a.pt")
    recipe = load_recipe(["recipe=byol_resnet20", "data.image_px=8", *TINY[2:3], f"model.weights={file}"])
    objective = create_objective(recipe, load_image_splits("digits", image_px=8).train)
    find_start(recipe.model, recipe.adapt).load_into(objective.network.backbone, objective.network.teacher_backbones)
    [teacher] = objective.network.teacher_backbones
    for network in (objective.network.backbone, teacher):
        assert all(torch.equal(network.state_dict()[name], value) for name, value in trained.state_dict().items())


# --- adapted networks -------------------------------------------------------------------------------------


ARGS = "model.args={width: 4, layers: [2, 2]}"


def with_args(arguments: list[str]) -> list[str]:
    return arguments if any(argument.startswith("model.args") for argument in arguments) else [*arguments, ARGS]


def test_an_adapted_network_keeps_its_architecture(tmp_path: Path) -> None:
    network = export_adapted(tmp_path / "net")
    for source in (tmp_path / "net", f"local-dir:{tmp_path / 'net'}"):
        folder = tmp_path / f"run{len(str(source))}"
        run(folder, f"model.weights={source}", ARGS, "adapt=null", "train.lr=1.0e-30", base=SHORT)
        assert set(weights(folder)) == set(network.state_dict())
        assert timm.create_model(f"local-dir:{folder / 'export'}", pretrained=True).model_args == network.model_args


@pytest.mark.parametrize("how", ["adapt=null", "adapt.theta_lr=0.5", "adapt.score=removal"])
def test_a_run_goes_on_from_an_adapted_network_and_resumes_exactly(how: str, tmp_path: Path) -> None:
    export_adapted(tmp_path / "net")
    given = [ARGS, how, f"model.weights={tmp_path / 'net'}", "data.train_images=256", "knn.k=5"]
    run(tmp_path / "whole", *given)
    run(tmp_path / "parts", "run.stop_after_epochs=1", *given)
    (tmp_path / "net").rename(tmp_path / "away")  # the checkpoint has all that is needed
    run(tmp_path / "parts", "run.resume=auto", *given)
    assert_same_weights(tmp_path / "whole", tmp_path / "parts")
    assert not any(name.startswith("layer1.0.") for name in weights(tmp_path / "whole"))
    assert len(events(tmp_path / "parts", "weights")) == 1
    if "theta" in how:
        assert draw_theta(tmp_path / "parts", [tmp_path / "theta.svg"]) > 1


def test_a_run_shrinks_on_from_a_run_that_shrank_a_timm_network(tmp_path: Path) -> None:
    network = ["model.name=resnet18", "model.args={layers: [3, 1, 1, 1], channels: [8, 8, 8, 8]}", "data.image_px=16"]
    first = [*SHORT, *REMOVAL[:2], "adapt.score_batches=1", "adapt.budget_macs=0.98"]
    run(tmp_path / "a", *network, base=first)
    again = [*SHORT, "adapt.score=removal", "adapt.budget_macs=0.98", f"model.weights={tmp_path / 'a'}"]
    run(tmp_path / "b", *network, base=again)
    changed = [events(tmp_path / name, "fix")[0]["changed"] for name in "ab"]
    assert len(changed[0]) == 1
    assert changed[1].items() > changed[0].items()
    macs = [events(tmp_path / name, "fix")[0]["macs"] for name in "ab"]
    assert macs[1] <= 0.98 * macs[0]
    assert load_checkpoint(tmp_path / "b").state["learner"]["architecture"]["model"] == "adaptable_timm"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["model.name=resnet50_cifar", "adapt=null"],
            "is an adapted resnet20: type model.name=resnet20 for",
        ),
        (["adapt.granularity=branch"], "keeps the edges at which it was adapted: take out adapt.granularity=branch"),
        (["adapt=null", "model.args={width: 4, layers: [2, 3]}"], "no choice is given for edge 'layer2.2'"),
        (
            ["adapt=null", "model.args={width: 8, layers: [2, 2]}"],
            "does not fit model.name=resnet20: 'stem.conv.weight' is",
        ),
    ],
)
def test_an_adapted_network_that_can_t_be_gone_on_from(arguments: list[str], message: str, tmp_path: Path) -> None:
    export_adapted(tmp_path / "net")
    with pytest.raises(UserError, match=message):
        run(tmp_path / "run", f"model.weights={tmp_path / 'net'}", *with_args(arguments), base=SHORT)
    assert not (tmp_path / "run").exists()


# --- what is refused --------------------------------------------------------------------------------------


def write_nan(folder: Path) -> str:
    state = small().state_dict()
    state["stem.conv.weight"][0] = torch.nan
    torch.save(state, folder / "nan.pt")
    return f"model.weights={folder / 'nan.pt'}"


def write_part_of_an_export(folder: Path) -> str:
    export_adapted(folder / "net")
    return f"model.weights={folder / 'net/model.safetensors'}"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda folder: f"model.weights={folder / 'none.pth'}", "none.pth is no file"),
        (lambda folder: f"model.weights={folder}", "holds neither recipe.yaml, as a run folder does, nor config.json"),
        (lambda folder: "model.weights=resnet18", "is a name of timm: type model.name=resnet18 model.pretrained=true"),
        (lambda folder: "model.weights=resnet2O", "unknown model 'resnet2O'"),
        (lambda folder: "model.pretrained=true", "timm has no weights for it; give model.weights=FILE"),
        (write_nan, r"^model.weights=\S+: the weight 'stem.conv.weight' is not finite"),
        (write_part_of_an_export, "if the network was adapted, give the folder instead"),
    ],
)
def test_what_is_no_start(given: Callable[[Path], str], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        run(tmp_path / "run", given(tmp_path), base=SHORT)
    assert not (tmp_path / "run").exists()


def test_two_starts() -> None:
    with pytest.raises(UserError, match=r"model.pretrained=true and model.weights=a.pt are two starts"):
        load_recipe([*TINY, "model.pretrained=true", "model.weights=a.pt"])


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        (["model.pretrained=true"], "model.pretrained=true with model.name=resnet18"),
        (["model.weights=hf-hub:nobody/none"], "model.weights=hf-hub:nobody/none"),
    ],
)
def test_without_a_network_one_sentence_says_what_to_do(
    arguments: list[str], key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UserError) as caught:
        run(tmp_path / "run", "model.name=resnet18", "model.args={}", *arguments, base=SHORT)
    assert str(caught.value).startswith(
        f"{key}: the weights are not in the cache and cannot be downloaded: connect to the network for the first run"
    )


def test_a_resumed_run_wants_the_same_file(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    save_file(small().state_dict(), file)
    base = [*TINY, "data.train_images=256", "adapt=null", f"model.weights={file}", "knn.k=5"]
    run(tmp_path / "run", "run.stop_after_epochs=1", base=base)
    first = load_file(file)
    save_file({name: value + 1 for name, value in first.items()}, file)
    with pytest.raises(UserError, match=r"is another file than that from which the run began \(sha256 "):
        run(tmp_path / "run", "run.resume=auto", base=base)
    save_file(first, file)
    assert run(tmp_path / "run", "run.resume=auto", base=base)
    with pytest.raises(UserError, match=r"model.weights .*, now None"):
        run(tmp_path / "run", "run.resume=auto", "model.weights=null", base=base)
