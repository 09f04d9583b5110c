"""kNN of frozen features: python scripts/knn_eval.py model=runs/NAME key=value ... (--help lists everything)."""

import sys
from dataclasses import replace

from rich.console import Console

from ssl_adapt.arguments import describe_keys, read_arguments
from ssl_adapt.command import run_command
from ssl_adapt.evaluation.network import find_run_recipe
from ssl_adapt.evaluation.score import SCORE_KEYS, SCORE_USAGE, RunDefaults, create_settings, score_model
from ssl_adapt.evaluation.score_report import print_scores, scores_to_json
from ssl_adapt.recipe import load_recipe
from ssl_adapt.training.landmarks import create_protocol


def run_defaults(model: str) -> RunDefaults | None:
    path = find_run_recipe(model)
    if path is None:
        return None
    recipe = load_recipe([f"recipe={path}"])
    data, knn = recipe.data, recipe.knn
    protocol = knn and replace(create_protocol(knn), layer="backbone")  # an export holds no projector
    return RunDefaults(data.name, data.root, data.workers, data.train_images, protocol)


def main() -> None:
    if not sys.argv[1:] or {"-h", "--help"} & set(sys.argv[1:]):
        print(describe_keys(SCORE_USAGE, SCORE_KEYS))
        return
    given = read_arguments(sys.argv[1:], SCORE_KEYS)
    with Console(stderr=True).status("measuring"):
        scores = score_model(create_settings(given, run_defaults(given["model"])))
    print_scores(scores)
    if "json" in given:
        given["json"].write_text(scores_to_json(scores), encoding="utf-8")


if __name__ == "__main__":
    run_command(main)
