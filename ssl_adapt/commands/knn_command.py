"""The kNN evaluation of frozen features: `ssl-adapt knn model=runs/NAME key=value ...`."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from ssl_adapt.commands.subject_options import SubjectOptions
from ssl_adapt.evaluation.protocol import PresetName, Weighting
from ssl_adapt.recipe.help import describe_options
from ssl_adapt.recipe.read import read_options
from ssl_adapt.recipe.values import Count, NewFile, Positive

USAGE = """\
usage: ssl-adapt knn model=MODEL [KEY=VALUE ...]

Classifies the test images by the labels of their nearest training images, in the features of a frozen network:
  model=runs/quickstart    model=runs/quickstart/export data=digits    model=resnet18 data=cifar10 image_px=64
"""


class KnnOptions(SubjectOptions):
    """What is scored, on which images, and how."""

    protocol: PresetName | None = Field(
        default=None, description="how neighbours vote; null: the run's, or simclr_cifar"
    )
    k: Count | None = Field(default=None, description="number of neighbours; null: the protocol's")
    temperature: Positive | None = Field(
        default=None, description="a vote weighs exp(cosine / temperature); null: the protocol's"
    )
    weighting: Weighting | None = Field(
        default=None, description="weight of a vote: by cosine, or 1 for each neighbour; null: the protocol's"
    )
    search: Literal["exact", "ivf"] = Field(
        default="exact", description="ivf: look for neighbours in some lists of similar images only"
    )
    probes: Count | None = Field(
        default=None, description="with search=ivf: number of lists to search, of about 4 sqrt(training images)"
    )
    baselines: bool = Field(
        default=True, description="also score the network with random weights (seed 0) and raw pixels"
    )
    json_path: NewFile | None = Field(default=None, alias="json", description="also write the scores to this file")


def help_text() -> str:
    """The text of --help."""
    return describe_options(USAGE, KnnOptions)


def run(arguments: Sequence[str]) -> None:
    """Score the network, print the scores, and write them to a file if asked."""
    options = read_options(KnnOptions, arguments)
    from ssl_adapt.evaluation.progress_bar import show_progress

    with show_progress() as begin:
        begin("importing torch", None)
        from ssl_adapt.evaluation.score import create_settings, score_model
        from ssl_adapt.evaluation.score_report import print_scores, scores_to_json
        from ssl_adapt.training.run_defaults import run_defaults

        given = options.model_dump(exclude_none=True)
        scores = score_model(create_settings(given, run_defaults(options.model)), begin)
    print_scores(scores)
    if options.json_path is not None:
        options.json_path.write_text(scores_to_json(scores), encoding="utf-8")
