"""The network of SimCLR: a backbone and its projector."""

from torch import Tensor, nn


def create_projector(in_features: int, hidden: int, out: int) -> nn.Sequential:
    """Projection head: Linear (no bias), BatchNorm1d, ReLU, Linear; (B, in_features) -> (B, out).

    Source: SimCLR (Chen et al. 2020), section 2.1; the sizes 2048-512-128 and the BatchNorm are those of
    the public leftthomas/SimCLR.
    """
    return nn.Sequential(
        nn.Linear(in_features, hidden, bias=False),
        nn.BatchNorm1d(hidden),
        nn.ReLU(inplace=True),
        nn.Linear(hidden, out),
    )


class SimclrNetwork(nn.Module):
    """A backbone and its projector: images (B, 3, H, W) -> projections (B, out).

    Args:
        backbone: maps images to pooled features (B, in_features), such as a timm model with num_classes=0.
        projector: maps features to projections.
    """

    def __init__(self, backbone: nn.Module, projector: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.projector = projector
        self.heads = (projector,)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> projections (B, out)."""
        projections: Tensor = self.projector(self.backbone(images))
        return projections
