"""NAT's search for a better cell: python scripts/nat_search.py recipe=NAME genotype=FILE.json (--help for more)."""

import sys

from reproduction.nat.options import NAT_KEYS, NAT_USAGE, create_settings, read_search_arguments, state_folder
from ssl_adapt.arguments import describe_keys
from ssl_adapt.command import run_command


def main() -> None:
    if not sys.argv[1:] or {"-h", "--help"} & set(sys.argv[1:]):
        print(describe_keys(NAT_USAGE, NAT_KEYS))
        return
    recipe, given = read_search_arguments(sys.argv[1:])
    import torch  # here: a typo is answered before torch is imported

    from reproduction.nat.search import search
    from ssl_adapt.runs.atomic_file import write_text
    from ssl_adapt.training.setting import load_splits

    device = "cuda" if torch.cuda.is_available() else "cpu"
    folder = state_folder(given["genotype"])
    result = search(recipe, load_splits(recipe.data).train, create_settings(given), folder, device=device)
    write_text(given["genotype"], result.genotype.to_json())
    if "json" in given:
        write_text(given["json"], result.to_json())
    print(f"score {result.score:.4f} (of the given cells: {result.given_score:.4f}), {result.seconds:.0f} s")
    print(f"train it from scratch with model.args.genotype={given['genotype']} adapt=null")


if __name__ == "__main__":
    run_command(main)
