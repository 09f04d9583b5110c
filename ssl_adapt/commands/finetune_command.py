"""Training on from a trained network: `ssl-adapt finetune recipe=NAME model.weights=FOLDER key=value ...`."""

import os
from collections.abc import Sequence

from ssl_adapt.commands.page_after_run import write_page_after
from ssl_adapt.errors import UserError
from ssl_adapt.recipe import describe_recipes, load_recipe

USAGE = """\
usage: ssl-adapt finetune recipe=NAME_OR_PATH model.weights=RUN_OR_EXPORT [KEY=VALUE ...]
       ssl-adapt finetune recipe=NAME_OR_PATH model.name=NAME model.pretrained=true [KEY=VALUE ...]

Does what pretrain does, from a trained network. An export decides the recipe's model.name, model.args, data.image_px,
data.mean and data.std where they are not given:
  recipe=finetune_resnet20 model.weights=runs/simclr_resnet20    recipe=finetune_vit model.weights=my_export
"""
NO_START = (
    "finetune starts from a trained network: add model.weights=FOLDER_OR_FILE, or model.pretrained=true for timm's own "
    "weights; ssl-adapt pretrain with the same recipe trains from scratch"
)


def help_text() -> str:
    """The text of --help."""
    return describe_recipes(USAGE)


def run(arguments: Sequence[str]) -> None:
    """Train the network on as the recipe and the other arguments say."""
    recipe = load_recipe(arguments)
    if recipe.model.weights is None and not recipe.model.pretrained:
        raise UserError(NO_START)
    is_first = os.environ.get("RANK", "0") == "0"
    if is_first:
        print(f"recipe {recipe.name} in {recipe.run_dir}: importing torch", flush=True)
    from ssl_adapt.report.tracked_cells import draw_tracked_cells
    from ssl_adapt.training.loop import pretrain
    from ssl_adapt.training.start_recipe import start_values

    given = {argument.partition("=")[0] for argument in arguments}
    values = start_values(recipe.model, recipe.data, recipe.adapt, given)
    if is_first and values:
        print(f"from the trained network: {', '.join(f'{key}={value}' for key, value in values.items())}", flush=True)
    pretrain(load_recipe(arguments, values), draw_tracked_cells)
    if recipe.run.report:
        write_page_after(recipe.run_dir)
