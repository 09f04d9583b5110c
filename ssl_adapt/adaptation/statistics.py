"""BatchNorm's running statistics, kept still while a pass is not meant to count."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def statistics_at_rest(*modules: nn.Module) -> Iterator[None]:
    """A context in which BatchNorm normalises with the batch, in training mode, but leaves its statistics alone."""
    batch_norm = nn.modules.batchnorm._NormBase
    norms = [n for module in modules for n in module.modules() if isinstance(n, batch_norm) and n.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
