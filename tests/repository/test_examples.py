"""The examples run as they stand."""

import json
import runpy
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from checkout import ROOT
from script_calls import run_command

EXAMPLES = ROOT / "examples"
LAST_LINES = {
    "adapt_a_timm_model": "parameters, loaded by timm",
    "own_loop": "exported: timm.create_model(",
    "own_objective": "step 10: loss",
    "shrink_a_trained_network": "parameters are left, loaded by timm",
}


def test_every_example_is_here() -> None:
    assert sorted(path.stem for path in EXAMPLES.glob("*.py")) == sorted(LAST_LINES)


SLOW = ("own_loop", "shrink_a_trained_network")  # what they do is run in blocks of the docs too


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in LAST_LINES]
)
def test_an_example_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    assert LAST_LINES[name] in capsys.readouterr().out.splitlines()[-1]


# --- the notebook -----------------------------------------------------------------------------------------

NOTEBOOK = EXAMPLES / "first_hour.ipynb"
SMALL = '{"train.max_steps": 3, "model.args": {"channels": 4, "cells": 3}'


def code_cells() -> list[str]:
    """The text of each code cell."""
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def statements(cell: str) -> Iterator[str]:
    """The cell in parts: Python, or one line that a notebook takes for a shell command."""
    python: list[str] = []
    for line in cell.splitlines():
        if line.startswith(("!", "%")):
            yield "\n".join(python)
            yield line
            python = []
        else:
            python.append(line)
    yield "\n".join(python)


def run_notebook(cells: list[str]) -> dict[str, Any]:
    """The names that the cells leave, run in order in the working folder; `!ssl-adapt` runs in this process."""
    names: dict[str, Any] = {"__name__": "notebook"}
    for number, cell in enumerate(cells, start=1):
        for statement in statements(cell):
            if statement.startswith("!"):
                program, *arguments = shlex.split(statement[1:])
                assert program == "ssl-adapt"
                output = run_command(*arguments)
                assert output.code == 0, output.err
            elif not statement.startswith("%pip install "):
                exec(compile(statement, f"{NOTEBOOK.name}, cell {number}", "exec"), names)
    return names


@pytest.mark.parametrize("small", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_the_notebook_runs(small: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cells = code_cells()
    assert len(cells) == 10
    if small:
        assert '{"train.epochs": 3' in cells[1]
        cells[1] = cells[1].replace('{"train.epochs": 3', SMALL)
    names = run_notebook(cells)
    assert sum(line.startswith("!ssl-adapt ") for cell in cells for line in cell.splitlines()) == 2
    assert {"cells.svg", "report.html"} <= {path.name for path in (tmp_path / "runs/first_hour").iterdir()}
    assert names["queries"].shape == (500, 16 if small else 48)
    result = json.loads((tmp_path / "runs/first_hour/result.json").read_text())["knn_top1"]["result"]
    assert names["score"].top1 == pytest.approx(result, abs=0.004)  # two of the 500 digits
    assert (tmp_path / "runs/first_hour_convnext/model.safetensors").exists()


def test_the_notebook_is_committed_without_outputs() -> None:
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell for cell in cells if cell["outputs"] or cell["execution_count"]] == []
    assert len({cell["id"] for cell in notebook["cells"]}) == 20 + 1  # a heading, and a text above each cell
