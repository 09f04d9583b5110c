"""kNN of frozen features: python scripts/knn_eval.py model=runs/NAME key=value ... (--help lists everything)."""

import sys
from typing import Any

from ssl_adapt.arguments import describe_keys, read_arguments
from ssl_adapt.command import run_command
from ssl_adapt.evaluation.options import SCORE_KEYS, SCORE_USAGE


def main() -> None:
    if not sys.argv[1:] or {"-h", "--help"} & set(sys.argv[1:]):
        print(describe_keys(SCORE_USAGE, SCORE_KEYS))
        return
    measure(read_arguments(sys.argv[1:], SCORE_KEYS))


def measure(given: dict[str, Any]) -> None:
    from ssl_adapt.evaluation.progress import show_progress

    with show_progress() as begin:
        begin("importing torch", None)  # here: a typo is answered before that takes its seconds
        from ssl_adapt.evaluation.score import create_settings, score_model
        from ssl_adapt.evaluation.score_report import print_scores, scores_to_json
        from ssl_adapt.training.run_defaults import run_defaults

        scores = score_model(create_settings(given, run_defaults(given["model"])), begin)
    print_scores(scores)
    if "json" in given:
        given["json"].write_text(scores_to_json(scores), encoding="utf-8")


if __name__ == "__main__":
    run_command(main)
