"""The protocols of a linear probe: everything that its score depends on beside the network and the images."""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

LinearName = Literal["features", "sgd", "sgd_plain"]
PARTS = 5  # of the labelled images, of which one at a time is held out


@dataclass(frozen=True, kw_only=True)
class FeaturesProtocol:
    """Multinomial logistic regression on features of each image as it is, computed once.

    Attributes:
        penalties: ascending; half of one times the squared weights is added to the mean cross-entropy, biases aside.
        held_out_images: fifths of the labelled images are held out in turn, until there were so many; the penalty
            with which most of these are right is used for all labelled images, the largest of equally good ones.
        max_iterations: of L-BFGS.
    """

    name: ClassVar[LinearName] = "features"

    penalties: tuple[float, ...] = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    held_out_images: int = 2000
    max_iterations: int = 1000

    def __str__(self) -> str:
        first, last = self.penalties[0], self.penalties[-1]
        return f"linear on cached features, L-BFGS, one of {len(self.penalties)} penalties {first:g} to {last:g}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a record."""
        return {"name": self.name, **asdict(self)}


@dataclass(frozen=True, kw_only=True)
class SgdProtocol:
    """A linear layer trained by SGD on random crops and flips of each image, by a learning rate without any penalty.

    Crops are those of the linear probes of SimCLR, MoCo and solo-learn: a random box, resized to the image's size.

    Attributes:
        name: "sgd", or "sgd_plain" without crops and flips.
        epochs: over the labelled images; the rate falls by a cosine to 0.
        batch_size: images in a batch, or all if there are fewer.
        learning_rates: ascending, for 256 images in a batch. All are trained in one pass over the same features: one
            layer each on all labelled images, and one without each part that is held out.
        momentum: of SGD.
        crop_scale: smallest and largest area of a crop, as a share of the image's.
        crop_ratio: smallest and largest width / height of a crop.
        flip_p: probability of a horizontal flip.
        held_out_images: as in `FeaturesProtocol`, for the rate; the smallest of equally good ones is taken.
        seed: of the order of the images, and of crops and flips.
    """

    name: LinearName = "sgd"
    epochs: int = 100
    batch_size: int = 256
    learning_rates: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
    momentum: float = 0.9
    crop_scale: tuple[float, float] = (0.08, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip_p: float = 0.5
    held_out_images: int = 2000
    seed: int = 0

    @property
    def augments(self) -> bool:
        """Whether an image may differ from itself."""
        return self.crop_scale[0] < 1 or self.flip_p > 0

    def __str__(self) -> str:
        first, last = self.learning_rates[0], self.learning_rates[-1]
        images = "crops and flips" if self.augments else "cached features"
        return (
            f"linear by SGD on {images}, {self.epochs} epochs, one of {len(self.learning_rates)} rates {first:g} to "
            f"{last:g}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a record."""
        return asdict(self)


def create_sgd_plain(**changes: Any) -> SgdProtocol:
    """SGD on features of each image as it is, computed once: what `features` solves, by the classic optimiser."""
    return SgdProtocol(name="sgd_plain", crop_scale=(1.0, 1.0), flip_p=0.0, **changes)


LinearProtocol = FeaturesProtocol | SgdProtocol
