"""The wheel: what it holds, and what it does in an empty folder, in an environment that has no checkout."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest
from checkout import ROOT

from ssl_adapt.recipe import available_recipes

pytestmark = pytest.mark.slow
PACKAGES = Path(sysconfig.get_path("purelib"))  # torch and the others, which are not downloaded again
WATCH = """
import atexit, os, sys
def write():
    with open(os.environ["LOADED"], "a") as file:
        for module in sys.modules.values():
            print(getattr(module, "__file__", None), file=file)
atexit.register(write)
"""


class Installed(NamedTuple):
    """A wheel, the Python that it is installed for, and the file that says what was imported."""

    wheel: Path
    python: Path
    loaded: Path

    def call(self, folder: Path, *command: str) -> str:
        """What the command prints in that folder, where it must succeed."""
        environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
        folder.mkdir(exist_ok=True)
        done = subprocess.run(
            [self.python.with_name(command[0]), *command[1:]],
            cwd=folder, env={**environment, "LOADED": str(self.loaded)}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    alone = ["--no-build-isolation"] if find_spec("hatch_vcs") else []  # else pip downloads what builds
    subprocess.run([*pip, "wheel", "--no-deps", *alone, "--wheel-dir", str(folder), str(ROOT)], check=True)
    [wheel] = folder.glob("*.whl")
    venv.create(folder / "env", symlinks=True)
    python = folder / "env" / "bin" / "python"
    subprocess.run([*pip, "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)], check=True)
    [own] = (folder / "env" / "lib").glob("python*/site-packages")
    (own / "watch.py").write_text(WATCH)
    (own / "others.pth").write_text(f"{PACKAGES}\nimport watch\n")  # .pth files there, a checkout's, are not read
    return Installed(wheel, python, folder / "loaded.txt")


def test_it_holds_the_package_and_the_recipes(installed: Installed) -> None:
    names = zipfile.ZipFile(installed.wheel).namelist()
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"ssl_adapt"}, "no tests, no reproduction"
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "ssl_adapt").rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == sources
    assert len(sources) > 90
    assert "ssl_adapt/py.typed" in names
    recipes = {f"ssl_adapt/recipes/{name}.yaml" for name in available_recipes()}
    assert len(recipes) >= 13
    assert recipes <= set(names)


def test_its_version_is_that_of_its_name(installed: Installed, tmp_path: Path) -> None:
    said = installed.call(tmp_path, "python", "-c", "import ssl_adapt; print(ssl_adapt.__version__)")
    assert said.strip() == installed.wheel.name.split("-")[1]


FAST = [
    "recipe=debug", "model.args={width: 4, layers: [1]}", "data.image_px=8", "knn.every_epochs=0", "run.report=false",
]  # fmt: skip


@pytest.mark.parametrize(
    ("way", "arguments", "first"),
    [
        (["ssl-adapt"], ["recipe=quickstart", "train.max_steps=6"], "recipe quickstart in runs/quickstart"),
        (["python", "-m", "ssl_adapt"], [*FAST, "train.max_steps=2"], "recipe debug in runs/debug"),
        (
            ["python", "-m", "accelerate.commands.launch", "--num_processes=1", "--num_machines=1",
             "--mixed_precision=no", "--dynamo_backend=no", "-m", "ssl_adapt"],
            [*FAST, "train.max_steps=2"], "recipe debug in runs/debug",
        ),
    ],
    ids=["ssl-adapt", "python -m", "accelerate launch -m"],
)  # fmt: skip
def test_it_pretrains_in_an_empty_folder(
    installed: Installed, tmp_path: Path, way: list[str], arguments: list[str], first: str
) -> None:
    out = installed.call(tmp_path, *way, "pretrain", *arguments)
    assert out.startswith(f"{first}: importing torch\n")
    run = tmp_path / first.split()[-1]
    assert json.loads((run / "status.json").read_text())["state"] == "finished"
    assert (run / "export" / "model.safetensors").is_file()
    assert (run / "report.html").is_file() == ("run.report=false" not in arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    loaded = [Path(line) for line in installed.loaded.read_text().splitlines() if line != "None"]
    assert installed.wheel.parent / "env" in {parent for path in loaded for parent in path.parents}
    assert any(path.match("ssl_adapt/training/loop.py") for path in loaded)
    of_checkout = [path for path in loaded if path.is_relative_to(ROOT) and not path.is_relative_to(PACKAGES)]
    assert of_checkout == []
    installed.loaded.unlink()


def test_its_recipes_are_copied_and_its_grids_run(installed: Installed, tmp_path: Path) -> None:
    text = installed.call(tmp_path, "ssl-adapt", "recipes", "debug")
    (tmp_path / "mine.yaml").write_text(text)
    assert text == available_recipes()["debug"].read_text()
    arguments = ["recipe=mine.yaml", *FAST[1:], "train.max_steps=2", "seed=1,2"]
    out = installed.call(tmp_path, "ssl-adapt", "grid", *arguments)
    rows = [line.split()[:3] for line in out.splitlines() if line.startswith("mine-seed")]
    assert rows == [["mine-seed=1", "finished", "2"], ["mine-seed=2", "finished", "2"]]
    assert "scripts" not in (tmp_path / "runs" / "grid_mine" / "logs" / "mine-seed=1.log").read_text()
