"""What holds for every test."""

import gc
import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings
from page_browser import chromium

# Before torch is imported: more threads than cores make small networks slower, and sums differ with their number.
os.environ["OMP_NUM_THREADS"] = "1"
# A busy machine is no failure: hypothesis otherwise fails an example of over 200 ms.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


def pytest_collection_finish() -> None:
    """Garbage collection, which accelerate asks for at every fix, need not look through all that was imported."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _fresh_accelerate_state() -> Iterator[None]:
    """Accelerate keeps one precision for the life of a process; each test is a run of its own."""
    yield
    if "accelerate.state" in sys.modules:
        sys.modules["accelerate.state"].AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium; the tests of a module that need one are skipped where there is none."""
    with chromium() as found:
        yield found
