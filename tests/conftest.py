"""What holds for every test."""

from collections.abc import Iterator

import pytest
from accelerate.state import AcceleratorState


@pytest.fixture(autouse=True)
def _fresh_accelerate_state() -> Iterator[None]:
    """Accelerate keeps one precision for the life of a process; each test is a run of its own."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
