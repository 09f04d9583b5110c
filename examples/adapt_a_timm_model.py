"""Adapt a timm model that knows nothing of this package, export it, load it: python examples/adapt_a_timm_model.py"""

import timm
import torch
import torch.nn.functional as F

import ssl_adapt
from ssl_adapt.data import load_image_splits


def main(folder: str = "runs/adapted_convnext") -> None:
    """One epoch of a small ConvNeXt on the handwritten digits; theta learns fast, so that something changes."""
    torch.manual_seed(0)
    digits = load_image_splits("digits", image_px=32).train
    images = digits.images(torch.arange(640)).float() / 255
    labels = digits.labels[:640]

    model = timm.create_model("convnext_atto", num_classes=10, depths=(2, 2, 2, 2), dims=(8, 16, 32, 64))
    model = ssl_adapt.adaptable(model)  # edges="stages.*.blocks.*" names the modules, if the usual ones do not suit
    print(f"{len(model.edge_specs())} edges")
    adaptation = ssl_adapt.Adaptation(model)
    weight_optimizer = torch.optim.AdamW(adaptation.weight_parameters(), lr=1e-3)
    theta_optimizer = torch.optim.Adam(adaptation.theta_parameters(), lr=0.2, betas=(0.5, 0.999))
    for batch, targets in zip(images.split(64), labels.split(64), strict=True):
        F.cross_entropy(model(batch), targets).backward()
        weight_optimizer.step()
        weight_optimizer.zero_grad()
        with adaptation.architecture_pass():
            F.cross_entropy(model(batch), targets).backward()
        theta_optimizer.step()
        theta_optimizer.zero_grad()
    print(f"changed: {adaptation.fix().changed}")
    ssl_adapt.export_timm(model, folder)
    loaded = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    assert torch.equal(loaded(images[:8]), model.eval()(images[:8]))
    print(f"{sum(p.numel() for p in loaded.parameters()):,} parameters, loaded by timm")


if __name__ == "__main__":
    main()
