"""Pre-training: `ssl-adapt pretrain recipe=NAME key=value ...`."""

import os
from collections.abc import Sequence

from ssl_adapt.commands.page_after_run import write_page_after
from ssl_adapt.recipe import describe_recipes, load_recipe

USAGE = """\
usage: ssl-adapt pretrain recipe=NAME_OR_PATH [KEY=VALUE ...]
       accelerate launch [OPTIONS] -m ssl_adapt pretrain recipe=NAME_OR_PATH [KEY=VALUE ...]

A recipe is a YAML file; KEY=VALUE replaces one of its values for this run. Values are YAML too:
  train.lr=1e-3   adapt=null   model.args.width=8   'views.crop_scale=[0.2, 1.0]' (quoted for the shell)
"""


def help_text() -> str:
    """The text of --help."""
    return describe_recipes(USAGE)


def run(arguments: Sequence[str]) -> None:
    """Pre-train as the recipe and the other arguments say."""
    recipe = load_recipe(arguments)
    if os.environ.get("RANK", "0") == "0":
        print(f"recipe {recipe.name} in {recipe.run_dir}: importing torch", flush=True)
    from ssl_adapt.report.tracked_cells import draw_tracked_cells
    from ssl_adapt.training.loop import pretrain

    pretrain(recipe, draw_tracked_cells)
    if recipe.run.report:
        write_page_after(recipe.run_dir)
