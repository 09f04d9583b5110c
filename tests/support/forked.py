"""Processes of one run, as torchrun starts them, but each a fork of a server that has imported everything."""

import gc
import multiprocessing
import os
import runpy
import sys
from collections.abc import Callable
from multiprocessing.connection import wait
from pathlib import Path
from typing import NamedTuple

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "ssl_adapt.training.loop",
        "ssl_adapt.adaptation.cost",
        "kornia.augmentation",
        "sklearn.datasets",
        "sklearn.model_selection",
    ]
)


class Ended(NamedTuple):
    code: int
    out: str
    err: str


def run_processes(count: int, folder: Path, function: Callable[..., None], *arguments: object) -> list[Ended]:
    """How each of `count` processes ended that called `function(*arguments)` together, in a process group of gloo."""
    place = folder / f"of_{count}"
    place.mkdir(parents=True)
    processes = [CONTEXT.Process(target=_run, args=(i, count, place, function, arguments)) for i in range(count)]
    for process in processes:
        process.start()
    while running := [process.sentinel for process in processes if process.is_alive()]:
        wait(running)
        if any(process.exitcode for process in processes):
            for process in processes:
                process.terminate()  # as torchrun does, where one fails
    for process in processes:
        process.join()
    return [
        Ended(process.exitcode, *((place / f"{index}.{stream}").read_text() for stream in ("out", "err")))
        for index, process in enumerate(processes)
    ]


def run_script(script: Path, arguments: list[str]) -> None:
    """What `python script arguments` does."""
    sys.argv = [str(script), *arguments]
    runpy.run_path(str(script), run_name="__main__")


def _run(index: int, count: int, place: Path, function: Callable[..., None], arguments: tuple[object, ...]) -> None:
    import torch.distributed as dist

    gc.freeze()  # accelerate collects garbage at each fix, and would look through all that was imported
    for number, stream in ((1, "out"), (2, "err")):
        os.dup2(os.open(place / f"{index}.{stream}", os.O_CREAT | os.O_WRONLY), number)
    os.environ |= {
        "RANK": str(index), "LOCAL_RANK": str(index), "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count),
        "ACCELERATE_USE_CPU": "1",
    }  # fmt: skip
    store = dist.FileStore(str(place / "store"), count)
    dist.init_process_group("gloo", store=store, rank=index, world_size=count)
    function(*arguments)
    if dist.is_initialized():
        dist.destroy_process_group()
