"""The linear probe of a network by name, and its score as text and as JSON."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from timm.data.config import resolve_model_data_config

from ssl_adapt.data.label_splits import LabelSplit
from ssl_adapt.errors import UserError
from ssl_adapt.evaluation.frozen_network import input_size_px, load_network
from ssl_adapt.evaluation.linear import LinearResult, evaluate_linear
from ssl_adapt.evaluation.linear_protocol import FeaturesProtocol, LinearProtocol, SgdProtocol, create_sgd_plain
from ssl_adapt.evaluation.progress_bar import Begin, show_nothing
from ssl_adapt.evaluation.subject import RunDefaults, Subject, create_subject, load_labelled


@dataclass(frozen=True)
class Probe:
    """What is probed and how."""

    subject: Subject
    protocol: LinearProtocol


@dataclass(frozen=True)
class Probed:
    """A score, of images of so many px, with the labels that were used."""

    probe: Probe
    image_px: int
    labels: LabelSplit
    result: LinearResult


def create_probe(given: Mapping[str, Any], run: RunDefaults | None) -> Probe:
    """The probe from values by key, as `ssl-adapt linear` takes them, and from the run's recipe.

    Raises:
        ValueError: there is no such model, no data is named, a key has no meaning for the protocol, or the device does
            not work.
    """
    own = {key: given[key] for key in ("epochs", "seed") if key in given}
    name = given.get("protocol", FeaturesProtocol.name)
    if own and name == FeaturesProtocol.name:
        key, value = next(iter(own.items()))
        raise UserError(
            f"{key}={value} has no meaning for protocol={name}, which has one solution: leave it out or add "
            "protocol=sgd"
        )
    subject = create_subject(given, run)
    protocols: dict[str, Callable[..., LinearProtocol]] = {
        "features": FeaturesProtocol,
        "sgd": SgdProtocol,
        "sgd_plain": create_sgd_plain,
    }
    protocol = protocols[name](**own)
    return Probe(subject, protocol)


def probe_model(probe: Probe, begin: Begin = show_nothing) -> Probed:
    """The score of the network's features on all test images, as the network's own configuration normalises them.

    Raises:
        ValueError: the model or the data can't be used; the message says what to type.

    Distributed: collective, see `evaluate_linear`.
    """
    subject = probe.subject
    network = load_network(subject.network, pretrained=subject.pretrained)
    image_px = input_size_px(network, subject.image_px)
    begin("reading the images", None)
    train, test = load_labelled(subject, image_px, "a linear probe")
    train = train if train.label_split else train.labelled_part(1.0)
    assert train.label_split is not None
    config = resolve_model_data_config(network)
    result = evaluate_linear(
        network.to(subject.device),
        train,
        test,
        probe.protocol,
        mean=config["mean"],
        std=config["std"],
        batch_size=subject.batch_size,
        device=subject.device,
        workers=subject.workers,
        begin=begin,
    )
    return Probed(probe, image_px, train.label_split, result)


def probe_to_text(probed: Probed) -> str:
    """The score, its interval, how it was measured, and what was chosen."""
    subject, result = probed.probe.subject, probed.result
    name = subject.model if subject.pretrained else f"{subject.model}, random weights"
    low, high = result.interval
    chosen = "penalty" if isinstance(result.protocol, FeaturesProtocol) else "learning rate"
    right = max(result.held_out.values())
    return (
        f"{name}: top-1 {result.top1:.2%} ({low:.2%} to {high:.2%}), top-5 {result.top5:.2%}\n\n"
        f"{result.protocol}; {result.features:,} features, {result.test_count:,} test images; {subject.data} at "
        f"{probed.image_px} px\n"
        f"labels: {probed.labels}\n"
        f"{chosen} {result.chosen:g}, chosen on {result.held_out_count:,} of these in turn, {right:.2%} of them right; "
        f"{result.seconds:,.1f} s\n"
        "the interval is Wilson's, 95 %, over test images; other seeds of the training differ besides"
    )


def probe_to_json(probed: Probed) -> str:
    """Strict JSON text: what was probed and how, the labels with their split's checksum, and the score."""
    subject, result = probed.probe.subject, probed.result
    values = {
        "model": subject.model,
        "pretrained": subject.pretrained,
        "data": subject.data,
        "root": subject.root,
        "image_px": probed.image_px,
        "protocol": result.protocol.to_dict(),
        "labels": probed.labels.to_dict(),
        "test_images": result.test_count,
        "features": result.features,
        "top1": result.top1,
        "top1_interval": {"method": "wilson", "level": 0.95, "low": result.interval[0], "high": result.interval[1]},
        "top5": result.top5,
        "chosen": result.chosen,
        "held_out": {
            "images": result.held_out_count,
            "right": [{"value": value, "share": share} for value, share in result.held_out.items()],
        },
        "seconds": result.seconds,
    }
    return json.dumps(values, indent=2, allow_nan=False) + "\n"
