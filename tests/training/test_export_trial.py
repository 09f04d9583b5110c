"""A run tries its export before its first step: what could not be exported in the end is refused at once."""

import tempfile
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import pytest
import short_runs
import timm
import torch
from image_folders import write_noise
from processes_run import create
from short_runs import run
from timm.models import build_model_with_cfg, register_model
from torch import Tensor, nn

from ssl_adapt import Architecture, load_export, load_recipe
from ssl_adapt.adaptation.architecture import unmixed
from ssl_adapt.adaptation.edge import MixedEdge
from ssl_adapt.training.plan import try_export

COAT = [
    "model.name=coat_lite_tiny", "model.args={embed_dims: [8, 8, 8, 8], serial_depths: [1, 2, 1, 1]}",
    "data.image_px=32", "train.max_steps=2", "adapt.edges=serial_blocks2.*",
    "adapt.choices={serial_blocks2.0: identity}",
]  # fmt: skip


class Forgetful(nn.Module):
    """What it learns is not all in tensors that a state dict holds: a mean of what it saw, or a text."""

    def __init__(self, num_classes: int = 10, in_chans: int = 3) -> None:
        super().__init__()
        self.num_features, self.num_classes = 4, num_classes
        self.conv = nn.Conv2d(in_chans, 4, 3)
        self.register_buffer("mean", torch.zeros(4), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).mean((2, 3))
        if self.training:
            self.mean = self.mean.lerp(x.detach().mean(0), 0.1)
        return x - self.mean

    def reset_classifier(self, num_classes: int) -> None:
        self.num_classes = num_classes


class Talkative(Forgetful):
    def get_extra_state(self) -> str:
        return "learnt"


@pytest.fixture
def forgetful() -> Iterator[None]:
    def forgetful_net(pretrained: bool = False, text: bool = False, **kwargs: object) -> nn.Module:
        return build_model_with_cfg(Talkative if text else Forgetful, "forgetful_net", pretrained, **kwargs)

    register_model(forgetful_net)
    yield
    timm.models._registry._model_entrypoints.pop("forgetful_net")


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files, empty."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path / "temporary"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("false", r"the export gives another output than the network \(by up to 0\.\d+\)$"),
        ("true", r"its state '_extra_state' is a str, and an export holds tensors alone$"),
    ],
)
@pytest.mark.usefixtures("forgetful")
def test_what_can_not_be_exported_is_refused_before_anything_is_made(
    tmp_path: Path, temporary: Path, text: str, reason: str
) -> None:
    arguments = ["model.name=forgetful_net", f"model.args={{text: {text}}}", "adapt=null"]
    message = rf"^model\.name=forgetful_net with model\.args=.* can't be exported, so that .* in vain: {reason}"
    with pytest.raises(ValueError, match=message) as caught:
        run(tmp_path / "a", *arguments)
    assert str(caught.value).isprintable()
    assert list(tmp_path.iterdir()) == [temporary]
    assert list(temporary.iterdir()) == []


def test_a_run_whose_modules_share_weights_is_exported(tmp_path: Path, temporary: Path) -> None:
    write_noise(tmp_path / "images", 9)
    export = run(tmp_path / "a", *COAT, "data.name=folder", f"data.root={tmp_path / 'images'}", "data.batch_size=4")
    assert export is not None
    loaded = load_export(export).eval()
    saved = short_runs.load_checkpoint(tmp_path / "a").state["learner"]["network"]
    weights = {name.removeprefix("backbone."): value for name, value in saved.items() if name.startswith("backbone.")}
    assert loaded.state_dict().keys() == weights.keys()
    assert all(torch.equal(value, weights[name]) for name, value in loaded.state_dict().items())
    assert Architecture.of(loaded).changed == {"serial_blocks2.0": "identity"}
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["data.image_px=8", "model.args={width: 4, layers: [1], drop_rate: 0.5}"],
        ["data.image_px=8", "model.name=resnet20_nat", "model.args={channels: 4, cells: 3}", "adapt=null"],
    ],
)
def test_the_trial_leaves_nothing_behind(temporary: Path, arguments: list[str]) -> None:
    learner = create(arguments)
    names = [name for name, _ in learner.network.named_modules()]
    before, random_state = deepcopy(learner.network.state_dict()), torch.get_rng_state()
    try_export(learner, load_recipe(["recipe=debug", *arguments]).model)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert [name for name, _ in learner.network.named_modules()] == names
    assert all(torch.equal(value, before[name]) for name, value in learner.network.state_dict().items())
    assert list(temporary.iterdir()) == []


def test_an_unmixed_copy_is_the_plain_network_with_these_weights() -> None:
    arguments = ["data.image_px=8", "model.args={width: 4, layers: [1, 2]}", "adapt.shape_change=project"]
    backbone = create(arguments).network.backbone.eval()
    plain = timm.create_model("resnet20", width=4, layers=[1, 2], num_classes=0).eval()
    copy = unmixed(backbone)
    assert any(isinstance(module, MixedEdge) for module in backbone.modules())
    assert not any(isinstance(module, MixedEdge) for module in copy.modules())
    plain.load_state_dict(copy.state_dict())
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(plain(x), backbone(x))
    assert not {id(p) for p in copy.parameters()} & {id(p) for p in backbone.parameters()}
