"""Pre-train: accelerate launch scripts/pretrain.py recipe=NAME key=value ... (--help lists everything)."""

import sys

from ssl_adapt.command import run_command
from ssl_adapt.recipe import describe_recipes, load_recipe
from ssl_adapt.training.pretrain import pretrain


def main() -> None:
    if not sys.argv[1:] or {"-h", "--help"} & set(sys.argv[1:]):
        print(describe_recipes())
        return
    pretrain(load_recipe(sys.argv[1:]))


if __name__ == "__main__":
    run_command(main)
