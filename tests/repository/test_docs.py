"""Every command and every Python block of README and docs runs, and the site is built without a complaint.

A command of ssl-adapt is read as it stands, and run with the arguments of `doc_commands` that make it small. What only
starts such a command (accelerate, torchrun, sbatch) is read by its own reader, pip's extras and make's targets are
looked up, and examples are run by `test_examples.py`.
"""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import chdir
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml
from accelerate.commands.launch import launch_command_parser
from checkout import ROOT
from doc_blocks import PAGES, find_blocks, find_commands
from doc_commands import BEFORE_PYTHON, BY_COMMAND, How, how, with_overrides
from doc_tables import write_tables
from image_folders import tar_of, write_images
from script_calls import run_command
from torch.distributed.run import get_args_parser

import ssl_adapt
from benchmarks.bench_options import BenchOptions
from reproduction.nat.nat_options import read_search_arguments
from reproduction.table_options import read_request
from ssl_adapt.commands.compare_command import read_compare_arguments
from ssl_adapt.commands.embed_command import EmbedOptions
from ssl_adapt.commands.export_command import ExportOptions
from ssl_adapt.commands.inspect_command import InspectOptions
from ssl_adapt.commands.knn_command import KnnOptions
from ssl_adapt.commands.linear_command import LinearOptions
from ssl_adapt.commands.recipes_command import read_recipes_arguments
from ssl_adapt.commands.report_command import ReportOptions
from ssl_adapt.commands.retrieve_command import RetrieveOptions
from ssl_adapt.commands.runs_command import read_runs_arguments
from ssl_adapt.recipe import load_recipe
from ssl_adapt.recipe.read import read_options
from ssl_adapt.runs.grid_plan import plan_grid

BLOCKS = find_blocks()
COMMANDS = find_commands(BLOCKS)
PYTHON = {page: [block for block in BLOCKS if block.page == page and block.language == "python"] for page in
          dict.fromkeys(block.page for block in BLOCKS if block.language == "python")}  # fmt: skip
READERS: dict[str, Callable[[list[str]], object]] = {
    "pretrain": load_recipe,
    "finetune": load_recipe,
    "knn": partial(read_options, KnnOptions),
    "embed": partial(read_options, EmbedOptions),
    "retrieve": partial(read_options, RetrieveOptions),
    "export": partial(read_options, ExportOptions),
    "linear": partial(read_options, LinearOptions),
    "inspect": partial(read_options, InspectOptions),
    "report": partial(read_options, ReportOptions),
    "grid": plan_grid,
    "runs": read_runs_arguments,
    "compare": read_compare_arguments,
    "recipes": read_recipes_arguments,
    "nat": read_search_arguments,
    "bench": partial(read_options, BenchOptions),
    "reproduce": read_request,
}
OURS = [command for command in COMMANDS if command.startswith("ssl-adapt ")]
LAUNCHES = [command for command in COMMANDS if re.search(r"\b(accelerate launch|torchrun)\b", command)]
SLOW_PAGES = {"docs/first_hour.md", "docs/hand_on.md"}  # a whole run; ONNX


def test_every_block_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    kinds = Counter(
        "ssl-adapt" if command in OURS else "launch" if command in LAUNCHES else command.split()[0]
        for command in COMMANDS
    )
    languages = Counter(block.language for block in BLOCKS)
    with capsys.disabled():
        print(f"\n{len(PAGES)} pages: blocks {dict(languages)}, different commands {dict(kinds)}")
    assert languages == {"bash": 67, "python": 19, "text": 5}
    assert kinds == {"ssl-adapt": 86, "launch": 7, "make": 6, "pip": 6, "python": 4, "sbatch": 1}
    assert set(BY_COMMAND) <= set(COMMANDS), "a line for a command that no page has"
    assert not any(re.search(r"^ {4}(ssl-adapt|python|make|pip|accelerate) ", page.read_text(), re.M) for page in PAGES)


# --- commands ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", OURS)
def test_the_arguments_are_read_as_they_stand(command: str, tmp_path: Path) -> None:
    _, name, *arguments = shlex.split(command)
    with chdir(tmp_path):
        if arguments != ["--help"]:
            READERS[name](arguments)
    assert list(tmp_path.iterdir()) == []


def run(command: str, how: How, folder: Path) -> str:
    """What a command of ssl-adapt prints, made small; a run goes into its own folder."""
    _, name, *arguments = shlex.split(command)
    arguments = with_overrides(arguments, how.overrides)
    if name in ("pretrain", "finetune") and arguments != ["--help"]:
        arguments.append("run.report=false")
        if not any(word.startswith("run.dir=") for word in arguments):
            arguments.append(f"run.dir={folder}")
    output = run_command(name, *arguments)
    assert output.code == 0, output.err
    return output.out


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The working folder: the run of the quickstart, images in class folders, and a tar of them."""
    folder = tmp_path_factory.mktemp("docs")
    counts = {"train": 8, "test": 2}
    names = [f"{split}/{label}/{index}.png" for split in counts for label in "ab" for index in range(counts[split])]
    write_images(folder / "images", *names)
    tar_of(folder / "images", folder / "images.tar", inside="images")
    write_tables(folder, names)
    with chdir(folder):
        quickstart = "ssl-adapt pretrain recipe=quickstart"
        run(quickstart, BY_COMMAND[quickstart], folder / "runs")
        yield folder


@pytest.mark.parametrize(
    "command", [pytest.param(c, marks=[] if getattr(how(c), "is_fast", False) else pytest.mark.slow) for c in OURS]
)
def test_the_command_runs(command: str, workspace: Path, tmp_path: Path) -> None:
    way = how(command)
    assert way is not None, "doc_commands.py says how"
    if command == "ssl-adapt pretrain recipe=quickstart":
        assert (workspace / "runs/quickstart/export/model.safetensors").exists()
        return
    if way.after:
        run(way.after, How(), tmp_path / "before")
    assert run(command, way, tmp_path / "run").strip()


def test_the_output_that_is_shown_for_the_recipes_is_real() -> None:
    [shown] = [block.text for block in BLOCKS if block.page == "docs/first_hour.md" and block.language == "text"]
    printed = run_command("recipes").out
    for part in (parts := shown.split("...\n")):
        assert part in printed
    assert len(parts) == 3


def started(command: str) -> tuple[list[str], list[str]]:
    """What accelerate or torchrun starts, as its own parser reads it: words for Python, and the arguments."""
    words = [word for word in shlex.split(command) if not re.match(r"[A-Z_]+=", word)]
    if words[0] == "torchrun":
        given = get_args_parser().parse_args(words[1:])
    else:
        given = launch_command_parser().parse_args(words[2:])
        assert given.config_file is None or (ROOT / given.config_file).exists()
    target = ["-m", given.training_script] if given.module else [given.training_script]
    return target, given.training_script_args


@pytest.mark.parametrize("command", LAUNCHES)
def test_what_is_launched_is_read(command: str) -> None:
    target, arguments = started(command)
    if target == ["-m", "ssl_adapt"]:
        name, *arguments = arguments
        assert name == "pretrain"
    else:
        assert target == ["scripts/pretrain.py"]
    load_recipe(arguments)


@pytest.mark.slow
@pytest.mark.parametrize("command", [command for command in LAUNCHES if command in BY_COMMAND])
def test_what_one_machine_can_launch_runs(command: str, tmp_path: Path) -> None:
    arguments = [*BY_COMMAND[command].overrides, f"run.dir={tmp_path / 'run'}"]
    line = command.replace("scripts", f"{ROOT}/scripts")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        f"{line} {shlex.join(arguments)}", shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run/export/model.safetensors").exists()
    assert ("2 processes" in done.stdout) == ("nproc_per_node 2" in command)


def test_other_commands_name_what_there_is() -> None:
    others = [shlex.split(command) for command in COMMANDS if command not in (*OURS, *LAUNCHES)]
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for words in others:
        match words:
            case ["make", target]:
                subprocess.run(["make", "--dry-run", target], cwd=ROOT, check=True, capture_output=True)
            case ["pip", "install", "-e", "."]:
                pass  # what `make` does
            case ["pip", "install", "-e", editable]:
                assert editable.removeprefix(".[").removesuffix("]") in extras
            case ["python", example]:
                assert (ROOT / example).parent.name == "examples"  # all of which test_examples.py runs
                assert (ROOT / example).exists()
            case ["sbatch", _, script, *arguments]:
                subprocess.run(["bash", "-n", ROOT / script], check=True)
                load_recipe(arguments)
            case _:
                pytest.fail(f"nothing checks: {shlex.join(words)}")
    assert len(others) == 17


# --- Python -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=[pytest.mark.slow] if page in SLOW_PAGES else []) for page in PYTHON]
)
def test_the_python_of_a_page_runs(page: str, workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if page in BEFORE_PYTHON:
        run(BEFORE_PYTHON[page], BY_COMMAND[BEFORE_PYTHON[page]], tmp_path)
        monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    images, labels = torch.rand(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])
    names: dict[str, Any] = {"loader": [(images, labels)], "loss_fn": F.cross_entropy, "__name__": "docs"}
    for block in PYTHON[page]:
        exec(compile("\n" * block.line + block.text, str(ROOT / page), "exec"), names)


# --- the site, and other files that only other programs read -----------------------------------------------


def test_the_site_is_built_without_a_warning_and_asks_nobody(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    pages = sorted(tmp_path.rglob("*.html"))
    assert len(pages) >= len(PAGES)
    fetched = re.compile(
        r'<(?:script|img|iframe)[^>]*\ssrc="?(?:https?:)?//|<link[^>]*rel="?(?:stylesheet|preconnect)[^>]*//'
    )
    assert [page for page in pages if fetched.search(page.read_text())] == []
    api = (tmp_path / "api/index.html").read_text()
    assert [name for name in ssl_adapt.__all__ if f'id="ssl_adapt.{name}"' not in api] == []


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


def test_forms_and_workflows_are_yaml() -> None:
    files = [ROOT / "CITATION.cff", ROOT / ".pre-commit-config.yaml", *(ROOT / ".github").rglob("*.yml")]
    assert len(files) == 6
    for path in files:
        assert yaml.safe_load(path.read_text()), path
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["license"] == "Apache-2.0"
