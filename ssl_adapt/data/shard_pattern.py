"""The shards that a pattern names, and which of them are held out."""

import glob
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ssl_adapt.errors import UserError

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_MOST_SHARDS = 10**6
_HELD_OUT = {"test": "test", "val": "val", "valid": "val", "validation": "val"}


class Shard(NamedTuple):
    """A tar that a pattern names, its path from the folder that all shards share, and whether it is held out."""

    path: Path
    name: str
    is_held_out: bool


def find_shards(root: Path) -> list[Shard]:
    """The shards that `root` names, sorted, whether they exist or not; those of a split that is not used are left out.

    `root` is a tar, a folder that has tars in it, or a pattern: `{000000..000009}`, `{a,b}`, and `*`, `?`, `[0-9]`.
    Where the file's name, or else a folder's, has the word test, or val or validation, the shard is held out, if
    there are others; where there are both, those of val are not used.

    Raises:
        ValueError: the pattern names no shard.
    """
    paths = sorted(set(_expand_all(root)))
    if not paths:
        raise UserError(
            f"data.root={root} names no shards: type a pattern such as 'shards/{{000000..000009}}.tar' or "
            "'shards/*.tar', a folder of tars, or one tar"
        )
    shared = os.path.commonpath([path.absolute().parent for path in paths])
    names = [Path(os.path.relpath(path, shared)).as_posix() for path in paths]
    splits = [_split(name) for name in names]
    if "train" not in splits:
        return [Shard(path, name, False) for path, name in zip(paths, names, strict=True)]
    held_out = "test" if "test" in splits else "val"
    return [
        Shard(path, name, split == held_out)
        for path, name, split in zip(paths, names, splits, strict=True)
        if split in ("train", held_out)
    ]


def _expand_all(root: Path) -> Iterator[Path]:
    if root.is_dir():
        yield from root.rglob("*.tar")
    elif root.exists():
        yield root
    else:
        for pattern in _expand_braces(str(root)):
            yield from map(Path, glob.glob(pattern, recursive=True) if glob.has_magic(pattern) else [pattern])


def _expand_braces(pattern: str) -> list[str]:
    """What a shell makes of the braces; a pattern without any is a path or a glob."""
    found = _BRACES.search(pattern)
    if found is None:
        return [pattern] if glob.has_magic(pattern) or ".tar" in pattern else []
    ends = _RANGE.fullmatch(found[1])
    choices = found[1].split(",")
    if ends:
        first, last = int(ends[1]), int(ends[2])
        if last - first >= _MOST_SHARDS:
            raise UserError(
                f"data.root={pattern} names {last - first + 1:,} shards: type the numbers of those there are"
            )
        width = max(map(len, ends.groups())) if ends[1].startswith("0") else 0
        choices = [f"{number:0{width}d}" for number in range(first, last + 1)]
    before, after = pattern[: found.start()], pattern[found.end() :]
    return [path for choice in choices for path in _expand_braces(f"{before}{choice}{after}")]


def _split(name: str) -> str:
    for part in reversed(name.lower().split("/")):
        words = re.split("[^a-z]+", part)
        for word in words:
            if word == "train" or word in _HELD_OUT:
                return _HELD_OUT.get(word, "train")
    return "train"
