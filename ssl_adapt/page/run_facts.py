"""The facts of a run in words: what was trained on what, by which code, where and when."""

from collections.abc import Mapping
from typing import Any

from ssl_adapt.runs.run_record import RunRecord

OBJECTIVES = {
    "simclr": "SimCLR: the two views of an image are to be nearest to each other (NT-Xent)",
    "byol": "BYOL: from one view the teacher's projection of the other is to be predicted",
    "vicreg": "VICReg: the views agree, while the outputs vary and do not vary together",
    "supervised": "supervised: cross-entropy with labels",
}


def run_facts(run: RunRecord) -> list[tuple[str, str]]:
    """Names and what is known, in the order of a reader's questions; what is not known is left out."""
    start = run.last("start") or {}
    facts = {
        "Objective": OBJECTIVES.get(run.recipe.objective.name, run.recipe.objective.name),
        "Images": _images(run),
        "Labels": _labels(run.result.get("labels")),
        "Network": _network(run),
        "Adaptation": _adaptation(run),
        "Training": _training(run),
        "Seed": str(run.recipe.seed),
        "Code": _code(run, start),
        "Versions": _versions(run, start),
        "Hardware": _hardware(start),
        "Where": _where(run, start),
        "Folder": str(run.folder),
    }
    return [(name, value) for name, value in facts.items() if value]


def _images(run: RunRecord) -> str:
    data, result = run.recipe.data, run.result
    train, test, classes = (
        result.get("train_images", data.train_images),
        result.get("test_images"),
        result.get("classes"),
    )
    parts = [f"{data.name} at {data.image_px} px"]
    if isinstance(train, int):
        parts.append(f"{train:,} to train on")
    if isinstance(test, int) and test:
        parts.append(f"{test:,} to test")
    if isinstance(classes, int) and classes:
        parts.append(f"{classes:,} classes")
    return ", ".join(parts)


def _labels(labels: Any) -> str:
    if not isinstance(labels, dict):
        return ""
    return f"of {labels.get('images')} of {labels.get('of')} training images"


def _network(run: RunRecord) -> str:
    model = run.recipe.model
    shown = {key: "given" if isinstance(value, Mapping) else value for key, value in model.args.items()}
    arguments = ", ".join(f"{key} {value}" for key, value in shown.items())
    start = model.weights or ("timm's own weights" if model.pretrained else "random weights")
    return f"{model.name}{f' ({arguments})' if arguments else ''}, from {start}"


def _adaptation(run: RunRecord) -> str:
    adapt = run.recipe.adapt
    if adapt is None:
        return "none: the network stayed as it was"
    rule = "theta" if adapt.score == "theta" else f"the score {adapt.score}"
    parts = [f"chosen by {rule} after {_epochs(adapt.epochs)}, sharing {adapt.sharing}"]
    if adapt.anneal_epochs:
        parts.append(f"annealed over {_epochs(adapt.anneal_epochs)}")
    if adapt.budget is not None:
        unit, share = adapt.budget
        parts.append(f"until {share:.0%} of the {unit} are left")
    if adapt.rounds > 1:
        parts.append(f"in {adapt.rounds} rounds")
    return ", ".join(parts)


def _epochs(count: float) -> str:
    return f"{count:g} epoch{'' if count == 1 else 's'}"


def _training(run: RunRecord) -> str:
    train, done = run.recipe.train, len(run.of("epoch"))
    steps = max((event["step"] for event in run.events), default=0)
    of = f"{done} of {train.epochs}" if done != train.epochs else str(done)
    limit = f" (train.max_steps={train.max_steps})" if train.max_steps is not None else ""
    return (
        f"{of} epochs, {steps:,} steps{limit}, batches of {run.recipe.data.batch_size}; {train.optimizer}, "
        f"learning rate {train.lr:g}, {train.schedule}"
    )


def _code(run: RunRecord, start: Mapping[str, Any]) -> str:
    version = _version_map(run, start).get("ssl_adapt")
    commit = start.get("commit")
    parts = [f"ssl_adapt {version}" if version else "", f"commit {commit}" if commit else ""]
    return ", ".join(part for part in parts if part)


def _version_map(run: RunRecord, start: Mapping[str, Any]) -> Mapping[str, Any]:
    for source in (start.get("versions"), run.status.get("versions")):
        if isinstance(source, dict):
            return source
    return {}


def _versions(run: RunRecord, start: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in _version_map(run, start).items() if name != "ssl_adapt")


def _hardware(start: Mapping[str, Any]) -> str:
    gpus = start.get("gpus") or []
    cpu = f"{start['cpu']}, {start.get('cores', '?')} cores" if start.get("cpu") else ""
    processes = start.get("processes")
    parts = [
        *(f"{gpus.count(name)} x {name}" for name in dict.fromkeys(gpus)),
        cpu,
        f"{processes} process{'' if processes == 1 else 'es'}" if processes else "",
        f"{start['precision']} on {start.get('device', 'the device')}" if start.get("precision") else "",
    ]
    return "; ".join(part for part in parts if part)


def _where(run: RunRecord, start: Mapping[str, Any]) -> str:
    host, begun, ended = start.get("host") or run.status.get("host"), start.get("time"), run.status.get("time")
    parts = [f"on {host}" if host else "", f"begun {begun}" if begun else "", f"last word {ended}" if ended else ""]
    return ", ".join(part for part in parts if part)
