"""torch.compile of a network that adapts: anew after each change of its architecture, and only if it can be built."""

import time
from contextlib import AbstractContextManager
from typing import Any

import torch

from ssl_adapt.errors import UserError
from ssl_adapt.json_text import one_line


def compile_network(network: Any) -> None:
    """Let the next call of an objective's network, and of its teachers' backbones, compile it as it is now.

    The modules, and so the names in their state dicts, stay as they are, and what is evaluated, exported or copied is
    not compiled. Shapes are taken as constants and random draws are those without compiling, so that a resumed run
    has the kernels of one that was not stopped. Mixed edges are traced as eq. 1 in ordinary operations.
    """
    torch.compiler.reset()  # what was compiled before has edges that are gone
    for module in (network, *network.teacher_backbones):
        module.compile(dynamic=False, options={"fallback_random": True})


def check_compiler(device: torch.device) -> None:
    """Compile a trifle.

    Raises:
        ValueError: if it can't be done here, saying what is missing.
    """
    factor = time.time_ns() % 2**30  # a constant of the kernel, so that none is found that was built before

    def trifle(x: torch.Tensor) -> torch.Tensor:
        return x * factor + 1

    try:
        torch.compile(trifle, dynamic=False)(torch.ones(8, device=device))
    except Exception as error:  # of whatever compiler, or of what starts it
        raise UserError(
            "train.compile=true: torch.compile can't build a kernel here "
            f"({one_line(error)[:200]}): install a C++ compiler such as g++ and Python's headers, or leave it out"
        ) from error


def without_compiling() -> AbstractContextManager[None]:
    """A context in which a compiled network is computed as if it were not: for passes of other shapes or edges."""
    stance: AbstractContextManager[None] = torch.compiler.set_stance("force_eager")
    return stance
