"""The folder of a run: its recipe, metrics, last checkpoint, architecture, result and export."""

import json
from pathlib import Path
from typing import Any

from ssl_adapt.recipe import Recipe, load_recipe, save_recipe
from ssl_adapt.training.checkpoint import load_checkpoint, save_checkpoint


class RunFolder:
    """Knows where things are; creates nothing before `create`. A run without a checkpoint yet counts as none.

    Args:
        recipe: `run.dir`, `run.resume` and, to compare, everything that changes a result.

    Raises:
        ValueError: if the folder holds a run already and `run.resume` is "never", if that run had another
            recipe, or if there is a file in the folder's place.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.path = recipe.run_dir
        self._recipe = recipe
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"run.dir={self.path} is a file: name a folder")
        if not self._checkpoint_path.exists():
            return
        if recipe.run.resume == "never":
            raise ValueError(
                f"{self.path} holds a run already: type run.resume=auto to go on with it, or another run.dir=FOLDER"
            )
        _check_same(load_recipe([f"recipe={self._recipe_path}"]), recipe)

    @property
    def export(self) -> Path:
        """Where the export goes."""
        return self.path / "export"

    def create(self) -> None:
        """Make the folder and save the recipe in it."""
        self.path.mkdir(parents=True, exist_ok=True)
        save_recipe(self._recipe, self._recipe_path)

    def load_checkpoint(self) -> dict[str, Any] | None:
        """The last checkpoint, or None where there is none.

        Raises:
            ValueError: if it is damaged.
        """
        return load_checkpoint(self._checkpoint_path) if self._checkpoint_path.exists() else None

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Replace the last checkpoint."""
        save_checkpoint(self._checkpoint_path, state)

    def save_architecture(self, text: str) -> None:
        """Write `architecture.json`."""
        (self.path / "architecture.json").write_text(text, encoding="utf-8")

    def save_result(self, result: dict[str, Any]) -> None:
        """Write `result.json`."""
        (self.path / "result.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")

    def events(self) -> list[dict[str, Any]]:
        """The lines of `metrics.jsonl`."""
        return [json.loads(line) for line in (self.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]

    @property
    def _recipe_path(self) -> Path:
        return self.path / "recipe.yaml"

    @property
    def _checkpoint_path(self) -> Path:
        return self.path / "checkpoint.pt"


def _check_same(before: Recipe, now: Recipe) -> None:
    # Data may move between two starts, and a refused architecture may be accepted after all.
    elsewhere: Any = {"run": True, "name": True, "data": {"root", "workers"}, "adapt": {"on_dead"}}
    old, new = (recipe.model_dump(exclude=elsewhere) for recipe in (before, now))
    differing = sorted(_differing_keys(old, new))
    if differing:
        shown = ", ".join(f"{key} ({_at(old, key)!r}, now {_at(new, key)!r})" for key in differing[:4])
        raise ValueError(
            f"the run in {now.run_dir} was started with other values: {shown}; "
            "go on with the same ones, or start in another run.dir"
        )


def _differing_keys(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    keys = []
    for key in sorted(old.keys() | new.keys()):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            keys += _differing_keys(a, b, f"{prefix}{key}.")
        elif a != b:
            keys.append(prefix + key)
    return keys


def _at(values: dict[str, Any], dotted: str) -> Any:
    for part in dotted.split("."):
        values = values.get(part, {})
    return values
