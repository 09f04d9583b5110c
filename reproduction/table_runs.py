"""The runs of a table and their arguments, in two rounds, as some start from the architectures that others found."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from reproduction.nat.nat_options import why_unused
from reproduction.systems import METHODS, NAT_ARGUMENTS, RULES, How, Method, Network, Scale
from ssl_adapt.errors import UserError
from ssl_adapt.recipe import Recipe, load_recipe
from ssl_adapt.runs.grid_plan import GridRun

CLASSES = {"tiny_imagenet": 200}  # 10 elsewhere; the number changes no edge
_START_KEYS: dict[How, str] = {
    "nat": "model.args.genotype",
    "from scratch": "model.args.architecture",
    "skips": "model.args.architecture",
    "random changes": "adapt.choices",
    "skips at the fix": "adapt.choices",
}


@dataclass(frozen=True)
class TableRun:
    """A network trained by a method from a seed.

    Attributes:
        network: of the table.
        method: likewise.
        seed: of weights, order of images, views and NAT's search.
        scale: whose settings it has.
        folder: of the table; the run's own is below it.
        common: arguments that the user adds to every run, such as data.root.
    """

    network: Network
    method: Method
    seed: int
    scale: Scale
    folder: Path
    common: tuple[str, ...]

    @property
    def name(self) -> str:
        """Names the run's folder."""
        return f"{self.network.key}-{self.method.key}-seed={self.seed}"

    @property
    def path(self) -> Path:
        """The run's folder."""
        return self.folder / self.name

    @property
    def source_path(self) -> Path:
        """The folder of the run whose architecture this one is given."""
        return self.folder / f"{self.network.key}-{self.method.source}-seed={self.seed}"

    @property
    def found_by(self) -> Path:
        """The file or folder that this run starts from: the result of NAT's search, or the run of its source."""
        return self.search_path if self.method.how == "nat" else self.source_path

    @property
    def search_path(self) -> Path:
        """What NAT's search wrote, beside its genotype."""
        return self.folder / f"{self.network.key}-nat_search-seed={self.seed}.json"

    def has_start(self) -> bool:
        """Whether the run can start: NAT's genotype, or its source's architecture, exists."""
        if self.method.how == "nat":
            return _genotype_path(self).is_file()
        return not self.method.source or (self.source_path / "architecture.json").is_file()

    def is_second_round(self) -> bool:
        """Whether it needs the result of another run."""
        return bool(self.method.source) or self.method.how == "nat"

    def arguments(self, start: str | None = None) -> tuple[str, ...]:
        """Of `ssl-adapt pretrain`, all but run.dir and run.resume; `start` replaces the result of the other run.

        Raises:
            ValueError: if the run that it starts from has not finished.
        """
        method = self.method
        rule: tuple[str, ...] = ("adapt=null",)
        if method.rule:
            rule = (f"adapt.sharing={method.sharing}", *RULES[self.network.rules or self.scale][method.rule])
        if method.how == "run":
            return (*self._shared(), *rule)
        return (*self._shared(), *rule, f"{_START_KEYS[method.how]}={self._start() if start is None else start}")

    def _start(self) -> str:
        """The value that the run starts from: NAT's genotype, an architecture or choices."""
        if not self.has_start():
            raise UserError(f"{self.name} starts from the result of {self.found_by}, which has not finished")
        if self.method.how == "nat":
            return json.dumps(json.loads(_genotype_path(self).read_text(encoding="utf-8")))
        from reproduction.starts import create_start  # here: it needs torch, and arguments are read without it

        return json.dumps(create_start(self))

    def recipe(self) -> Recipe:
        """The network's recipe, before any method has changed it."""
        return load_recipe((*self._shared(), "adapt=null"))

    def grid_state(self) -> str:
        """The state of its folder, as `ssl-adapt grid` shows it; "-" before the start."""
        return GridRun(self.name, self.path, ()).state

    def grid_run(self, start: str | None = None) -> GridRun:
        """The run as `ssl-adapt grid` would start it; `start` as in `arguments`."""
        own = (f"run.dir={json.dumps(str(self.path))}", "run.resume=auto")
        return GridRun(self.name, self.path, (*self.arguments(start), *own))

    def _shared(self) -> tuple[str, ...]:
        return (*self.network.arguments, *self.common, f"seed={self.seed}")

    def search(self) -> GridRun:
        """NAT's search, which precedes the run."""
        name = self.search_path.stem
        used = [argument for argument in self._shared() if not why_unused(argument.partition("=")[0])]
        arguments = (
            *used, *NAT_ARGUMENTS[self.scale],
            f"genotype={json.dumps(str(_genotype_path(self)))}", f"json={json.dumps(str(self.search_path))}",
        )  # fmt: skip
        return GridRun(name, self.folder, arguments, "nat", self.search_path)


def plan_runs(
    networks: Sequence[Network], seeds: Iterable[int], scale: Scale, folder: Path, common: Sequence[str]
) -> list[TableRun]:
    """Every network, seed and method, seeds outermost, so that the first seeds are complete first."""
    return [
        TableRun(network, METHODS[method], seed, scale, folder, tuple(common))
        for seed in seeds
        for network in networks
        for method in network.methods
    ]


def has_nothing_to_control(run: TableRun) -> bool:
    """Whether the run that this one is a control of has finished without changing any edge."""
    path = run.source_path / "result.json"
    return bool(run.method.source) and path.is_file() and not json.loads(path.read_text(encoding="utf-8"))["changed"]


def _genotype_path(run: TableRun) -> Path:
    return run.search_path.with_name(f"{run.network.key}-nat_genotype-seed={run.seed}.json")
