"""The command line of the benchmark: key=value arguments -> Options."""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

GROUPS = ("views", "step", "nt_xent", "knn")

HELP = """\
usage: python scripts/bench.py [only=GROUP,...] [repeats=N] [json=PATH]

Times our code beside what one would use without it; contenders take turns, after a warm-up.
It runs on the GPU if there is one; CUDA_VISIBLE_DEVICES= (empty) keeps it on the CPU.

  only=GROUP,...  some of the groups; without it all of them, in this order
                    views    two views of a batch: ours, torchvision on PIL images, kornia's operations
                    step     a plain step, a step of the architecture stage, naive alternation
                    nt_xent  NT-Xent forward and backward: ours, lightly's, the plain form
                    knn      kNN classification: ours with faiss, torch's matmul and topk
  repeats=N       timed calls of each contender, at least 2; default 10
  json=PATH       also write the figures, every single time among them, to this file
"""


@dataclass(frozen=True)
class Options:
    """What to time, how often, and where the figures go beside the terminal."""

    groups: tuple[str, ...] = GROUPS
    repeats: int = 10
    json_path: Path | None = None


def parse_options(arguments: Sequence[str]) -> Options:
    """The options that `key=value` arguments describe.

    Raises:
        ValueError: an argument is wrong; the message says what to type.
    """
    texts: dict[str, str] = {}
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if not equals:
            raise ValueError(f"argument {argument!r} has no '=': type key=value; --help lists the keys")
        if key not in ("only", "repeats", "json"):
            raise ValueError(f"unknown key {key!r}{_nearest(key, ('only', 'repeats', 'json'))}")
        if key in texts:
            raise ValueError(f"{key!r} is given twice: keep one of them")
        texts[key] = text
    return Options(
        groups=_parse_groups(texts["only"]) if "only" in texts else GROUPS,
        repeats=_parse_repeats(texts.get("repeats", "10")),
        json_path=_parse_json_path(texts["json"]) if "json" in texts else None,
    )


def _parse_groups(text: str) -> tuple[str, ...]:
    names = text.split(",")
    for name in names:
        if name not in GROUPS:
            raise ValueError(f"unknown group {name!r} in only={text}{_nearest(name, GROUPS)}")
    return tuple(group for group in GROUPS if group in names)


def _parse_repeats(text: str) -> int:
    if not text.isdecimal() or int(text) < 2:
        raise ValueError(f"repeats={text}: type a whole number of at least 2, as one call has no spread")
    return int(text)


def _parse_json_path(text: str) -> Path:
    path = Path(text)
    if not text or path.is_dir() or not path.parent.is_dir():
        raise ValueError(f"json={text}: type the path of a file in a folder that exists")
    return path


def _nearest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ";"
    return f"{hint} available: {', '.join(known)}"
