"""Files of weights that are wrong, and a pickle that would run code."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch

import ssl_adapt  # noqa: F401 (registers the networks)


class Trap:
    """Unpickling it makes a folder."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("SPRUNG",)


PICKLE = pickle.dumps(Trap(), protocol=4)


def save_part(*names: str, **tensors: torch.Tensor) -> None:
    """Weights of the network of TINY, those of the names alone and with others among them."""
    state = timm.create_model("resnet20", width=4, layers=[1], num_classes=0).state_dict()
    torch.save({**{name: value for name, value in state.items() if not names or name in names}, **tensors}, "a.pth")


STARTS: list[tuple[str, Callable[[], object]]] = [
    ("a file that is not there", lambda: None),
    ("a pickle with code in it", lambda: Path("a.pth").write_bytes(PICKLE)),
    ("a checkpoint with an object beside the tensors", lambda: torch.save({"a": torch.ones(1), "b": Trap()}, "a.pth")),
    ("a text", lambda: Path("a.pth").write_text("no weights\n" * 200)),
    ("weights of which some are missing", lambda: save_part("stem.conv.weight", "stem.bn.weight")),
    ("weights with one of another shape", lambda: save_part(**{"stem.bn.bias": torch.ones(3)})),
    ("weights with one that the network has not", lambda: save_part(**{"projector.weight": torch.ones(3)})),
    ("weights with a NaN", lambda: save_part(**{"stem.bn.bias": torch.full((4,), torch.nan)})),
]
