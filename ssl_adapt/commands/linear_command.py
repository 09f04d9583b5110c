"""The linear probe of frozen features: `ssl-adapt linear model=runs/NAME key=value ...`."""

from collections.abc import Sequence

from pydantic import Field

from ssl_adapt.commands.subject_options import SubjectOptions
from ssl_adapt.evaluation.linear_protocol import LinearName
from ssl_adapt.recipe.help import describe_options
from ssl_adapt.recipe.read import read_options
from ssl_adapt.recipe.values import Count, NewFile, Seed, Share

USAGE = """\
usage: ssl-adapt linear model=MODEL [KEY=VALUE ...]
       accelerate launch [OPTIONS] -m ssl_adapt linear model=MODEL [KEY=VALUE ...]

Trains a linear classifier on the features of a frozen network, and scores it on the test images:
  model=runs/quickstart    model=runs/quickstart/export data=digits labelled_share=0.1    model=resnet18 data=cifar10
"""


class LinearOptions(SubjectOptions):
    """What is probed, on which images, and how."""

    protocol: LinearName = Field(
        default="features",
        description="features: logistic regression on features of the images as they are; sgd: the classic one, on "
        "crops and flips; sgd_plain: the same without them",
    )
    labelled_share: Share | None = Field(
        default=None,
        description="share of the training images whose labels are used, a fixed one, balanced over the classes; null: "
        "the run's, or 1",
    )
    epochs: Count | None = Field(
        default=None, description="with sgd and sgd_plain: over the labelled images; null: 100"
    )
    seed: Seed | None = Field(
        default=None, description="with sgd and sgd_plain: of the order, the crops and the flips; null: 0"
    )
    json_path: NewFile | None = Field(default=None, alias="json", description="also write the score to this file")


def help_text() -> str:
    """The text of --help."""
    return describe_options(USAGE, LinearOptions)


def run(arguments: Sequence[str]) -> None:
    """Probe the network, print the score, and write it to a file if asked."""
    options = read_options(LinearOptions, arguments)
    from ssl_adapt.evaluation.progress_bar import show_progress

    with show_progress() as begin:
        begin("importing torch", None)
        from accelerate import PartialState
        from accelerate.utils import parse_flag_from_env

        from ssl_adapt.evaluation.linear_score import create_probe, probe_model, probe_to_json, probe_to_text
        from ssl_adapt.training.run_defaults import run_defaults

        # joins those of torchrun or accelerate launch; on CPUs it must be told, where Accelerator looks itself
        processes = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))
        given = {"device": str(processes.device), **options.model_dump(exclude_none=True)}
        probed = probe_model(create_probe(given, run_defaults(options.model)), begin)
    if processes.is_main_process:
        print(probe_to_text(probed))
        if options.json_path is not None:
            options.json_path.write_text(probe_to_json(probed), encoding="utf-8")
