"""Why theta_same can hardly choose: what its gradient is where BatchNorm ends an operation."""

import json

import pytest
import timm
import torch
import torch.nn.functional as F
from small_networks import images
from torch import Tensor

import ssl_adapt
from reproduction import theta_signal

pytestmark = pytest.mark.exactness


def gradients(theta_same: float, theta_id: float) -> tuple[ssl_adapt.Adaptation, dict[str, Tensor]]:
    """A small ResNet in float64 with gradients of theta, and those of the weights by name."""
    torch.manual_seed(0)
    model = timm.create_model("resnet20", width=4, layers=(1, 2)).double()
    adaptation = ssl_adapt.Adaptation(model)
    for theta in adaptation.theta_parameters():
        theta.data = torch.tensor([0.0, theta_id, theta_same], dtype=torch.float64)
    for name, weight in model.named_parameters():
        if ".bn." in name:
            torch.nn.init.uniform_(weight, 0.5, 1.5)
    with adaptation.joint_pass():
        F.cross_entropy(model(images(8).double()), torch.arange(8)).backward()
    return adaptation, {name: weight.grad for name, weight in model.named_parameters()}


@pytest.mark.parametrize("theta_same", [1.0, 0.3, -0.7])
def test_the_gradient_of_theta_same_is_that_of_the_folded_affine(theta_same):
    adaptation, found = gradients(theta_same, 0.2)
    affine, seen = dict(adaptation.model.named_parameters()), 0
    for spec in adaptation.edges:
        if spec.kind == "operation":
            names = [f"{spec.name}.operation.bn.{part}" for part in ("weight", "bias")]
            expected = sum((affine[name].detach() * found[name]).sum() for name in names) / theta_same
            torch.testing.assert_close(adaptation.theta[spec.name].grad[2], expected, rtol=1e-12, atol=1e-15)
            assert expected.abs() > 1e-6
            seen += 1
    assert seen == 6


def test_before_another_batch_norm_theta_same_has_no_gradient_at_all():
    """relu(theta_same * y) is a scale of relu(y), which the BatchNorm after the next convolution undoes."""
    adaptation, _ = gradients(1.0, 0.0)
    sizes = {spec.name: abs(float(adaptation.theta[spec.name].grad[2])) for spec in adaptation.edges}
    first = [size for name, size in sizes.items() if name.endswith("conv1")]
    last = [size for name, size in sizes.items() if name.endswith("conv2")]
    assert len(first) == len(last) == 3
    assert max(first) < 1e-4 * min(last)  # BatchNorm's eps is what is left


def test_what_is_measured_and_drawn(tmp_path, capsys):
    arguments = ["data=digits", f"folder={tmp_path}", "width=2", "image_px=8", "train_images=400", "batches=2"]
    theta_signal.main([*arguments, "epochs=1", "seeds=1"])
    rows = [json.loads(line) for line in (tmp_path / "measurements.jsonl").read_text().splitlines()]
    assert len(rows) == 2 * 3 * 18
    assert {row["epoch"] for row in rows} == {0.0, 0.25, 1.0}
    starts = [[row["removal"] for row in rows if (row["affine"], row["step"]) == (a, 0)] for a in ("trained", "frozen")]
    assert starts[0] == starts[1]
    assert any(mean != 0 for mean, _ in starts[0])
    assert len(capsys.readouterr().out.splitlines()) == 6
    assert "<svg" in (tmp_path / "figure.svg").read_text()
