"""Inputs that a user can get wrong, and what is said.

`python tests/support/bad_inputs.py > docs/bad_input.md` writes the table.

Each case works in a folder of its own, a new one: DATA, RUN and EXPORT are real names there.
"""

import gzip
import hashlib
import json
import os
import pickle
import re
import shutil
import tarfile
import tempfile
from collections.abc import Callable
from contextlib import chdir, nullcontext
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from image_folders import image_bytes, member, png, png_that_claims, write_images, write_tar
from PIL import Image
from safetensors.torch import load_file, save_file
from saved_checkpoints import seal
from script_calls import Output, create_export, run_script

from ssl_adapt import Architecture
from ssl_adapt.recipe import available_recipes
from ssl_adapt.runs.lock import FolderLock, lock_folder

INTRODUCTION = """\
# What is said of bad input

An error that a user can mend is one sentence on stderr, which begins with `error: `, and exit code 2; it says what is
wrong and, where that can be known, what to type. All else is a defect: it keeps its traceback and ends with exit code 1
(`ssl_adapt/commands/ending.py`). Several mistakes in one recipe give a line each. What is below is said before anything
is made or trained, and nothing in a file is run.

Above a table stands the command; a row is what is wrong, and the sentence without `error: `.
`DATA` is a folder or tar of images, `RUN` a run folder, `EXPORT` an exported network. The tables are not typed but
written, by `python tests/support/bad_inputs.py > docs/bad_input.md`.
"""
DATA, RUN, EXPORT, JSON, DIGITS = Path("DATA"), Path("RUN"), Path("EXPORT"), Path("a.json"), "data=digits"
CHECKPOINT, WEIGHTS, CONFIG = RUN / "checkpoints/step_000000002", EXPORT / "model.safetensors", EXPORT / "config.json"
TINY = ("run.dir=RUN", "data.image_px=8", "model.args={width: 4, layers: [1]}", "train.max_steps=2")
DEBUG = ("recipe=debug", *TINY, "knn.every_epochs=0")
FOLDER = ("data.name=folder", "data.root=DATA", "data.batch_size=2")
Make = Callable[[], object]


class Answer(NamedTuple):
    """How a script ended, and the names of what it made."""

    output: Output
    created: set[str]

    @property
    def sentence(self) -> str:
        """What is said, the same on every computer."""
        text = self.output.err.removeprefix("error: ").removesuffix("\n")
        text = re.sub(r"(?<=Expected one of cpu, cuda, )[^)]*", "...", text)  # torch's list grows
        return re.sub(r"process \d+ on \S+ since [\dT:+-]+\d", "process 4711 on HOST since TIME", text)


class Case(NamedTuple):
    """An input in words (Markdown), how it is made, and the script that is given it."""

    words: str
    make: Make
    script: str
    arguments: tuple[str, ...]


@cache
def answer(case: Case) -> Answer:
    """What the script says; a lock that `make` returns is held meanwhile."""
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        made, before = case.make(), set(Path().rglob("*"))
        with made if isinstance(made, FolderLock) else nullcontext():
            output = run_script(*case.arguments, script=f"{case.script}.py")
        return Answer(output, {str(path) for path in set(Path().rglob("*")) - before})


class Trap:
    """Unpickling it makes a folder."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("SPRUNG",)


PICKLE = pickle.dumps(Trap(), protocol=4)


@cache
def shared_folder() -> tempfile.TemporaryDirectory[str]:
    """Where what several cases start from is made once; it goes when Python ends."""
    return tempfile.TemporaryDirectory()


def nothing() -> None:
    """What some cases make."""


ARGUMENTS = [
    "train.epoch=3", "train.epochs=three", "train.lr=-1", "adapt.sharing=ful", "seed=1 seed=1", "quick", "train.lr=[1",
    "adapt.epochs=3", "adapt=null adapt.epochs=3", "train.optimizer=sgd", "train.accumulate=65", "model.name=resnet2O",
    "data.name=cifar_10", "data.name=folder", "data.batch_size=1298", "knn.k=1298",
]  # fmt: skip


def write_recipe(*lines: str) -> None:
    Path("mine.yaml").write_text("\n".join([*lines, available_recipes()["debug"].read_text()]))


RECIPES: list[tuple[str, Make]] = [
    ("a recipe that is not there", nothing),
    ("a folder", Path("mine.yaml").mkdir),
    ("a pipe", lambda: os.mkfifo("mine.yaml")),
    ("a picture", lambda: Path("mine.yaml").write_bytes(png())),
    ("more than 1 MiB", lambda: write_recipe("#" * 2**20)),
    ("a list nested 1,000 deep", lambda: write_recipe("x: " + "[" * 1000)),
    ("an alias", lambda: write_recipe("other: &a 1", "same: *a")),
    ("a tag", lambda: write_recipe("other: !!python/object:os.system {}")),
    ("a key twice", lambda: write_recipe("seed: 1", "seed: 2")),
    ("nothing but a seed", lambda: Path("mine.yaml").write_text("seed")),
]


def write_b_png(data: bytes, make: Callable[[Path], object] = Path.touch) -> None:
    write_images(DATA, "a.png", "c.png")
    make(DATA / "b.png")
    if data:
        (DATA / "b.png").write_bytes(data)


BAD_BYTES = [
    ("an image of zero bytes", b""),
    ("a web page named b.png", b"<html>\nnot found\n</html>"),
    ("a PNG that is cut off", png()[:-60]),
    ("a PNG that ends with its header", png()[:33]),
    ("a decompression bomb", png_that_claims(60_000, 60_000)),
    ("an EPS named b.png, which Pillow alone would run", image_bytes(Image.new("RGB", (8, 8)), "EPS")),
]
BOMB = tarfile.TarInfo("a.bmp")
BOMB.size = 5 * 2**30
LINK_OUT = member("b.png", kind=tarfile.SYMTYPE, target="/etc/passwd")
IMAGES: list[tuple[str, Make]] = [
    ("a link to nothing", lambda: write_b_png(b"", lambda path: path.symlink_to("none.png"))),
    ("a pipe named b.png", lambda: write_b_png(b"", os.mkfifo)),
    ("`data.root` is not there", nothing),
    ("an empty folder", DATA.mkdir),
    ("one image", lambda: write_images(DATA, "only.png")),
    ("a loose image beside class folders", lambda: write_images(DATA, "a/0.png", "b/0.png", "stray.png")),
    ("a class in test/ alone", lambda: write_images(DATA, "train/a/0.png", "train/b/0.png", "test/z/0.png")),
    ("val/ without train/", lambda: write_images(DATA, "val/a/0.png", "val/b/0.png")),
    ("a text for a tar", lambda: DATA.write_text("no tar\n" * 200)),
    ("a tar that breaks off", lambda: os.truncate(write_tar(DATA, ("a.png", png(0)), ("b.png", png(1))), 700)),
    ("a tar with a name twice", lambda: write_tar(DATA, ("a.png", png(0)), ("a.png", png(1)))),
    ("a tar with the name ../b.png", lambda: write_tar(DATA, ("a.png", png(0)), ("../b.png", png(1)))),
    ("a tar with a link to /etc/passwd", lambda: write_tar(DATA, ("a.png", png(0)), LINK_OUT)),
    ("a tar.gz of 100 bytes that promises 5 GiB", lambda: DATA.write_bytes(gzip.compress(BOMB.tobuf()))),
]  # fmt: skip
LABELS: list[tuple[str, Make]] = [
    ("`recipe=supervised_resnet20` and one class", lambda: write_images(DATA, "train/a/0.png", "train/a/1.png")),
    ("`recipe=supervised_resnet20` and no classes", lambda: write_images(DATA, "0.png", "1.png")),
]


@cache
def whole_export() -> Path:
    return create_export(Path(shared_folder().name) / "export")


def copy_export(change: Make) -> None:
    shutil.copytree(whole_export(), EXPORT)
    change()


def change_config(**changes: Any) -> None:
    config = json.loads(CONFIG.read_text())
    CONFIG.write_text(json.dumps(config | changes))


def change_weights(change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = load_file(WEIGHTS)
    change(weights)
    save_file(weights, WEIGHTS)


EXPORTS: list[tuple[str, Make]] = [
    ("no weights but a pickle", lambda: WEIGHTS.rename(EXPORT / "pytorch_model.bin").write_bytes(PICKLE)),
    ("model.safetensors is a pickle", lambda: WEIGHTS.write_bytes(PICKLE)),
    ("model.safetensors leads elsewhere", lambda: WEIGHTS.symlink_to(WEIGHTS.rename("elsewhere").absolute())),
    ("a tensor is missing", lambda: change_weights(lambda weights: weights.pop("stem.bn.bias"))),
    ("a tensor of another shape", lambda: change_weights(lambda w: w.update({"stem.bn.bias": torch.ones(3)}))),
    ("a weight is NaN", lambda: change_weights(lambda weights: weights["stem.bn.bias"].fill_(torch.nan))),
    ("a model that timm does not know", lambda: change_config(architecture="resnet2O")),
    ("a path for the model's name", lambda: change_config(architecture="local-dir:../other")),
    ("model_args that make timm read a file", lambda: change_config(model_args={"checkpoint_path": "/etc/passwd"})),
    ("a width of 10^9", lambda: change_config(model_args={"width": 10**9})),
    ("config.json is no JSON", lambda: CONFIG.write_text("width: 8")),
]
PLAIN = Architecture("resnet20", {}, {}).to_dict()
ARCHITECTURES: list[tuple[str, bytes]] = [
    ("a file nested 1,000 deep", b"[" * 1000),
    ("a file with a key twice", b'{"version": 1, "version": 1}'),
    ("a file with an unknown edge", json.dumps(PLAIN | {"edges": {"layer9": "none"}}).encode()),
    ("a file with a choice that there is not", json.dumps(PLAIN | {"edges": {"x": "remove"}}).encode()),
    ("a file with a NaN", b'{"version": NaN}'),
    ("a file of another version", json.dumps(PLAIN | {"version": 2}).encode()),
    ("a file which is a pickle", PICKLE),
]


@cache
def whole_run() -> Path:
    with chdir(shared_folder().name):
        assert run_script(*DEBUG, script="pretrain.py").code == 0
        return RUN.absolute()


def copy_run(change: Make) -> object:
    shutil.copytree(whole_run(), RUN)
    return change()


def write_code() -> None:
    """A checkpoint that holds code, with its checksums right."""
    state = CHECKPOINT / "state.pt"
    torch.save({"step": 2, "learner": Trap()}, state)
    file = {"bytes": state.stat().st_size, "sha256": hashlib.sha256(state.read_bytes()).hexdigest()}
    seal(CHECKPOINT, files={"state.pt": file})


ARCH, AGAIN = "model=a.json", "run.resume=auto"
RUNS: list[tuple[str, Make, list[str]]] = [
    ("`run.dir` holds a run", nothing, []),
    ("another value on resume: `seed=1`", nothing, [AGAIN, "seed=1"]),
    ("more epochs on resume: `train.epochs=3`", nothing, [AGAIN, "train.epochs=3"]),
    ("more epochs and max_steps: `run.resume=extend`", nothing, ["run.resume=extend", "train.epochs=3"]),
    ("a run that is at work", lambda: lock_folder(RUN), [AGAIN]),
    ("all checkpoints damaged", lambda: (CHECKPOINT / "manifest.json").write_text("{}"), [AGAIN]),
    ("a checkpoint without a manifest", (CHECKPOINT / "manifest.json").unlink, [AGAIN]),
    ("a checkpoint of another release", lambda: seal(CHECKPOINT, version=1), [AGAIN]),
    ("a checkpoint with code in it", write_code, [AGAIN]),
]

SCORES = [
    "model=EXPORT/config.json data=digits", "model=zzz data=digits", "model=my/net data=digits", "model=EXPORT",
    "model=EXPORT data=digits k=1298", "model=EXPORT data=digits device=abacus", "model=EXPORT data=folder",
    "model=EXPORT data=digits protocol=plain temperature=0.1", "model=EXPORT data=digits search=ivf",
]  # fmt: skip


def cases(table: list[tuple[str, Make]], script: str, *arguments: str) -> list[Case]:
    return [Case(words, make, script, arguments) for words, make in table]


GROUPS: dict[str, list[Case]] = {
    "Recipe and arguments: `ssl-adapt pretrain recipe=debug`, or `recipe=mine.yaml`": [
        Case("`recipe=debgu`", nothing, "pretrain", ("recipe=debgu",)),
        *(Case(f"`{text}`", nothing, "pretrain", (*DEBUG, *text.split())) for text in ARGUMENTS),
        *cases(RECIPES, "pretrain", "recipe=mine.yaml", *TINY),
    ],
    "Images, folders and tars: `ssl-adapt pretrain data.name=folder data.root=DATA`": [
        *cases([(words, partial(write_b_png, data)) for words, data in BAD_BYTES], "pretrain", *DEBUG, *FOLDER),
        *cases(IMAGES, "pretrain", *DEBUG, *FOLDER),
        *cases(LABELS, "pretrain", "recipe=supervised_resnet20", "run.dir=RUN", *FOLDER),
    ],
    "Exports: `ssl-adapt knn model=EXPORT data=digits`":
        cases([(words, partial(copy_export, spoil)) for words, spoil in EXPORTS], "knn_eval", "model=EXPORT", DIGITS),
    "Architectures: `ssl-adapt inspect model=a.json`":
        cases([(words, partial(JSON.write_bytes, data)) for words, data in ARCHITECTURES], "inspect_network", ARCH),
    "Run folders and checkpoints: `ssl-adapt pretrain run.dir=RUN`": [
        Case("`run.dir` is a file", partial(RUN.write_text, "x"), "pretrain", DEBUG),
        *(Case(words, partial(copy_run, spoil), "pretrain", (*DEBUG, *rest)) for words, spoil, rest in RUNS),
    ],
    "kNN evaluation: `ssl-adapt knn`":
        [Case(f"`{text}`", partial(copy_export, nothing), "knn_eval", tuple(text.split())) for text in SCORES],
}  # fmt: skip
CASES = [case for group in GROUPS.values() for case in group]


def row(case: Case) -> str:
    """The line of the table; what Markdown would take for its own is escaped."""
    sentence = re.sub(r"([\\|<*`~])", r"\\\1", answer(case).sentence)
    return f"| {case.words} | {sentence} |\n"


def document() -> str:
    heading = "\n## {}\n\n| input | what is said |\n|---|---|\n"
    return INTRODUCTION + "".join(heading.format(title) + "".join(map(row, group)) for title, group in GROUPS.items())


if __name__ == "__main__":
    print(document(), end="")
