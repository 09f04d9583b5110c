"""The protocol of a kNN score: everything that it depends on beside features and labels."""

import difflib
from dataclasses import dataclass
from typing import Literal, get_args

from ssl_adapt.errors import UserError

Layer = Literal["backbone", "projection"]
Weighting = Literal["exp", "majority"]
PresetName = Literal["simclr_cifar", "instdisc", "dino", "plain"]


@dataclass(frozen=True, kw_only=True)
class KnnProtocol:
    """Everything that a kNN score depends on beside the features and the labels.

    Attributes:
        layer: which features are compared: those of the backbone, or those after the projector.
        k: number of neighbours, at least 1.
        temperature: a neighbour votes with exp(cosine / temperature); None for a majority vote.
        weighting: "exp", or "majority": one neighbour, one vote; the summed cosine breaks ties.

    Raises:
        ValueError: If a value is not one of these.
    """

    layer: Layer
    k: int
    temperature: float | None
    weighting: Weighting

    def __post_init__(self) -> None:
        if self.layer not in get_args(Layer):
            raise UserError(f"unknown kNN layer {self.layer!r}; choose one of: {', '.join(get_args(Layer))}")
        if self.weighting not in get_args(Weighting):
            choices = ", ".join(get_args(Weighting))
            raise UserError(f"unknown kNN weighting {self.weighting!r}; choose one of: {choices}")
        if self.k < 1:
            raise UserError(f"kNN needs k >= 1, got {self.k}; the SimCLR protocol uses 200")
        if self.weighting == "exp" and not (self.temperature is not None and self.temperature > 0):
            raise UserError(f"weighting 'exp' needs a temperature > 0, got {self.temperature}; SimCLR uses 0.5")
        if self.weighting == "majority" and self.temperature is not None:
            raise UserError(f"a majority vote has no temperature, got {self.temperature}; set it to None (null)")

    @classmethod
    def preset(cls, name: str) -> "KnnProtocol":
        """A published protocol, by name: simclr_cifar, instdisc, dino or plain; all on backbone features.

        Raises:
            ValueError: If there is no preset of that name; the message holds the nearest one.

        Source: simclr_cifar: leftthomas/SimCLR and the paper's k. instdisc: Wu et al. 2018, section 3.4,
        whose features are the 128-d embedding; here on the backbone, as lightly's benchmarks do. dino:
        Caron et al. 2021, appendix on k-NN. plain: a majority vote with DINO's k, as 200 neighbours are more
        than many sets have images of a class.
        """
        if name not in PRESETS:
            close = difflib.get_close_matches(name, PRESETS, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise UserError(f"unknown kNN protocol {name!r}; {hint}available: {', '.join(PRESETS)}")
        return PRESETS[name]

    def __str__(self) -> str:
        vote = "majority vote" if self.weighting == "majority" else f"weights exp(cos/{self.temperature:g})"
        return f"kNN on {self.layer} features, k {self.k}, {vote}"


PRESETS = {
    "simclr_cifar": KnnProtocol(layer="backbone", k=200, temperature=0.5, weighting="exp"),
    "instdisc": KnnProtocol(layer="backbone", k=200, temperature=0.1, weighting="exp"),
    "dino": KnnProtocol(layer="backbone", k=20, temperature=0.07, weighting="exp"),
    "plain": KnnProtocol(layer="backbone", k=20, temperature=None, weighting="majority"),
}
