"""Every command answers --help and a mistyped argument before torch is imported, and ends quietly at a closed pipe."""

import json
import os
import shutil
import signal
import subprocess
import sys
from typing import get_args

import pytest
from script_calls import SCRIPTS

from ssl_adapt.commands import COMMANDS, HELP
from ssl_adapt.commands.ending import run_command
from ssl_adapt.evaluation.protocol import PRESETS, PresetName
from ssl_adapt.recipe import available_recipes

SCRIPT_OF = {"knn": "knn_eval", "inspect": "inspect_network", "nat": "nat_search"}  # the others have the same name
WITHOUT_SCRIPT = ("recipes", "runs", "compare")  # they need no launcher and no torch
WRONG = {  # command: a wrong key and a wrong value, each with what is said
    "bench": [
        (["repeat=9"], "unknown key 'repeat'; did you mean 'repeats'?"),
        (["repeats=1"], "repeats: got 1, expected integer >= 2"),
    ],
    "finetune": [
        (["recipe=debug"], "finetune starts from a trained network: add model.weights=FOLDER_OR_FILE, or model."),
        (["recipe=debug", "model.weight=a"], "unknown key 'model.weight'; did you mean 'model.weights'?"),
    ],
    "grid": [
        (["recipe=debug", "slurm.gpu=1"], "unknown key 'slurm.gpu'; did you mean 'slurm.gpus'?"),
        (["recipe=debug", "seed=1,two"], "seed: got 'two', expected integer from 0 to 2**32 - 1"),
    ],
    "embed": [
        (["model=resnet18"], "out is missing: add out=VALUE (text): the folder for the files"),
        (["model=resnet18", "out=f", "format=csv"], "format: got 'csv', expected parquet | npz"),
    ],
    "retrieve": [
        (["features=f", "querry=a.png"], "unknown key 'querry'; did you mean 'query'?"),
        (["features=f", "query=a.png", "csv=no/such/folder.csv"], "csv: got 'no/such/folder.csv', expected path"),
    ],
    "export": [
        (["model=x"], "out is missing: add out=PATH, or push=USER/NAME"),
        (["model=x", "format=onx", "out=y"], "format: got 'onx', expected timm | onnx | torch_export or null; did you"),
    ],
    "inspect": [
        (["modl=resnet20"], "unknown key 'modl'; did you mean 'model'?"),
        (["model=resnet20", "image_px=0"], "image_px: got 0, expected integer >= 1"),
    ],
    "knn": [
        (["model=x", "knn.k=3"], "unknown key 'knn.k'; did you mean 'k'?"),
        (["model=x", "data=digit"], "data: got 'digit', expected digits | fashion_mnist | cifar10"),
        (["k=0", "baselines=no"], "model is missing: add model=VALUE (text): a run folder, "),
    ],
    "compare": [
        (["a=x"], "compare needs two groups of runs: type ssl-adapt compare NAME=RUNS OTHER=RUNS"),
        (["a=x", "b=y", "json=1"], "json: got 1, expected true or false"),
    ],
    "runs": [
        (["stat=killed"], "unknown key 'stat'; did you mean 'state'?"),
        (["sort=size"], "sort: got 'size', expected age | name | state | score"),
    ],
    "linear": [
        (["model=x", "penalty=3"], "unknown key 'penalty'; --help lists the keys"),
        (["model=x", "labelled_share=0"], "labelled_share: got 0, expected number above 0, at most 1 or null"),
    ],
    "nat": [
        (["recipe=debug", "genotype=a.json", "epoch=1"], "unknown key 'epoch'; did you mean 'epochs'?"),
        (["recipe=debug", "genotype=a.json", "baseline=none"], "baseline: got 'none', expected released | moving_"),
        (["recipe=debug", "genotype=a.json", "train.lr=1"], "train.lr has no effect on a search: type weight_lr=VALUE"),
    ],
    "pretrain": [
        (["recipe=debug", "train.epoch=3"], "unknown key 'train.epoch'; did you mean 'train.epochs'?"),
        (["recipe=debug", "train.epochs=three"], "train.epochs: got 'three', expected integer >= 1"),
    ],
    "recipes": [
        (["debgu"], "unknown recipe 'debgu'; did you mean 'debug'? available: debug, quickstart, "),
        (["recipe=debug", "recipe=debug"], "'recipe' is given twice: keep one of them"),
    ],
    "report": [
        (["befor=a"], "unknown key 'befor'; did you mean 'before'?"),
        (["before=a", "after=b"], "drawing is missing: add drawing=VALUE"),
    ],
    "reproduce": [
        (["tabel=1"], "unknown key 'tabel'; did you mean 'table'?"),
        (["table=1", "methods=best"], "methods: there is no 'best'"),
    ],
}  # fmt: skip
NO_COMMAND = [
    (["pretrian"], "unknown command 'pretrian'; did you mean 'pretrain'?"),
    (["zzz"], "unknown command 'zzz'; there are pretrain, finetune, knn, "),
    (["recipe=debug"], "'recipe=debug' is an argument: type a command before it, such as ssl-adapt pretrain recipe="),
]
# Not to be imported, and each takes longer than the answer may. One process for all, as its start takes longest.
SLOW = [
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "faiss",
    "kornia",
    "accelerate",
    "matplotlib",
    "scipy",
    "sklearn",
    "rich",
]
CALLS = """
import contextlib, io, json, sys
slow, calls = json.loads(sys.argv[1])
sys.modules.update(dict.fromkeys(slow))
from ssl_adapt.commands import main
for arguments in calls:
    sys.argv, code = ["ssl-adapt", *arguments], 0
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            main()
        except SystemExit as end:
            code = end.code
    print(json.dumps([code, out.getvalue(), err.getvalue()]))
"""


def answers(calls: list[list[str]]) -> list[tuple[int, str, str]]:
    """Exit code, output and errors of each call, in a process that can import nothing slow."""
    done = subprocess.run([sys.executable, "-c", CALLS, json.dumps([SLOW, calls])], capture_output=True, text=True)
    assert done.stderr == ""
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


def test_help_and_mistyped_arguments_are_answered_without_torch():
    assert sorted(WRONG) == sorted(COMMANDS)
    helps = [[name, *rest] for name in COMMANDS for rest in (["--help"], ["x=1", "-h"])]
    wrong = [([name, *arguments], message) for name, rows in WRONG.items() for arguments, message in rows]
    wrong += NO_COMMAND
    assert (len(helps), len(wrong)) == (32, 37)
    given = answers([*helps, *(arguments for arguments, _ in wrong)])
    for call, (code, out, err) in zip(helps, given[: len(helps)], strict=True):
        assert (code, err) == (0, ""), call
        assert out.startswith(f"usage: ssl-adapt {call[0]} "), out
        assert "\nKeys [expected; default]\n" in out
        assert max(map(len, out.splitlines())) <= 120
    for (call, message), (code, out, err) in zip(wrong, given[len(helps) :], strict=True):
        assert (code, out) == (2, ""), (call, err)
        assert err.startswith(f"error: {message}"), (call, err)


def test_without_a_command_they_are_listed_and_without_arguments_a_command_says_what_it_takes():
    calls = [[], ["--help"], ["-h"], *([name] for name in COMMANDS if name not in ("bench", "recipes", "runs"))]
    given = answers(calls)
    assert given[:3] == [(0, HELP, "")] * 3
    assert all(f"\n  {name} " in HELP for name in COMMANDS)
    assert len(HELP.splitlines()) == 3 + len(COMMANDS) == 19
    for call, (code, out, err) in zip(calls[3:], given[3:], strict=True):
        assert (code, err) == (0, "")
        assert out.startswith(f"usage: ssl-adapt {call[0]} "), "the commands but three need to be told something"


def test_recipes_are_listed_and_printed():
    listed, alone, named = answers([["recipes"], ["recipes", "debug"], ["recipes", "recipe=debug"]])
    recipes = available_recipes()
    names = [line.split()[0] for line in listed[1].splitlines() if line.startswith("  recipe=")]
    assert names == [f"recipe={name}" for name in recipes]
    assert alone == named == (0, recipes["debug"].read_text(), "")
    assert " ".join(alone[1].splitlines()[0].lstrip("# ").split()) in " ".join(listed[1].split())


def test_a_package_without_its_checkout_says_so(tmp_path):
    """As a wheel leaves it: the package and its recipes, and neither reproduction/ nor benchmarks/ beside it."""
    root = SCRIPTS.parent
    shutil.copytree(root / "ssl_adapt", tmp_path / "ssl_adapt", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(root / "recipes", tmp_path / "ssl_adapt" / "recipes")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    for name in ("nat", "reproduce", "bench"):
        done = subprocess.run(
            [sys.executable, "-m", "ssl_adapt", name, "--help"],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        message = f"error: {name} is not in the installed package: type it in a checkout of the repository\n"
        assert (done.returncode, done.stdout, done.stderr) == (2, "", message)


def test_scripts_are_the_commands():
    names = {SCRIPT_OF.get(name, name): name for name in COMMANDS if name not in WITHOUT_SCRIPT}
    assert sorted(names) == sorted(path.stem for path in SCRIPTS.glob("*.py"))
    for script, name in names.items():
        lines = (SCRIPTS / f"{script}.py").read_text().splitlines()
        shim = ["from ssl_adapt.commands import main", "", 'if __name__ == "__main__":', f'    main("{name}")']
        assert lines[2:] == shim


def test_an_output_that_nobody_reads_ends_a_command_quietly():
    started = {}
    for name in COMMANDS:
        reader, writer = os.pipe()
        os.close(reader)  # as `head` does, but for certain before the command writes
        command = [sys.executable, "-m", "ssl_adapt", name, "--help"]
        started[name] = subprocess.Popen(command, stdout=writer, stderr=subprocess.PIPE, text=True)
        os.close(writer)
    ends = {name: (process.communicate(timeout=300)[1], process.returncode) for name, process in started.items()}
    assert ends == dict.fromkeys(COMMANDS, ("", 128 + signal.SIGPIPE))
    shell = f'"{sys.executable}" "{SCRIPTS / "pretrain.py"}" --help | head -n 1; echo "${{PIPESTATUS[@]}}"'
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=300)
    assert done.stderr == ""
    first, codes = done.stdout.splitlines()
    assert first == "usage: ssl-adapt pretrain recipe=NAME_OR_PATH [KEY=VALUE ...]"
    assert codes in ("0 0", "141 0"), "head may have all of it before it goes"


def test_another_pipe_that_breaks_is_a_defect(capfd):
    def main():
        raise BrokenPipeError(32, "Broken pipe")

    with pytest.raises(SystemExit) as end:
        run_command(main)
    assert end.value.code == 1
    assert "this is a defect of ssl_adapt" in capfd.readouterr().err


def test_the_presets_of_knn_are_those_that_may_be_typed():
    assert get_args(PresetName) == tuple(PRESETS)
