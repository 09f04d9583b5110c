"""The examples run as they stand."""

import runpy
from pathlib import Path

import pytest
from checkout import ROOT

EXAMPLES = ROOT / "examples"
LAST_LINES = {
    "adapt_a_timm_model": "parameters, loaded by timm",
    "own_loop": "exported: timm.create_model(",
    "own_objective": "step 10: loss",
}


def test_every_example_is_here() -> None:
    assert sorted(path.stem for path in EXAMPLES.glob("*.py")) == sorted(LAST_LINES)


@pytest.mark.parametrize("name", LAST_LINES)
def test_an_example_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    assert LAST_LINES[name] in capsys.readouterr().out.splitlines()[-1]
