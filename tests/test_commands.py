"""Every script answers --help and a mistyped argument before torch is imported, and ends quietly where nobody reads."""

import json
import os
import signal
import subprocess
import sys

import pytest
from script_calls import SCRIPTS

from ssl_adapt.command import run_command

WRONG = {  # script: a wrong key and a wrong value, each with what is said
    "bench": [
        (["repeat=9"], "unknown key 'repeat'; did you mean 'repeats'?"),
        (["repeats=1"], "repeats: got '1', expected integer >= 2"),
    ],
    "grid": [
        (["recipe=debug", "slurm.gpu=1"], "unknown key 'slurm.gpu'; did you mean 'slurm.gpus'?"),
        (["recipe=debug", "seed=1,two"], "seed: got 'two', expected integer from 0 to 2**32 - 1"),
    ],
    "inspect_network": [
        (["modl=resnet20"], "unknown key 'modl'; did you mean 'model'?"),
        (["model=resnet20", "image_px=0"], "image_px: got '0', expected integer >= 1"),
    ],
    "knn_eval": [
        (["model=x", "knn.k=3"], "unknown key 'knn.k'; did you mean 'k'?"),
        (["model=x", "data=digit"], "data: got 'digit', expected digits | fashion_mnist | cifar10"),
    ],
    "nat_search": [
        (["recipe=debug", "genotype=a.json", "epoch=1"], "unknown key 'epoch'; did you mean 'epochs'?"),
        (["recipe=debug", "genotype=a.json", "baseline=none"], "baseline: got 'none', expected released | moving_"),
        (["recipe=debug", "genotype=a.json", "train.lr=1"], "train.lr has no effect on a search: type weight_lr=VALUE"),
    ],
    "pretrain": [
        (["recipe=debug", "train.epoch=3"], "unknown key 'train.epoch'; did you mean 'train.epochs'?"),
        (["recipe=debug", "train.epochs=three"], "train.epochs: got 'three', expected integer >= 1"),
    ],
    "report": [
        (["befor=a"], "unknown key 'befor'; did you mean 'before'?"),
        (["before=a", "after=b"], "drawing is missing: add drawing=VALUE"),
    ],
    "reproduce": [
        (["tabel=1"], "unknown key 'tabel'; did you mean 'table'?"),
        (["table=1", "methods=best"], "methods: there is no 'best'"),
    ],
}
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
import contextlib, io, json, runpy, sys
scripts, slow, calls = json.loads(sys.argv[1])
sys.modules.update(dict.fromkeys(slow))
for script, arguments in calls:
    sys.argv, code = [script, *arguments], 0
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            runpy.run_path(f"{scripts}/{script}.py", run_name="__main__")
        except SystemExit as end:
            code = end.code
    print(json.dumps([code, out.getvalue(), err.getvalue()]))
"""


def test_help_and_mistyped_arguments_are_answered_without_torch():
    assert sorted(WRONG) == sorted(path.stem for path in SCRIPTS.glob("*.py"))
    cases = [(script, *case) for script, wrong in WRONG.items() for case in ((["--help"], None), *wrong)]
    assert len(cases) == 25
    task = json.dumps([str(SCRIPTS), SLOW, [case[:2] for case in cases]])
    done = subprocess.run([sys.executable, "-c", CALLS, task], capture_output=True, text=True, timeout=300)
    assert done.stderr == ""
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    for (script, arguments, message), (code, out, err) in zip(cases, answers, strict=True):
        if message is None:
            assert (code, err) == (0, ""), script
            assert out.startswith(f"usage: python scripts/{script}.py "), out
        else:
            assert (code, out) == (2, ""), (script, arguments, err)
            assert err.startswith(f"error: {message}"), (script, arguments, err)


def test_an_output_that_nobody_reads_ends_a_script_quietly():
    started = {}
    for script in WRONG:
        reader, writer = os.pipe()
        os.close(reader)  # as `head` does, but for certain before the script writes
        command = [sys.executable, str(SCRIPTS / f"{script}.py"), "--help"]
        started[script] = subprocess.Popen(command, stdout=writer, stderr=subprocess.PIPE, text=True)
        os.close(writer)
    ends = {script: (process.communicate(timeout=300)[1], process.returncode) for script, process in started.items()}
    assert ends == dict.fromkeys(WRONG, ("", 128 + signal.SIGPIPE))
    shell = f'"{sys.executable}" "{SCRIPTS / "pretrain.py"}" --help | head -n 1; echo "${{PIPESTATUS[@]}}"'
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=300)
    assert done.stderr == ""
    first, codes = done.stdout.splitlines()
    assert first == "usage: python scripts/pretrain.py recipe=NAME_OR_PATH [KEY=VALUE ...]"
    assert codes in ("0 0", "141 0"), "head may have all of it before it goes"


def test_another_pipe_that_breaks_is_a_defect(capfd):
    def main():
        raise BrokenPipeError(32, "Broken pipe")

    with pytest.raises(SystemExit) as end:
        run_command(main)
    assert end.value.code == 1
    assert "this is a defect of ssl_adapt" in capfd.readouterr().err
