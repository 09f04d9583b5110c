"""Genotypes: the graph of a cell as plain data, and the published ones by name."""

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

from ssl_adapt.errors import UserError

OPERATIONS = (
    "none",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
    "max_pool_3x3",
    "avg_pool_3x3",
    "conv_1x1",
    "conv_3x3",
    "conv_5x5",
    "conv_7x1_1x7",
)


class GenotypeEdge(NamedTuple):
    """An operation from the node `source` to the node `target`."""

    operation: str
    source: int
    target: int


@dataclass(frozen=True)
class CellGenotype:
    """The graph of one cell.

    Attributes:
        edges: sorted by their target. Node 0 is the output of the cell before the previous, 1 that of the previous;
            2, 3, ... are inner nodes, each the sum of the edges that enter it.
        concat: the inner nodes whose concatenation is the cell's output.

    Raises:
        ValueError: if an operation is unknown, a node is out of order, or there is nothing to concatenate.
    """

    edges: tuple[GenotypeEdge, ...]
    concat: tuple[int, ...]

    def __post_init__(self) -> None:
        reached = 1
        for operation, source, target in self.edges:
            if operation not in OPERATIONS:
                raise UserError(_unknown("operation", operation, OPERATIONS))
            if target not in (reached, reached + 1) or target < 2:
                raise UserError(
                    f"edge {operation} {source}->{target} is out of order: sort edges by target, and number the inner "
                    f"nodes 2, 3, ... without a gap; the target {reached + 1} is the next new one here"
                )
            if not 0 <= source < target:
                raise UserError(f"edge {operation} {source}->{target}: an edge leaves a node from 0 to {target - 1}")
            reached = target
        if not self.concat:
            raise UserError("a cell's 'concat' is empty; name the inner nodes that make its output, such as [2, 3]")
        wrong = [node for node in self.concat if not 2 <= node <= reached]
        if wrong or len(set(self.concat)) != len(self.concat):
            raise UserError(f"concat {list(self.concat)}: give inner nodes from 2 to {reached}, each of them once")

    def to_dict(self) -> dict[str, Any]:
        """JSON values: {"edges": [[operation, source, target], ...], "concat": [node, ...]}."""
        return {"edges": [list(edge) for edge in self.edges], "concat": list(self.concat)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "CellGenotype":
        """The cell that `to_dict` described.

        Raises:
            ValueError: for missing or unknown keys, and for what no cell can be.
        """
        _check_keys(data, ("edges", "concat"), "a cell of a genotype")
        rows = _check_rows(data["edges"], 3, "[operation, source, target]")
        return cls(tuple(GenotypeEdge(*row) for row in rows), _nodes(data["concat"]))


@dataclass(frozen=True)
class Genotype:
    """The graphs of a network's two types of cells; in a reduction cell the edges from nodes 0 and 1 have stride 2."""

    normal: CellGenotype
    reduction: CellGenotype

    def to_dict(self) -> dict[str, Any]:
        """JSON values: {"normal": ..., "reduction": ...}, each as `CellGenotype.to_dict` gives it."""
        return {"normal": self.normal.to_dict(), "reduction": self.reduction.to_dict()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Genotype":
        """The genotype that `to_dict` described, or one in the layout of DARTS.

        That layout is {"normal": [["sep_conv_3x3", 1], ...], "normal_concat": [...], "reduce": ..., "reduce_concat":
        ...}: (operation, source) pairs, two for each inner node.

        Raises:
            ValueError: for missing or unknown keys, and for what no cell can be.

        Source: https://github.com/quark0/darts, cnn/genotypes.py, for the second layout.
        """
        if isinstance(data, Mapping) and "reduce" in data:
            _check_keys(data, ("normal", "normal_concat", "reduce", "reduce_concat"), "a genotype in DARTS' layout")
            return cls(
                _from_pairs(data["normal"], data["normal_concat"]), _from_pairs(data["reduce"], data["reduce_concat"])
            )
        _check_keys(data, ("normal", "reduction"), "a genotype")
        return cls(CellGenotype.from_dict(data["normal"]), CellGenotype.from_dict(data["reduction"]))

    def to_json(self) -> str:
        """Text that `from_json` reads."""
        return json.dumps(self.to_dict(), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Genotype":
        """The genotype in a JSON text, in either layout of `from_dict`.

        Raises:
            ValueError: if the text is not JSON or not a genotype.
        """
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise UserError(f"this is not a genotype's JSON: {error}") from None
        return cls.from_dict(data)


def load_genotype(source: str | Path | Mapping[str, Any] | Genotype) -> Genotype:
    """The genotype of that name or in that JSON file, mapping, or object.

    Raises:
        ValueError: if there is no such name or file, or it holds no genotype.
    """
    if isinstance(source, Genotype):
        return source
    if isinstance(source, Mapping):
        return Genotype.from_dict(source)
    if not isinstance(source, str | Path):
        raise UserError(f"genotype of type {type(source).__name__}; give a name, a JSON file, a mapping or a Genotype")
    if str(source) in GENOTYPES:
        return GENOTYPES[str(source)]
    path = Path(source)
    if path.is_file():
        return Genotype.from_json(path.read_text())
    if path.suffix == ".json" or isinstance(source, Path):
        raise UserError(f"there is no genotype file '{source}'; give a JSON file or one of {', '.join(GENOTYPES)}")
    raise UserError(_unknown("genotype", source, tuple(GENOTYPES)))


def _unknown(what: str, got: object, known: Sequence[str]) -> str:
    by_lower = {name.lower(): name for name in known}
    near = difflib.get_close_matches(str(got).lower(), by_lower, n=1)
    hint = f"did you mean '{by_lower[near[0]]}'? " if near else ""
    return f"unknown {what} {got!r}; {hint}available: {', '.join(known)}"


def _check_keys(data: Mapping[str, Any], keys: Sequence[str], what: str) -> None:
    if not isinstance(data, Mapping) or set(data) != set(keys):
        found = sorted(map(str, data)) if isinstance(data, Mapping) else type(data).__name__
        raise UserError(f"{what} has exactly the keys {', '.join(keys)}; got {found}")


def _check_rows(rows: Any, length: int, form: str) -> list[list[Any]]:
    if not isinstance(rows, Sequence) or isinstance(rows, str):
        raise UserError(f"edges are a list of {form}; got {rows!r}")
    for row in rows:
        is_row = isinstance(row, Sequence) and not isinstance(row, str) and len(row) == length
        if not is_row or any(type(node) is not int for node in row[1:]):
            raise UserError(f"an edge is written {form} with whole numbers for nodes; got {row!r}")
    return cast(list[list[Any]], rows)


def _nodes(concat: Any) -> tuple[int, ...]:
    if not isinstance(concat, Sequence | range) or any(type(node) is not int for node in concat):
        raise UserError(f"concat is a list of whole numbers; got {concat!r}")
    return tuple(concat)


def _from_pairs(pairs: Any, concat: Any) -> CellGenotype:
    rows = _check_rows(pairs, 2, "[operation, source]")
    edges = (GenotypeEdge(operation, source, 2 + index // 2) for index, (operation, source) in enumerate(rows))
    return CellGenotype(tuple(edges), _nodes(concat))


def _cell(text: str, concat: Sequence[int]) -> CellGenotype:
    """A cell from two (operation, source) pairs for each inner node, with operations shortened as in `_SHORT`."""
    pairs = [pair.split() for pair in text.split(",")]
    return _from_pairs([(_SHORT[operation], int(source)) for operation, source in pairs], concat)


_SHORT = {
    "none": "none",
    "skip": "skip_connect",
    "sep3": "sep_conv_3x3",
    "dil3": "dil_conv_3x3",
    "max3": "max_pool_3x3",
    "avg3": "avg_pool_3x3",
    "conv1": "conv_1x1",
    "conv3": "conv_3x3",
}

# Source: Liu et al. 2019, https://github.com/quark0/darts, cnn/genotypes.py.
DARTS_V1 = Genotype(
    _cell("sep3 1, sep3 0, skip 0, sep3 1, skip 0, sep3 1, sep3 0, skip 2", range(2, 6)),
    _cell("max3 0, max3 1, skip 2, max3 0, max3 0, skip 2, skip 2, avg3 0", range(2, 6)),
)
DARTS_V2 = Genotype(
    _cell("sep3 0, sep3 1, sep3 0, sep3 1, sep3 1, skip 0, skip 0, dil3 2", range(2, 6)),
    _cell("max3 0, max3 1, skip 2, max3 1, max3 0, skip 2, skip 2, max3 1", range(2, 6)),
)

# Source: Guo et al. 2019 (NAT), https://github.com/guoyongcs/NAT: hand-made networks as cells, and what NAT made of
# them. The Bottleneck is ours, after the same pattern.
NAT_DARTS = Genotype(
    _cell("sep3 0, sep3 1, skip 0, sep3 1, skip 1, skip 0, skip 0, dil3 2", range(2, 6)),
    _cell("max3 0, skip 1, skip 2, skip 1, max3 0, none 2, skip 2, max3 1", range(2, 6)),
)
RESBLOCK = Genotype(*2 * (_cell("none 0, skip 1, none 0, conv3 2, none 0, conv3 3, skip 2, skip 4", [5]),))
NAT_RESBLOCK = Genotype(*2 * (_cell("none 0, skip 1, skip 0, conv3 2, skip 0, conv3 3, skip 2, skip 4", [5]),))
MOBILENETV2 = Genotype(
    _cell("none 0, conv1 1, none 0, sep3 2, none 0, conv1 3, skip 1, skip 4", [5]),
    _cell("none 0, conv1 1, none 0, sep3 2, none 0, conv1 3, none 0, skip 4", [5]),
)
BOTTLENECK = Genotype(*2 * (_cell("none 0, conv1 1, none 0, conv3 2, none 0, conv1 3, skip 1, skip 4", [5]),))

GENOTYPES = {
    "DARTS_V1": DARTS_V1,
    "DARTS_V2": DARTS_V2,
    "NAT_DARTS": NAT_DARTS,
    "ResBlock": RESBLOCK,
    "NAT_ResBlock": NAT_RESBLOCK,
    "MobileNetV2": MOBILENETV2,
    "Bottleneck": BOTTLENECK,
}
