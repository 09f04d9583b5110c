"""Which candidate theta chooses at an edge."""

from typing import Literal

from ssl_adapt.adaptation.edge import CHOICES, Choice, EdgeSpec, ShapeChange

NoneRule = Literal["literal", "threshold"]


def choose_candidate(
    spec: EdgeSpec, theta: tuple[float, ...], shape_change: ShapeChange, none_rule: NoneRule, none_threshold: float
) -> Choice:
    """The candidate that theta = (none, identity, same) means; see `Adaptation` for the other arguments."""
    none, identity, same = theta
    allowed = {choice for choice in CHOICES if spec.allows(choice, shape_change)}
    if spec.kind == "none":
        bar = max(none, same) if none_rule == "literal" else none_threshold
        return "identity" if "identity" in allowed and identity > bar else "original"
    if spec.kind == "identity":  # both other candidates are the network's own shortcut
        return "none" if "none" in allowed and none > max(identity, same) else "original"
    best = max(same, identity) if "identity" in allowed else same
    if "none" in allowed and none > best:
        return "none"
    return "identity" if "identity" in allowed and identity > same else "original"


def one_hot(choice: Choice) -> tuple[float, float, float]:
    """Theta at which a mixed edge computes its candidate `choice` alone."""
    return (float(choice == "none"), float(choice == "identity"), float(choice == "original"))
