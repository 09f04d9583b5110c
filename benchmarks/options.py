"""The command line of the benchmark: key=value arguments -> Options."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl_adapt.arguments import NEW_FILE, Key, Kind, describe_keys, read_arguments, whole_number

GROUPS = {
    "views": "two views of a batch: ours, torchvision on PIL images, kornia's operations",
    "step": "a plain step, a step of the architecture stage, naive alternation",
    "nt_xent": "NT-Xent forward and backward, time and memory: ours, lightly's, the plain form",
    "knn": "kNN classification: ours with faiss, torch's matmul and topk",
    "adaptable": "networks of timm, and the same with a third of their edges as identities",
}


def _read_groups(text: str) -> tuple[str, ...]:
    names = text.split(",")
    if set(names) - set(GROUPS):
        raise ValueError
    return tuple(group for group in GROUPS if group in names)


_KEYS = {
    "only": Key(Kind(f"some of {','.join(GROUPS)}", _read_groups), "what to time", "all, in this order"),
    "repeats": Key(whole_number(2), "timed calls of each contender", "10"),
    "growth": Key(
        whole_number(1024), "also one call of each form of NT-Xent at 512, 1024 ... up to this batch", "no such table"
    ),
    "json": Key(NEW_FILE, "also write the figures, every single time among them, to this file", "none is written"),
}
_USAGE = """\
usage: python scripts/bench.py [only=GROUP,...] [repeats=N] [json=PATH] [growth=B]

Times our code beside what one would use without it; contenders take turns, after a warm-up.
It runs on the GPU if there is one; CUDA_VISIBLE_DEVICES= (empty) keeps it on the CPU.

Groups
""" + "".join(f"  {name:<14}{meaning}\n" for name, meaning in GROUPS.items())

HELP = describe_keys(_USAGE, _KEYS)


@dataclass(frozen=True)
class Options:
    """What to time, how often, and where the figures go beside the terminal."""

    groups: tuple[str, ...] = tuple(GROUPS)
    repeats: int = 10
    json_path: Path | None = None
    largest_growth: int | None = None


def parse_options(arguments: Sequence[str]) -> Options:
    """The options that `key=value` arguments describe.

    Raises:
        ValueError: an argument is wrong; the message says what to type.
    """
    given: dict[str, Any] = read_arguments(arguments, _KEYS)
    return Options(given.get("only", tuple(GROUPS)), given.get("repeats", 10), given.get("json"), given.get("growth"))
