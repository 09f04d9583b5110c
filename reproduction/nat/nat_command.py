"""NAT's search for a better cell: `ssl-adapt nat recipe=NAME genotype=FILE.json key=value ...`."""

from collections.abc import Sequence

from reproduction.nat.nat_options import NatOptions, create_settings, read_search_arguments, state_folder
from ssl_adapt.recipe.help import describe_options

USAGE = """\
usage: ssl-adapt nat recipe=NAME genotype=FILE.json [KEY=VALUE ...]

NAT, the baseline: searches which edges of a cell should become none or skip connections. What was found is then
trained from scratch, which costs a whole run again. It runs on the GPU if there is one.
  ssl-adapt nat recipe=supervised_resnet20 model.name=resnet20_nat genotype=found.json
  ssl-adapt pretrain recipe=supervised_resnet20 model.name=resnet20_nat model.args.genotype=found.json adapt=null

Of a recipe's keys (ssl-adapt pretrain --help lists them) those for the images, the network's cells, views, objective
and seed count; one that does not is refused. The same command goes on with a search that was stopped or killed, and
ends with the same result; after the end it tells the result again. FILE.json.search/ beside FILE.json is its state.
"""


def help_text() -> str:
    """The text of --help."""
    return describe_options(USAGE, NatOptions)


def run(arguments: Sequence[str]) -> None:
    """Search, write what was found, and say how it is trained."""
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
