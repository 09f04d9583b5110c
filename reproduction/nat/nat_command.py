"""NAT's search for a better cell: `ssl-adapt nat recipe=NAME genotype=FILE.json key=value ...`."""

from collections.abc import Sequence

from reproduction.nat.nat_options import NatOptions, create_settings, read_search_arguments, state_folder
from ssl_adapt.recipe.help import describe_options

USAGE = """\
usage: ssl-adapt nat recipe=NAME genotype=FILE.json [KEY=VALUE ...]

NAT, the baseline: searches which edges of a cell should become none or skip connections. The cell that it finds
is then trained from scratch, which takes a whole run. It runs on the GPU if there is one.
  ssl-adapt nat recipe=supervised_resnet20 model.name=resnet20_nat genotype=found.json
  ssl-adapt pretrain recipe=supervised_resnet20 model.name=resnet20_nat model.args.genotype=found.json adapt=null

It uses a recipe's keys for the images, the network's cells, the views, the objective and the seed (ssl-adapt pretrain
--help lists them); other keys are refused. The same command continues a search that was stopped or killed, with the
same result; after the end it prints the result again. The state of the search is in FILE.json.search/.
"""


def help_text() -> str:
    """The text of --help."""
    return describe_options(USAGE, NatOptions)


def run(arguments: Sequence[str]) -> None:
    """Search, write the result, and print how to train it."""
    recipe, options = read_search_arguments(arguments)
    import torch

    from reproduction.nat.search import search
    from ssl_adapt.runs.atomic_file import write_text
    from ssl_adapt.training.setting import load_splits

    device = "cuda" if torch.cuda.is_available() else "cpu"
    folder = state_folder(options.genotype)
    result = search(recipe, load_splits(recipe.data).train, create_settings(options), folder, device=device)
    write_text(options.genotype, result.genotype.to_json())
    if options.json_path is not None:
        write_text(options.json_path, result.to_json())
    print(f"score {result.score:.4f} (of the given cells: {result.given_score:.4f}), {result.seconds:.0f} s")
    print(f"train it from scratch with model.args.genotype={options.genotype} adapt=null")
