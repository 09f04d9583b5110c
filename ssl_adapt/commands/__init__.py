"""The commands: `ssl-adapt NAME key=value ...`, or `python -m ssl_adapt NAME key=value ...`.

Each is a module, NAME_command, with `help_text()` and `run(arguments)`. It imports torch only after reading the
arguments, so that mistakes in them are reported at once.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from ssl_adapt.commands.ending import run_command
from ssl_adapt.errors import UserError

COMMANDS = {
    "pretrain": "pre-train a network while it adapts its architecture; accelerate launch -m ssl_adapt pretrain ...",
    "finetune": "train on from a trained network, which goes on adapting; takes what pretrain takes",
    "knn": "classify by nearest neighbours in the features of a frozen network",
    "embed": "write the features of all images of a set to files",
    "retrieve": "find the nearest images of an embedded set",
    "linear": "train a linear classifier on the features of a frozen network",
    "export": "hand a network on: to timm, the Hugging Face hub, ONNX or torch.export",
    "inspect": "show the edges of a network as a table, JSON and a drawing",
    "report": "write the page of a run; draw two networks side by side, or theta over time",
    "runs": "list the runs in a folder: state, score, cost, how to go on",
    "compare": "compare groups of runs seed by seed, with intervals",
    "grid": "start many runs, here or on Slurm",
    "recipes": "list the recipes, or print one",
    "nat": "search for a better cell as NAT does, the paper's baseline; from a checkout",
    "reproduce": "run the experiments of a table of the paper; from a checkout",
    "bench": "time this package and other libraries; from a checkout",
}
RUN_WITHOUT_ARGUMENTS = ("recipes", "runs", "bench")  # the others then print their help
_CHECKOUT = Path(__file__).resolve().parents[2]
_OUTSIDE = {
    "nat": "reproduction.nat.nat_command",
    "reproduce": "reproduction.reproduce_command",
    "bench": "benchmarks.bench_command",
}
_USAGE = """\
usage: ssl-adapt COMMAND [KEY=VALUE ...]

Commands; ssl-adapt COMMAND --help lists the keys of one
"""
HELP = _USAGE + "".join(f"  {name:<11} {meaning}\n" for name, meaning in COMMANDS.items())


def main(name: str | None = None) -> None:
    """Run the command of that name, or of the first argument, with the arguments of the command line, and exit."""
    given = sys.argv[1:] if name is None else [name, *sys.argv[1:]]
    run_command(partial(_run, given))


def _run(given: Sequence[str]) -> None:
    if not given or given[0] in ("-h", "--help"):
        print(HELP, end="")
        return
    name, *arguments = given
    if name not in COMMANDS:
        raise UserError(_unknown_command(name))
    command = importlib.import_module(_module_of(name))
    if {"-h", "--help"} & set(arguments) or not (arguments or name in RUN_WITHOUT_ARGUMENTS):
        print(command.help_text(), end="")
    else:
        command.run(arguments)


def _module_of(name: str) -> str:
    module = _OUTSIDE.get(name)
    if module is None:
        return f"ssl_adapt.commands.{name}_command"
    if not (_CHECKOUT / f"{module.replace('.', '/')}.py").is_file():
        raise UserError(f"{name} is not in the installed package: type it in a checkout of the repository")
    return module


def _unknown_command(name: str) -> str:
    from ssl_adapt.recipe.keys import did_you_mean

    if "=" in name:
        return f"{name!r} is an argument: type a command before it, such as ssl-adapt pretrain {name}"
    return f"unknown command {name!r}{did_you_mean(name, COMMANDS) or '; there are ' + ', '.join(COMMANDS)}"
