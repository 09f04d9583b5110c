"""SimCLR with adaptation in a loop of one's own, on the handwritten digits: python examples/own_loop.py

What the package's own loop adds: kNN, checkpoints, several processes, mixed precision, annealing, logs.
"""

import timm
import torch

import ssl_adapt
from ssl_adapt.data import Batch, load_image_splits
from ssl_adapt.views import ResizedCropSettings, Views, resized_crop_view

EPOCHS, ARCHITECTURE_EPOCHS, BATCH_SIZE = 3, 2, 128


def main(folder: str = "runs/own_loop") -> None:
    """Train, fix the architecture after two of three epochs, and export the backbone."""
    torch.manual_seed(0)
    images = load_image_splits("digits", image_px=16).train.images(torch.arange(1280))  # (N, 3, 16, 16) uint8
    view = resized_crop_view(
        ResizedCropSettings(
            size_px=16, crop_scale=(0.4, 1.0), crop_ratio=(0.75, 1.33), antialias=True, flip_p=0.0,
            jitter=(0.2, 0.2, 0.2, 0.05), jitter_p=0.8, grayscale_p=0.0, mean=(0.3, 0.3, 0.3), std=(0.3, 0.3, 0.3),
        )
    )  # fmt: skip
    backbone = timm.create_model("resnet20_nat", num_classes=0, channels=8, cells=3)
    objective = ssl_adapt.objectives.Simclr(
        backbone, Views([view, view]), temperature=0.2, projector_hidden=64, projector_out=32
    )
    network = objective.network
    adaptation = ssl_adapt.Adaptation(backbone, none_rule="threshold", none_start=1.0, none_threshold=0.9)
    weight_optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    theta_optimizer = torch.optim.Adam(adaptation.theta_parameters(), lr=1e-2, betas=(0.5, 0.999))

    for epoch in range(EPOCHS):
        if epoch == ARCHITECTURE_EPOCHS:
            architecture = adaptation.fix()
            print(f"fixed: {len(architecture.changed)} of {len(architecture.edges)} edges changed")
        for indices in torch.randperm(len(images)).split(BATCH_SIZE):
            views = objective.views(Batch(images[indices]))
            loss = objective.loss(objective.forward(network, views))
            loss.backward()
            weight_optimizer.step()
            weight_optimizer.zero_grad()
            objective.after_step(progress=1.0)  # moves a teacher, where an objective has one
            if epoch < ARCHITECTURE_EPOCHS:
                with adaptation.architecture_pass(network):
                    objective.loss(objective.forward(network, views)).backward()
                theta_optimizer.step()
                theta_optimizer.zero_grad()
        print(f"epoch {epoch + 1}/{EPOCHS}: loss {loss.item():.3f}")
    ssl_adapt.export_timm(backbone, folder)
    print(f"exported: timm.create_model('local-dir:{folder}', pretrained=True, num_classes=0)")


if __name__ == "__main__":
    main()
