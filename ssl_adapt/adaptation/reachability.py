"""Dead nodes: nodes of a cell to which nothing comes, because every edge that enters them is none."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Literal

from ssl_adapt.adaptation.edge import Choice, EdgeSpec
from ssl_adapt.errors import UserError

OnDead = Literal["error", "warn", "allow"]


def find_dead_nodes(specs: Sequence[EdgeSpec], choices: Mapping[str, Choice]) -> list[str]:
    """The nodes, as "cell:node", that only none edges enter, or edges that come from dead nodes.

    A node that no edge enters is an input of its cell and alive, and so is one whose name ends in "+".

    Args:
        specs: the edges in forward order.
        choices: what each of them becomes, by name; "original" where it is missing.
    """
    alive: dict[tuple[str, str], bool] = {}
    for spec in specs:
        choice = choices.get(spec.name, "original")
        carries = choice != "none" and not (choice == "original" and spec.kind == "none")
        source, target = (spec.cell, spec.source), (spec.cell, spec.target)
        is_fed = spec.target.endswith("+") or (carries and alive.get(source, True))
        alive[target] = alive.get(target, False) or is_fed
    return [f"{cell}:{node}" for (cell, node), is_alive in alive.items() if not is_alive]


def check_dead_nodes(specs: Sequence[EdgeSpec], choices: Mapping[str, Choice], on_dead: OnDead) -> None:
    """Refuse dead nodes, warn of them, or allow them.

    Raises:
        ValueError: with "error", if there are any.
    """
    if on_dead == "allow" or not (dead := find_dead_nodes(specs, choices)):
        return
    shown = ", ".join(dead[:4]) + (", ..." if len(dead) > 4 else "")
    message = f"{len(dead)} dead node(s), which only none edges enter: {shown}"
    if on_dead == "error":
        raise UserError(
            f"the architecture has {message}; shorten the architecture stage, lower theta's learning rate, "
            "or set on_dead to 'warn' or 'allow'"
        )
    warnings.warn(f"the architecture has {message}", stacklevel=3)
