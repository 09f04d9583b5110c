"""Makes a table: starts its runs, then writes their results."""

import json
from pathlib import Path

import torch
from rich.console import Console

from benchmarks.environment import describe_environment
from reproduction.dry_run import dry_run
from reproduction.records import commit_of_checkout, read_record
from reproduction.summary import summarise
from reproduction.table_options import Request
from reproduction.table_runs import CLASSES, has_nothing_to_control
from reproduction.tables import to_csv, to_json, to_markdown
from ssl_adapt.errors import UserError
from ssl_adapt.recipe import Recipe
from ssl_adapt.runs.atomic_file import write_text
from ssl_adapt.runs.grid import run_grid
from ssl_adapt.runs.grid_plan import Grid
from ssl_adapt.training.setting import load_splits

FACTS = "facts.json"
_OR = "; "  # between the values that a fact has had


def reproduce(request: Request, console: Console) -> None:
    """Start the runs that have not finished, then write and print the table of all that have.

    Raises:
        ValueError: if the images are not those of the table, or a finished run was made with other values, both before
            any is started; if a run fails, after the table of the others has been written; or if none has finished.
    """
    if request.launch.dry_run:
        dry_run(request, console)
        return
    if request.write_only:
        write_table(request, console)
        return
    for run in request.listed:
        read_record(run)
    try:
        run_rounds(request, console)
    finally:
        if any(run.grid_state() == "finished" for run in request.listed):
            write_table(request, console)


def write_table(request: Request, console: Console) -> None:
    """Write the table of the runs that have finished into the folder of results, and print it.

    Raises:
        ValueError: if none has finished.
    """
    records = [record for record in map(read_record, request.listed) if record is not None]
    rows = summarise(1 if request.table == 2 else request.table, request.networks, records)
    if not rows:
        raise UserError(f"no run in {request.folder} has finished: leave write_only out, or name another folder")
    facts = read_facts(request)
    request.results.mkdir(parents=True, exist_ok=True)
    path = request.results / f"table_{request.table}_{request.scale}"
    markdown = to_markdown(request.table, request.scale, rows, facts)
    path.with_suffix(".md").write_text(markdown, encoding="utf-8")
    path.with_suffix(".csv").write_text(to_csv(rows), encoding="utf-8")
    path.with_suffix(".json").write_text(to_json(request.table, request.scale, rows, facts), encoding="utf-8")
    console.print(markdown, markup=False, soft_wrap=True)
    console.print(f"written: {path}.md, .csv and .json", markup=False, soft_wrap=True)


def run_rounds(request: Request, console: Console) -> None:
    """Start the runs that have not finished, in two rounds, and wait for them.

    The second round starts from results of the first; controls of runs that changed no edge are left out.

    Raises:
        ValueError: if a run fails; the others of its round have ended then.
    """
    runs = [run for run in request.runs if not has_nothing_to_control(run)]
    if any(run.grid_state() != "finished" for run in runs):
        record_facts(request, describe_images(request.runs[0].recipe()))
    first = [run.grid_run() for run in runs if not run.is_second_round()]
    first += [run.search() for run in runs if run.method.how == "nat"]
    run_grid(Grid(request.folder, tuple(first), request.launch), console)
    second = [run.grid_run() for run in runs if run.is_second_round() and not has_nothing_to_control(run)]
    run_grid(Grid(request.folder, tuple(second), request.launch), console)


def describe_images(recipe: Recipe) -> str:
    """The images of the runs, in words; they are read once, so that errors in them show early.

    Raises:
        ValueError: if they can't be read, or are not what the table is about.
    """
    data = recipe.data
    splits = load_splits(recipe.data)
    place = "" if data.root is None else f" from {Path(data.root).name}"
    expected, found = CLASSES.get(data.name, 10), len(splits.train.classes)
    if found != expected:
        raise UserError(f"{data.name} has {expected} classes, and the images{place} are of {found}: name another root")
    if splits.test is None:
        raise UserError(f"the images{place} have no test split, which the table needs: name another root")
    return (
        f"{data.name}{place} at {data.image_px} px: {len(splits.train):,} training images, of {found} classes, and "
        f"{len(splits.test):,} test images"
    )


def record_facts(request: Request, images: str) -> None:
    """Add the versions, device and images of these runs to the facts in their folder."""
    path = request.folder / FACTS
    known: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    facts = {
        "images": images,
        "commit": commit_of_checkout(),
        "runs at a time": str(request.launch.jobs),
        **describe_environment(device),
    }
    for name, value in known.items():
        earlier = value.split(_OR)
        facts[name] = _OR.join(dict.fromkeys([*earlier, facts[name]] if name in facts else earlier))
    request.folder.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(facts, indent=2) + "\n")


def read_facts(request: Request) -> dict[str, str]:
    """What `record_facts` wrote."""
    path = request.folder / FACTS
    noted: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return noted
