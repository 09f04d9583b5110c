"""Pre-train: accelerate launch scripts/pretrain.py recipe=NAME key=value ... (--help lists everything)."""

import os
import sys

from ssl_adapt.command import run_command
from ssl_adapt.recipe import describe_recipes, load_recipe


def main() -> None:
    if not sys.argv[1:] or {"-h", "--help"} & set(sys.argv[1:]):
        print(describe_recipes())
        return
    recipe = load_recipe(sys.argv[1:])
    if os.environ.get("RANK", "0") == "0":
        print(f"recipe {recipe.name} in {recipe.run_dir}: importing torch", flush=True)
    from ssl_adapt.training.pretrain import pretrain  # here: a typo is answered before torch is imported

    pretrain(recipe)


if __name__ == "__main__":
    run_command(main)
