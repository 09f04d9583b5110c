"""Whether a run may resume with a recipe: values that change a result must be the same."""

from collections.abc import Mapping, Sequence
from typing import Any

from ssl_adapt.errors import UserError
from ssl_adapt.recipe import Recipe

# Keys that may differ on resume: data may have moved, and what was refused (an image, a batch) may be allowed now.
# The parts of a batch may change with the number of processes, which the checkpoint knows.
FREE: Any = {
    "run": True,
    "name": True,
    "data": {"root", "workers", "on_bad_image"},
    "adapt": {"on_dead"},
    "train": {"accumulate", "on_nonfinite", "shard_weights"},
}


def check_same(before: Recipe, now: Recipe, old_epochs: int) -> None:
    """Compare two recipes in everything that changes a result.

    Raises:
        ValueError: the message names the first keys that differ, or for a larger `train.epochs` alone how to extend.
    """
    old, new = (recipe.model_dump(exclude=FREE) for recipe in (before, now))
    differing = differing_keys(old, new)
    if differing == ["train.epochs"] and now.train.epochs > old_epochs:
        raise UserError(
            f"the run in {now.run_dir} was started with train.epochs={old_epochs}, now {now.train.epochs}: "
            "type run.resume=extend to make it longer"
        )
    if differing:
        raise UserError(
            f"the run in {now.run_dir} was started with other values: {show_difference(old, new, differing)}; "
            "continue with the same ones, or start in another run.dir"
        )


def differing_keys(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The dotted keys of two nested dicts whose values differ, in order."""
    keys = []
    for key in sorted(old.keys() | new.keys()):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            keys += differing_keys(a, b, f"{prefix}{key}.")
        elif a != b:
            keys.append(prefix + key)
    return sorted(keys)


def show_difference(old: Mapping[str, Any], new: Mapping[str, Any], keys: Sequence[str]) -> str:
    """The first few of the dotted keys, each with both values."""
    return ", ".join(f"{key} ({value_at(old, key)!r}, now {value_at(new, key)!r})" for key in keys[:4])


def value_at(values: Mapping[str, Any], dotted: str) -> Any:
    """The value at a dotted key of nested dicts; None where there is none."""
    value: Any = values
    for part in dotted.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
