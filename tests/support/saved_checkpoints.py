"""Two checkpoints of a state that is known, and manifests that are whole but say something else."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from ssl_adapt.runs.checkpoint import Checkpoints

TEN, TWENTY = "step_000000010", "step_000000020"


def state_of(mark: int) -> dict[str, Any]:
    return {
        "mark": mark,
        "network": {"weight": torch.full((3, 7), float(mark)), "steps": torch.tensor(mark)},
        "losses": [0.5, mark],
        "name": "résumé",
        "none": None,
    }


def is_state(state: dict[str, Any], mark: int) -> bool:
    expected = state_of(mark)
    network = expected.pop("network")
    rest = {key: value for key, value in state.items() if key != "network"}
    return rest == expected and all(torch.equal(state["network"][name], network[name]) for name in network)


def seal(folder: Path, **changes: Any) -> None:
    """Write a manifest that is whole itself, with some of its values changed; None takes a key away."""
    path = folder / "manifest.json"
    values = {**json.loads(path.read_text()), **changes}
    values = {key: value for key, value in values.items() if key != "sha256" and value is not None}
    checksum = hashlib.sha256(json.dumps(values).encode()).hexdigest()
    path.write_text(json.dumps({**values, "sha256": checksum}, indent=2) + "\n")


def save_two(path: Path) -> Checkpoints:
    """Those of the steps 10 and 20, marked 10 and 20."""
    checkpoints = Checkpoints(path / "checkpoints", keep=2)
    for step in (10, 20):
        checkpoints.save(step, state_of(step))
    return checkpoints
