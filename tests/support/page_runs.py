"""Runs whose pages are tested, made of the export of another one without training."""

import shutil
from pathlib import Path

from image_folders import write_images

from ssl_adapt.recipe import load_recipe, save_recipe

ALERT, QUOTED = "<script>alert(1)</script>", 'it\'s "a" <b>'


def with_recipe(exported: Path, folder: Path, *arguments: str) -> Path:
    """A run in `folder` with the export of another, and that one's recipe with other values."""
    shutil.copytree(exported / "export", folder / "export")
    own = [f"recipe={exported / 'recipe.yaml'}", f"run.dir={folder}", *arguments]
    save_recipe(load_recipe(own), folder / "recipe.yaml")
    return folder


def hostile_run(exported: Path, folder: Path) -> tuple[list[str], Path]:
    """A run on images whose names and classes hold quotes and HTML: the names, and the folder of the run.

    Half of the images are for training, and each class has half of either half.
    """
    names = [f"{number} {QUOTED}.png" for number in range(16)]
    write_images(folder, *names)
    rows = [(name, (ALERT, QUOTED)[number % 2], "train" if number < 8 else "test") for number, name in enumerate(names)]
    quoted = [",".join('"' + value.replace('"', '""') + '"' for value in row) for row in rows]
    (folder / "list.csv").write_text("\n".join(["path,label,split", *quoted]), encoding="utf-8")
    overrides = ["data.name=csv", f"data.root={folder / 'list.csv'}", "data.batch_size=4", "knn.k=3"]
    return names, with_recipe(exported, folder / "run", *overrides)
