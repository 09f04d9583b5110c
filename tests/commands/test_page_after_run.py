"""The page that a run leaves: written by the command, and never a reason for a run to fail."""

import json
import shutil
from pathlib import Path

import pytest
from script_calls import Output, run_command

from ssl_adapt.commands.page_after_run import write_page_after

TINY = [
    "recipe=debug", "data.image_px=8", "model.args={width: 4, layers: [1]}", "data.batch_size=128",
    "knn.every_epochs=0", "train.max_steps=4",
]  # fmt: skip


def pretrain(folder: Path, *arguments: str) -> Output:
    output = run_command("pretrain", *TINY, f"run.dir={folder}", *arguments)
    assert output.code == 0, output.err
    return output


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run without a page, and what was printed."""
    folder = tmp_path_factory.mktemp("runs") / "a"
    return folder, pretrain(folder, "run.report=false").out


def test_a_finished_run_leaves_a_page_and_says_where(tmp_path: Path) -> None:
    last = pretrain(tmp_path / "a").out.splitlines()[-1]
    assert last.startswith(f"{tmp_path / 'a/report.html'}: ")
    assert "<h1>a</h1>" in (tmp_path / "a/report.html").read_text(encoding="utf-8")


def test_none_is_written_where_it_is_not_wanted(finished: tuple[Path, str]) -> None:
    folder, printed = finished
    assert not (folder / "report.html").exists()
    assert printed.splitlines()[-1].startswith("exported: ")


def test_a_page_that_can_t_be_made_costs_a_line_and_not_the_run(
    finished: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(finished[0], tmp_path / "a run")
    (folder / "metrics.jsonl").write_text("{\n")
    write_page_after(folder)
    [line] = capsys.readouterr().out.splitlines()
    assert line.startswith(
        f"no page of the run: {folder / 'metrics.jsonl'}: line 1 is no event of a run; to try again: "
    )
    assert line.endswith(f"ssl-adapt report run='{folder}'")
    assert not (folder / "report.html").exists()
    assert json.loads((folder / "status.json").read_text())["state"] == "finished"


def test_the_first_process_alone_writes_it(
    finished: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "1")
    write_page_after(finished[0])
    assert capsys.readouterr().out == ""
    assert not (finished[0] / "report.html").exists()
