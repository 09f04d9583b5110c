"""Trained weights that a run starts from: where they lie, the network they are of, and what of them it takes."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from ssl_adapt.adaptation.architecture import Architecture, apply_architecture, edge_specs
from ssl_adapt.adaptation.edge import Adaptable
from ssl_adapt.backbones.adaptable import NAME as ADAPTABLE
from ssl_adapt.backbones.fit_weights import FittedWeights, fit_weights
from ssl_adapt.errors import UserError
from ssl_adapt.evaluation.frozen_network import HUB, LOCAL, find_network, has_weights
from ssl_adapt.export import load_export
from ssl_adapt.export.check import CONFIG, WEIGHTS, check_arguments, check_finite
from ssl_adapt.export.read_weights import SUFFIXES, read_weights
from ssl_adapt.json_text import one_line, read_text
from ssl_adapt.recipe import AdaptSection, ModelSection
from ssl_adapt.runs.log import RunLog

EVENT = "weights"  # of metrics.jsonl


@dataclass
class StartWeights:
    """What a run starts from; without a source its network is plain and its weights are random.

    Attributes:
        model: what to build: the recipe's network, with the edges of the adapted one where such a one was given.
        source: the recipe's words for where the weights are, or an architecture alone; None: nothing is given.
        sha256: of the file, or of names and tensors where timm downloaded them.
        state: the tensors by name; None where the run resumes, as its checkpoint has them, and for random weights.
        architecture: of the adapted network that was given; None: plain.
        adapted_by: what goes on adapting it; None: nothing.
        fitted: what the network took; None before `load_into`.
    """

    model: ModelSection
    source: str | None = None
    sha256: str = ""
    state: Mapping[str, Tensor] | None = None
    architecture: Architecture | None = None
    adapted_by: AdaptSection | None = None
    fitted: FittedWeights | None = None

    def load_into(self, backbone: nn.Module, teachers: Sequence[nn.Module] = ()) -> None:
        """Give the network, and its teachers, the architecture and the weights, if they are not a checkpoint's.

        Raises:
            ValueError: if they are of another network; the message names the first weights that do not fit.
        """
        try:
            if self.architecture is not None:
                _check_identities(backbone, self.architecture, self.adapted_by)
                for network in (backbone, *teachers):
                    apply_architecture(network, self.architecture)
            if self.state is None:
                return
            self.fitted = fit_weights(backbone, self.state, new_classifier=self.model.classifier == "new")
        except UserError as error:
            name = self.model.args.get("base", self.model.name)
            raise UserError(f"{_key(self.model)} does not fit model.name={name}: {error}{self._hint()}") from None
        for network in (backbone, *teachers):
            network.load_state_dict(self.fitted.tensors, strict=False)
        try:
            check_finite(backbone)
        except UserError as error:
            raise UserError(f"{_key(self.model)}: {error}") from None

    def rows(self) -> list[tuple[str, str]]:
        """The line of the run's plan, if something is loaded."""
        if self.source is None:
            return []
        kept = ""
        if self.architecture is not None:
            changed, count = len(self.architecture.changed), len(self.architecture.edges)
            kept = f"in an adapted architecture, {changed} of {count} edges changed, which stay so"
        if self.fitted is None:
            words = f"at random, {kept}" if kept else f"the checkpoint's; the run began from {self.source}"
            return [("weights", words)]
        parts = [f"from {self.source}: {len(self.fitted.tensors)} tensors", *self.fitted.changes]
        if kept:
            parts.append(kept)
        if self.fitted.has_classifier:
            parts.append("their classifier kept (model.classifier=new starts another)")
        if self.fitted.new:
            parts.append(f"not found: {', '.join(self.fitted.new)} (new, at random)")
        if self.fitted.left_out:
            parts.append(f"left out: {', '.join(self.fitted.left_out)}")
        return [("weights", "; ".join(parts))]

    def record(self, log: RunLog) -> None:
        """Write what was given into `metrics.jsonl`, where a run that resumes finds it; no tensors: an architecture."""
        if self.source is not None:
            fitted = self.fitted or FittedWeights({}, (), (), (), has_classifier=False)
            log.record(
                EVENT, step=0, source=self.source, sha256=self.sha256, tensors=len(fitted.tensors),
                not_found=fitted.new, left_out=fitted.left_out, model=self.model.model_dump(include={"name", "args"}),
            )  # fmt: skip

    def _hint(self) -> str:
        folder = Path(os.path.expanduser(self.model.weights or "")).parent
        if self.architecture is None and self.model.weights and _is_file(self.model.weights) and _has_config(folder):
            return f"; if the network was adapted, give the folder instead, of which {CONFIG} has the architecture"
        return ""


def find_start(
    model: ModelSection, adapt: AdaptSection | None, history: Sequence[Mapping[str, Any]] | None = None
) -> StartWeights:
    """What the recipe's `model` says a run starts from, read and checked; files may be untrusted.

    Args:
        model: what to build, its weights, and in `args.architecture` a file or the values of an adapted network's.
        adapt: how it adapts.
        history: the events of the run that resumes, see `RunLog`; no file is read again.

    Raises:
        ValueError: if there are no weights or no architecture, they can't be read or downloaded, are of an adapted
            network that can't be gone on from like that, or another file than that from which the run began.
    """
    given = model.args.get("architecture")
    model = model.model_copy(update={"args": {k: value for k, value in model.args.items() if k != "architecture"}})
    is_random = model.weights is None and not model.pretrained
    if is_random and given is None:
        return StartWeights(model)
    if adapt is not None and adapt.start_share is not None:
        raise UserError(
            f"adapt.start_share={adapt.start_share:g} with {_key(model)}: a network grows from random weights; take "
            "out one of them"
        )
    source = _key(model) if is_random else model.weights or f"timm's {model.name}"
    if history is not None:
        return _resume(model, source, history)
    architecture = None if given is None else _read_architecture(given)
    file = None if model.weights is None else find_file(model.weights)
    if is_random:
        state, sha256 = None, ""
    elif file is not None and model.weights is not None and _is_file(model.weights):
        sha256, state = digest_of(file), read_weights(file)
    else:
        network: nn.Module = _download(model) if file is None else load_export(file.parent)
        state = network.state_dict()
        sha256 = digest_of(state if file is None else file)
        own = Architecture.of(network) if isinstance(network, Adaptable) else None
        if own is not None and own.changed:
            if architecture is not None:
                raise UserError(f"{_key(model)} is an adapted network already: take out model.args.architecture")
            architecture = own
    if architecture is None:
        return StartWeights(model, source, sha256, state)
    return StartWeights(_with_edges_of(architecture, model, adapt), source, sha256, state, architecture, adapt)


def _read_architecture(given: Any) -> Architecture:
    try:
        if isinstance(given, str):
            architecture = Architecture.from_json(read_text(Path(os.path.expanduser(given)), given))
        else:
            architecture = Architecture.from_dict(given)
        check_arguments(architecture.model, architecture.model_args)
    except UserError as error:
        raise UserError(f"model.args.architecture: {error}") from None
    return architecture


def find_file(weights: str) -> Path | None:
    """The file that `model.weights` means, which may not exist; None for a network of the hub.

    Raises:
        ValueError: if it is neither a file nor a folder that holds an export; the message says what to type.
    """
    if _is_file(weights):
        return Path(os.path.expanduser(weights))
    try:
        name = find_network(weights)
    except UserError as error:
        raise UserError(f"model.weights={weights}: {error}") from None
    if name.startswith(HUB):
        return None
    if not name.startswith(LOCAL):
        raise UserError(f"model.weights={weights} is a name of timm: type model.name={weights} model.pretrained=true")
    return Path(name.removeprefix(LOCAL)) / WEIGHTS


def find_export(weights: str) -> Path | None:
    """The folder of the export that `model.weights` means; None for a file of weights, and for a network of the hub.

    Raises:
        ValueError: as `find_file`.
    """
    file = find_file(weights)
    return None if file is None or _is_file(weights) else file.parent


def digest_of(weights: Path | Mapping[str, Tensor]) -> str:
    """The SHA-256 of a file, or of the names and values of tensors, in hexadecimal."""
    if isinstance(weights, Path):
        if not weights.is_file():
            raise UserError(f"{weights} is no file: name one that ends in {', '.join(SUFFIXES)}, or a folder")
        with weights.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    total = hashlib.sha256()
    for name, value in weights.items():
        total.update(name.encode())
        total.update(value.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def _key(model: ModelSection) -> str:
    """What the recipe says, for errors."""
    if model.weights is not None:
        return f"model.weights={model.weights}"
    return f"model.pretrained=true with model.name={model.name}" if model.pretrained else "model.args.architecture"


def _is_file(weights: str) -> bool:
    """Whether a file is meant; os.path gives no error for a name that cannot be."""
    path = os.path.expanduser(weights)
    return os.path.isfile(path) or (path.endswith(SUFFIXES) and not os.path.isdir(path))


def _has_config(folder: Path) -> bool:
    return os.path.isfile(folder / CONFIG)


def _resume(model: ModelSection, source: str, history: Sequence[Mapping[str, Any]]) -> StartWeights:
    """What the run began from, compared with what lies there now, if anything still does."""
    before = next((event for event in history if event["event"] == EVENT), None)
    if before is None:
        raise UserError(f"the run began without {_key(model)}: resume it without, or start in another run.dir")
    try:
        file = None if model.weights is None else find_file(model.weights)
        now = digest_of(file) if file is not None and file.is_file() else None
    except UserError:  # it is gone, and not needed: the checkpoint has all of it
        now = None
    if now not in (None, before["sha256"]):
        raise UserError(
            f"{_key(model)} is another file than that from which the run began (sha256 "
            f"{before['sha256'][:12]}, now {now[:12]}): put that one back, or start in another run.dir"
        )
    return StartWeights(model.model_copy(update=before["model"]), source, before["sha256"])


def _download(model: ModelSection) -> nn.Module:
    """A network of the hub, or timm's with its pre-trained weights and its own classifier."""
    key = _key(model)
    try:
        if model.weights is None and not has_weights(model.name):
            raise UserError("timm has no weights for it; give model.weights=FILE, or start without")
        with torch.random.fork_rng(devices=[]):
            arguments = {} if model.weights else dict(model.args)
            network: nn.Module = timm.create_model(model.weights or model.name, pretrained=True, **arguments)
    except OSError as error:
        raise UserError(
            f"{key}: the weights are not in the cache and cannot be downloaded: connect to the network for the first "
            f"run, or give those that you have by model.weights=FILE ({one_line(error)[:200]})"
        ) from error
    except Exception as error:  # timm, the hub and safetensors have no common class of errors
        raise UserError(f"{key}: {one_line(error)[:300]}") from error
    return network


def _with_edges_of(architecture: Architecture, model: ModelSection, adapt: AdaptSection | None) -> ModelSection:
    """The network to build, plain, with the edges at which the given one was adapted: it is going to be that one."""
    key, arguments = _key(model), dict(architecture.model_args)
    base = arguments["base"] if architecture.model == ADAPTABLE else architecture.model
    if model.name.partition(".")[0] != base:  # after the point a name of timm says which weights
        raise UserError(f"{key} is an adapted {base}: type model.name={base} for model.name={model.name}")
    for name in ("granularity", "edges"):
        if adapt is not None and getattr(adapt, name) is not None:
            raise UserError(
                f"{key} is an adapted network, which keeps the edges at which it was adapted: take out adapt.{name}"
                f"={getattr(adapt, name)} (adapt.{name}=null)"
            )
    if adapt is not None and len(architecture.changed) == len(architecture.edges):
        raise UserError(f"{key} is an adapted network of which every edge has changed: train it on with adapt=null")
    if architecture.model == ADAPTABLE:
        arguments["base_args"] = {**arguments["base_args"], **model.args}
    else:
        arguments |= model.args
    return model.model_copy(update={"name": architecture.model, "args": arguments})


def _check_identities(backbone: nn.Module, architecture: Architecture, adapt: AdaptSection | None) -> None:
    """Refuse a second kind of identity where the shape changes, as an architecture has one."""
    before, now = architecture.shape_change, adapt.shape_change if adapt else "forbid"
    has_one = any(s.changes_shape and architecture.edges.get(s.name) == "identity" for s in edge_specs(backbone))
    if has_one and now not in ("forbid", before):
        raise UserError(f"it was adapted with adapt.shape_change={before}: set the same in place of {now}")
