"""Table 5: `python -m reproduction.shrink_command root=TAR key=value ...`."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from reproduction.shrink_options import ARMS, ShrinkOptions
from ssl_adapt.commands.ending import run_command
from ssl_adapt.errors import UserError
from ssl_adapt.recipe.help import describe_options
from ssl_adapt.recipe.read import read_options

USAGE = """\
usage: python -m reproduction.shrink_command root=TAR [KEY=VALUE ...]

Cuts trained networks to a budget in several ways, trains them on, and writes Table 5. A finished row is a line of
FOLDER/rows.jsonl; a second call goes on where the first one ended.
"""


def run(arguments: Sequence[str]) -> None:
    """Run all rows that are not in the folder yet, and write the table if a folder for it is given."""
    if not arguments or {"-h", "--help"} & set(arguments):
        print(describe_options(USAGE, ShrinkOptions), end="")
        return
    options = read_options(ShrinkOptions, arguments)
    if unknown := sorted({*options.arms} - {*ARMS}):
        raise UserError(f"arms: there is no {unknown[0]!r}; there are {', '.join(ARMS)}")
    from reproduction.shrink_study import Study
    from reproduction.shrink_summary import write_results

    folder = Path(options.folder or f"runs/shrink_{options.network}").expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    rows = folder / "rows.jsonl"
    lines = rows.read_text(encoding="utf-8").splitlines() if rows.exists() else []
    done = {(row["seed"], row["arm"], row["budget"], row["draw"]) for row in map(json.loads, lines)}
    for seed in options.seeds:
        todo = [key for key in _keys(options) if (seed, *key) not in done]
        study = Study(options.network, seed, options, folder, _commit()) if todo else None
        for arm, budget, draw in todo:
            assert study is not None
            line = json.dumps(asdict(study.run(arm, budget, draw)))
            with rows.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
            print(line, flush=True)
    if options.results is not None:
        write_results(rows, Path(options.results).expanduser(), f"table_5_{options.network}")


def _keys(options: ShrinkOptions) -> list[tuple[str, float, int]]:
    """Arm, budget and draw of each row of a seed; `original` has no budget."""
    keys = {
        (arm, 1.0 if arm == "original" else budget, draw): None
        for budget in options.budgets
        for arm in options.arms
        for draw in range(options.draws if arm == "random" else 1)
    }
    return [*keys]


def _commit() -> str:
    found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


if __name__ == "__main__":
    run_command(partial(run, sys.argv[1:]))
